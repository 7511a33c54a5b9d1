from pathlib import Path

import pytest

from slimsearch import shelf
from slimsearch.calibration.recipe import DemoPairs, DemoText, FileText, HubText, read_recipe
from slimsearch.errors import CalibrationError

SHIPPED = sorted((Path(__file__).parents[2] / "calibration").glob("*.toml"))

MINE = """
segments = 3
[text]
source = "file"
file = "mine.txt"
[pairs]
source = "file"
file = "photos"
"""


def test_recipes_are_shipped():
    assert {"demo", "ptb", "wikitext2", "c4"} <= {file.stem for file in SHIPPED}
    assert {file.stem for file in SHIPPED} <= set(shelf.names("calibration"))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_every_shipped_recipe_is_sound(file: Path):
    recipe = read_recipe(str(file))
    assert recipe.name == file.stem
    assert recipe.about.endswith(".")


def test_the_demo_is_short_and_says_so():
    recipe = read_recipe("demo")
    assert (recipe.segments, recipe.segment_length, recipe.pair_count) == (64, 64, 64)
    assert isinstance(recipe.text, DemoText)
    assert isinstance(recipe.pairs, DemoPairs)
    assert "256" in recipe.about


def test_ptb_is_the_papers():
    recipe = read_recipe("ptb")
    assert (recipe.segments, recipe.segment_length) == (64, 256)
    assert isinstance(recipe.text, HubText)
    assert recipe.text.join == " "


def test_paths_start_at_the_recipes_folder(here: Path):
    (here / "deep").mkdir()
    (here / "deep/mine.toml").write_text(MINE)
    recipe = read_recipe("deep/mine.toml")
    assert recipe.name == "mine"
    assert recipe.text == FileText("deep/mine.txt")
    assert recipe.pairs is not None
    assert recipe.pairs.file == "deep/photos"  # pyright: ignore[reportAttributeAccessIssue]
    assert (recipe.segments, recipe.segment_length) == (3, 256)


def test_a_bare_file_is_a_recipe(here: Path):
    assert read_recipe("notes.jsonl").text == FileText("notes.jsonl")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("segments = ", "mine.toml is no readable recipe: "),
        (MINE.replace("segments", "segmets"), "unknown key 'segmets'. Did you mean 'segments'?"),
        (MINE.replace('"mine.txt"', '"a"\njoint = " "'), "[text] has an unknown key 'joint'. Did"),
        (
            '[text]\nsource = "demo"\nwords = 1\nheld_words = 0\n[pairs]\nsource = "demo"\n'
            "questions_each = 25\nheld_questions_each = 1",
            "[pairs]: questions_each = 25 cannot be: give 1 to 24.",
        ),
        (MINE.replace("3", "0"), "segments = 0 cannot be: give 1 to 1048576."),
        (MINE.replace("3", "true"), "'segments' must be a whole number, found True."),
        (MINE.replace("3", "'3'"), "'segments' must be a whole number, found '3'."),
        (MINE.replace('"mine.txt"', "7"), "[text]: 'file' must be a string, found 7."),
        (MINE.replace('"mine.txt"', '""'), "[text]: 'file' must not be empty."),
        (MINE.replace('file = "photos"', ""), "[pairs] needs the key 'file'."),
        (MINE.replace('"file"', '"fille"'), "[text] has no source 'fille'. Did you mean 'file'?"),
        (MINE.replace("source", "sauce"), "needs a table [text] with a `source`: demo, file, hub."),
        ("segments = 3", "needs a table [text] with a `source`"),
        ("text = 3", "needs a table [text] with a `source`"),
    ],
)
def test_a_faulty_recipe_is_refused(here: Path, content: str, message: str):
    (here / "mine.toml").write_text(content)
    with pytest.raises(CalibrationError) as refusal:
        read_recipe("mine.toml")
    assert message in str(refusal.value)
    assert "mine.toml" in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ptbb", "There is no 'ptbb' in calibration/. Did you mean 'ptb'?"),
        ("no/such.toml", "There is no file no/such.toml."),
        ("folder", "folder is a folder. Give a .txt, .jsonl or .toml file"),
        ("text.doc", "text.doc is of no known kind. Rename it to .txt"),
    ],
)
def test_what_is_no_recipe_is_refused(here: Path, name: str, message: str):
    (here / "folder").mkdir()
    (here / "text.doc").write_text("words")
    with pytest.raises(CalibrationError) as refusal:
        read_recipe(name)
    assert message in str(refusal.value)
