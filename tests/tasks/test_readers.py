"""Each dataset's official files as questions; whatever is wrong with them is named."""

import json
import shutil

import official
import pytest

from slimsearch.contracts import JudgedTask
from slimsearch.errors import SettingsError, SlimsearchError, TaskError
from slimsearch.evaluation import marking
from slimsearch.plugins import find, names
from slimsearch.tasks.mme import Mme
from slimsearch.tasks.perplexity import Perplexity
from slimsearch.tasks.pope import Pope
from slimsearch.tasks.scienceqa import LAST_LINE, ScienceQA
from slimsearch.tasks.vqa import Vqa

BRIEFLY = "\nAnswer the question using a single word or phrase."


@pytest.mark.parametrize(
    ("task", "written", "count"),
    [
        ("scienceqa", official.scienceqa, 6),
        ("vqa", official.vizwiz, 4),
        ("vqa", official.vqav2, 8),
        ("vqa", official.textvqa, 4),
        ("vqa", official.gqa, 8),
        ("pope", official.pope, 8),
        ("mme", official.mme, 16),
        ("mmvet", official.mmvet, 4),
        ("llava_bench", official.llava_bench, 4),
        ("pairs", official.pairs, 12),
    ],
)
def test_every_question_is_read_with_its_picture(task, written, count, tmp_path):
    found = find("tasks", task)().questions(str(written(tmp_path)), None)
    assert len(found) == count
    assert all(one.expected and one.prompt for one in found)
    assert all(one.picture.is_file() for one in found if one.picture is not None)
    assert sum(one.picture is not None for one in found) >= count / 2


def test_scienceqa_asks_context_question_choices(tmp_path):
    first, second, *_ = ScienceQA().questions(str(official.scienceqa(tmp_path)), None)
    lines = first.prompt.split("\n")
    assert lines[0] == "Context: Look at the picture."
    assert lines[1].startswith("What ")
    assert lines[2].startswith("A. ")
    assert lines[-1] == LAST_LINE
    assert first.groups == ("NAT", "TXT", "IMG", "G1-6")
    assert second.groups == ("SOC", "NO", "G1-6")
    assert not second.prompt.startswith("Context")
    (asked, *_) = ScienceQA(form="options").questions(str(tmp_path), None)
    assert asked.prompt.startswith("Context: Look at the picture.\nQuestion: What ")
    assert "\nOptions: (A) " in asked.prompt
    assert ") " in asked.prompt.rsplit("\n", 1)[1]
    assert [one.id for one in ScienceQA(split="train").questions(str(tmp_path), None)] == ["9"]


def test_vizwiz_is_told_that_it_may_refuse(tmp_path):
    *_, last = Vqa().questions(str(official.vizwiz(tmp_path)), None)
    assert last.prompt.endswith(
        "\nWhen the provided information is insufficient, respond with 'Unanswerable'." + BRIEFLY
    )
    assert last.facts["answerable"] is False
    assert last.groups == ("unanswerable",)
    plain = Vqa(instruction="").questions(str(tmp_path), None)
    assert plain[0].prompt.endswith("'Unanswerable'.")


def test_pope_numbers_its_questions_as_llava_does(tmp_path):
    found = Pope().questions(str(official.pope(tmp_path)), None)
    assert [one.id for one in found[:1]] == ["1"]
    assert found[-1].id == "10000004"
    assert found[0].prompt.endswith(BRIEFLY)
    assert {one.groups for one in found} == {("random",), ("adversarial",)}


def test_mme_asks_as_llava_does_and_pairs_by_picture(tmp_path):
    found = Mme().questions(str(official.mme(tmp_path)), None)
    assert found[0].prompt.endswith("?" + BRIEFLY)
    assert found[0].unit == found[1].unit == "existence/0000.png"
    assert [one.expected for one in found[:2]] == [("yes",), ("no",)]


def test_mmvet_and_llava_bench_have_what_a_judge_needs(tmp_path):
    (one, *_) = find("tasks", "mmvet")().questions(str(official.mmvet(tmp_path / "a")), None)
    assert one.groups in (("rec", "spat", "rec+spat"), ("ocr", "math", "ocr+math"))
    (one, *_) = find("tasks", "llava_bench")().questions(
        str(official.llava_bench(tmp_path / "b")), None
    )
    assert one.facts["context"] == "A scene.\nOf shapes."
    assert one.expected[0].startswith("It is ")
    rule = {"llava_bench_conv": {"role": "Helper", "prompt": "Official words."}}
    (tmp_path / "b" / "rule.json").write_text(json.dumps(rule), "utf-8")
    task = find("tasks", "llava_bench")()
    (one, *_) = task.questions(str(tmp_path / "b"), None)
    assert "[Helper 2]\nred\n\n[End of Helper 2]" in task.case(one, "red")
    assert "Official words." in task.case(one, "red")


def test_pairs_come_after_what_was_said_before(tmp_path):
    first, second, third, *_ = find("tasks", "pairs")().questions(
        str(official.pairs(tmp_path)), None
    )
    assert first.before == ()
    assert third.before == (
        (first.prompt, first.expected[0]), (second.prompt, second.expected[0]),
    )  # fmt: skip
    assert first.unit == third.unit
    assert len({first.groups, second.groups, third.groups}) == 3


def words(text: str) -> list[int]:
    return [len(word) for word in text.split()]


@pytest.mark.parametrize(
    ("length", "stride", "windows"),
    [
        (4, 0, [(0, 4, 1), (4, 8, 1)]),  # the tail of 2 is left out, as in SparseGPT
        (4, 2, [(0, 4, 1), (2, 6, 2), (4, 8, 2), (6, 10, 2)]),
        (4, 3, [(0, 4, 1), (3, 7, 1), (6, 10, 1)]),
        (8, 4, [(0, 8, 1), (4, 10, 4)]),
        (10, 0, [(0, 10, 1)]),
    ],
)
def test_windows_of_text(length, stride, windows, tmp_path):
    (tmp_path / "own.txt").write_text("a bb ccc dddd e ff ggg hhhh i jj", "utf-8")
    task = Perplexity(length, stride, room=10)
    found = task.questions(str(tmp_path / "own.txt"), words)
    ids = [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]
    assert [(one.facts["ids"], one.facts["first"]) for one in found] == [
        (ids[start:stop], first) for start, stop, first in windows
    ]
    overlapping = [n for one, (start, stop, first) in zip(found, windows, strict=True)
                   for n in range(start + first, stop)]  # fmt: skip
    assert len(overlapping) == len(set(overlapping))


def test_treebank_lines_are_joined_as_in_the_literature(tmp_path):
    (tmp_path / "ptb.test.txt").write_text(" no it was n't \n it was <unk> \n", "utf-8")
    (tmp_path / "wiki.test.raw").write_text(" = A = \n \n b \n", "utf-8")
    said = []
    Perplexity(2).questions(
        str(tmp_path / "ptb.test.txt"), lambda text: said.append(text) or [1] * 9
    )
    Perplexity(2).questions(
        str(tmp_path / "wiki.test.raw"), lambda text: said.append(text) or [1] * 9
    )
    assert said == ["no it was n't it was <unk>", " = A = \n\n\n \n\n\n b \n"]


def spoil(file, change) -> None:
    found = json.loads(file.read_text("utf-8"))
    change(found)
    file.write_text(json.dumps(found), "utf-8")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda found: found["10"].pop("choices"),
            r"problem 10: 'choices' must be a list, found n",
        ),
        (lambda found: found["10"].update(question=3), "'question' must be text, found 3"),
        (lambda found: found["10"].update(choices=list("abcdef")), "has 6 choices; 2 to 5"),
        (lambda found: found.pop("11"), "problem 11 is missing, though pid_splits.json names it"),
        (lambda found: found["10"].update(image="../../x.png"), r"leaves the folder .* Refused"),
    ],
)
def test_what_is_wrong_with_a_problem_is_named(change, said, tmp_path):
    spoil(official.scienceqa(tmp_path) / "problems.json", change)
    with pytest.raises(TaskError, match=said):
        ScienceQA().questions(str(tmp_path), None)


def test_wrong_places_are_named(tmp_path):
    with pytest.raises(TaskError, match="Say where the questions are with --data"):
        Pope().questions("", None)
    with pytest.raises(TaskError, match=r"There is no .*nowhere. --data wants a folder with POPE"):
        Pope().questions(str(tmp_path / "nowhere"), None)
    with pytest.raises(TaskError, match=r"holds no .*_pope_.* but nothing. --data wants"):
        Pope().questions(str(tmp_path), None)
    with pytest.raises(TaskError, match=r"has no split 'tset', but train, test: --split"):
        ScienceQA(split="tset").questions(str(official.scienceqa(tmp_path)), None)
    with pytest.raises(SettingsError, match="Say with --dataset which data"):
        Vqa().questions(str(tmp_path), None)
    with pytest.raises(SettingsError, match=r"no 'vizwz' in vqa\. Did you mean 'vizwiz'"):
        Vqa(dataset="vizwz").questions(str(tmp_path), None)
    with pytest.raises(TaskError, match="holds none of MME's categories"):
        Mme().questions(str(tmp_path), None)
    with pytest.raises(SettingsError, match="give a model instead of --answers"):
        Perplexity().questions(str(tmp_path), None)
    (tmp_path / "coco_pope_random.json").write_text('{"text": "Is it?"}\n{"te', "utf-8")
    with pytest.raises(TaskError, match=r"coco_pope_random\.json is no JSON \(line 2"):
        Pope().questions(str(tmp_path), None)
    (tmp_path / "own.txt").write_text("too short", "utf-8")
    with pytest.raises(TaskError, match="makes 2 tokens and fills no window of 2048"):
        Perplexity().questions(str(tmp_path / "own.txt"), words)
    with pytest.raises(SettingsError, match="--length 20 is more than the 10 tokens"):
        Perplexity(20, room=10).questions(str(tmp_path / "own.txt"), words)


def test_a_snapshot_of_the_hub_is_read_by_datasets(tmp_path):
    """What `--data hub` fetches, as parquet files with pictures inside."""
    import datasets

    official.pope(tmp_path / "official")
    asked = Pope().questions(str(tmp_path / "official"), None)
    rows = [
        {
            "question_id": str(n % 4 + 1),
            "question": one.prompt.removesuffix(BRIEFLY),
            "answer": one.expected[0],
            "category": one.groups[0],
            "image": {"bytes": one.picture.read_bytes(), "path": None},
        }
        for n, one in enumerate(asked)
    ]
    made = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    (tmp_path / "hub" / "data").mkdir(parents=True)
    made.to_parquet(tmp_path / "hub" / "data" / "test-00000-of-00001.parquet")
    shutil.rmtree(tmp_path / "official")
    found = Pope().questions(str(tmp_path / "hub"), None)
    assert [(one.id, one.prompt, one.expected, one.groups) for one in found] == [
        (one.id, one.prompt, one.expected, one.groups) for one in asked
    ]
    assert found[0].picture.size == (48, 48)


JUNK = (None, 1, -1, 10**30, float("inf"), True, "", "x", "a\0b", "/etc/passwd", "../x", [], {},
        [1], [None], [[]], {"a": 1})  # fmt: skip


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("scienceqa", "problems.json"), ("scienceqa", "pid_splits.json"), ("vizwiz", "val.json"),
        ("vqav2", "v2_OpenEnded_mscoco_val2014_questions.json"),
        ("vqav2", "v2_mscoco_val2014_annotations.json"), ("textvqa", "TextVQA_0.5.1_val.json"),
        ("gqa", "testdev_balanced_questions.json"), ("pope", "coco_pope_random.json"),
        ("mmvet", "mm-vet.json"), ("llava_bench", "questions.jsonl"),
        ("llava_bench", "context.jsonl"), ("llava_bench", "answers_gpt4.jsonl"),
    ],
)  # fmt: skip
def test_whatever_a_record_holds_it_is_read_or_refused(name, file, tmp_path):
    """Each value of a first record, and it itself, replaced by what it cannot be."""
    place = getattr(official, name)(tmp_path)
    task = find("tasks", name if name in names("tasks") else "vqa")()
    whole = [json.loads(line) for line in (place / file).read_text("utf-8").splitlines()]
    content = whole if file.endswith("l") or name == "pope" else whole[0]
    refused = []
    for holder, key in _places(content):
        kept = holder[key]
        for junk in JUNK:
            holder[key] = junk
            lines = content if content is whole else [content]
            (place / file).write_text("\n".join(map(json.dumps, lines)), "utf-8")
            try:
                questions = task.questions(str(place), None)
                if not isinstance(task, JudgedTask):
                    marking.figures(task, marking.mark(task, [(q, "yes") for q in questions]), 0)
            except SlimsearchError as error:
                refused.append(str(error))
        holder[key] = kept
    assert len(refused) >= len(JUNK) // 2
    assert all(str(tmp_path) in said or "--dataset" in said for said in refused)


def _places(content):
    """The first record, and what is in it, as (holder, key); the whole's own keys, too."""
    found = [(content, key) for key in list(content)] if isinstance(content, dict) else []
    records = content
    while isinstance(records, dict) and not {"question", "image"} & records.keys():
        records = next((one for one in records.values() if isinstance(one, list | dict)), None)
    if isinstance(records, list) and records and isinstance(records[0], dict):
        found.append((records, 0))
        records = records[0]
    return found[:4] + ([(records, key) for key in records] if isinstance(records, dict) else [])
