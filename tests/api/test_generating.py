"""From words on the command line to conversations, and from a folder to an engine."""

import json
import os
import shutil
from pathlib import Path

import pytest
import tiny

from slimsearch.api import exporting, generating
from slimsearch.api.generating import Talk
from slimsearch.errors import InputError, ModelError, SettingsError
from slimsearch.plugins import find

ROOT = Path(__file__).parents[2]
BENCH = Path(os.environ.get("SLIMSEARCH_BENCH", ROOT / "../shared/bench")).resolve()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    model = tiny.llava(folder / "model")
    exporting.export(str(model), ["hf", "onnx", "openvino"], folder / "all")
    return folder / "all"


def test_every_picture_gets_every_prompt():
    found = generating.asked(["a", "b"], [Path("x.png"), Path("y.png")], None)
    assert [(talk.picture, prompts) for talk, prompts in found] == [
        (Path("x.png"), ["a", "b"]), (Path("y.png"), ["a", "b"])]  # fmt: skip
    assert [talk.picture for talk, _ in generating.asked(["a"], [], None)] == [None]


def test_a_file_of_lines(tmp_path):
    file = tmp_path / "asked.jsonl"
    file.write_text('{"image": "x.png", "prompt": "a"}\n\n{"prompt": ["b"]}\n')
    found = generating.asked([], [], file)
    assert [(talk.picture, prompts) for talk, prompts in found] == [
        (tmp_path / "x.png", ["a"]), (None, ["b"])]  # fmt: skip


@pytest.mark.parametrize("line", [
    "{", "[]", "3", '{"image": "x.png"}', '{"prompt": 3}', '{"prompt": []}', '{"prompt": [1]}',
    '{"prompt": "a"}\n{"prompt": ["a", "b"]}', '{"prompt": "a", "image": 3}',
    pytest.param('{"prompt": ' + "[" * 100_000, id="deep"),
])  # fmt: skip
def test_lines_that_are_none(tmp_path, line):
    file = tmp_path / "asked.jsonl"
    file.write_text(line)
    with pytest.raises(InputError, match=r"asked\.jsonl, line \d"):
        generating.asked([], [], file)


def test_what_cannot_be_asked(tmp_path):
    with pytest.raises(SettingsError, match="--prompt"):
        generating.asked([], [], None)
    with pytest.raises(SettingsError, match="alone"):
        generating.asked(["a"], [], tmp_path / "x")
    with pytest.raises(InputError, match="cannot be read"):
        generating.asked([], [], tmp_path / "x")
    (tmp_path / "x").write_text("\n")
    with pytest.raises(InputError, match="holds no lines"):
        generating.asked([], [], tmp_path / "x")


def test_pieces_add_up_to_the_text(exported, pairs_file):
    _, speaker = generating.open(exported)
    heard: list[str] = []
    talk = Talk(pairs_file.parent / "1.png")
    (answer,) = speaker.ask([talk], ["And?"], 12, lambda _, piece: heard.append(piece))
    assert "".join(heard) == answer.text or answer.text.startswith("".join(heard))
    assert talk.turns[-1].answer == answer.text


def test_the_first_engine_that_reads_the_folder_is_taken(exported, tmp_path):
    assert generating.open(exported)[0] == "torch"
    folder = shutil.copytree(exported, tmp_path / "copy")
    (folder / "model.safetensors").unlink()
    assert generating.open(folder)[0] == "onnxruntime"
    shutil.rmtree(folder / "onnx")
    assert generating.open(folder)[0] == "openvino"
    shutil.rmtree(folder / "openvino")
    with pytest.raises(InputError, match="holds nothing that an engine here can run"):
        generating.open(folder)


def test_an_engine_that_is_not_here(exported, monkeypatch):
    kind = find("runtimes", "onnxruntime")
    monkeypatch.setattr(kind, "absent", lambda _: "It is not here: pip install it.")
    with pytest.raises(SettingsError, match="pip install it"):
        generating.open(exported, "onnxruntime")


@pytest.mark.parametrize(("runtime", "part"), [
    ("onnxruntime", "onnx/embed_tokens.onnx"), ("onnxruntime", "onnx/vision_encoder.onnx"),
    ("onnxruntime", "onnx/decoder_model_merged.onnx"), ("openvino", "openvino/embed_tokens.bin"),
    ("openvino", "openvino/vision_encoder.xml"),
])  # fmt: skip
def test_a_part_that_is_missing_or_damaged(exported, tmp_path, runtime, part):
    folder = shutil.copytree(exported, tmp_path / "copy")
    whole = (folder / part).read_bytes()
    (folder / part).unlink()
    with pytest.raises(ModelError, match=f"{Path(part).name} is missing"):
        generating.open(folder, runtime)
    (tmp_path / "elsewhere").write_bytes(whole)
    (folder / part).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="link out of"):
        generating.open(folder, runtime)
    (folder / part).unlink()
    if not part.endswith(".bin"):
        (folder / part).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ModelError, match="xport it again"):
            generating.open(folder, runtime)


@pytest.mark.parametrize(("runtime", "form"), [("onnxruntime", "onnx"), ("openvino", "openvino")])
def test_a_bit_that_flipped_in_any_file_of_a_form_is_named(exported, tmp_path, runtime, form):
    folder = shutil.copytree(exported, tmp_path / "copy")
    parts = sorted((folder / form).iterdir())
    assert len(parts) >= 3
    for file in parts:
        whole = file.read_bytes()
        tiny.flip(file)
        with pytest.raises(ModelError, match=file.name):
            generating.open(folder, runtime)
        file.write_bytes(whole)
    generating.open(folder, runtime)


def test_exports_that_tell_no_seals_are_run_and_damaged_ones_refused(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "copy")
    file = folder / "slimsearch.json"
    record = json.loads(file.read_text())
    seals = record["exports"]["onnx"].pop("seals")
    file.write_text(json.dumps(record))
    generating.open(folder, "onnxruntime")
    record["exports"]["onnx"]["seals"] = dict.fromkeys(seals, "x")
    file.write_text(json.dumps(record))
    with pytest.raises(ModelError, match=r"slimsearch\.json is damaged"):
        generating.open(folder, "onnxruntime")


def test_no_configuration(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "copy")
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no .*config\.json"):
        generating.open(folder, "onnxruntime")
    with pytest.raises(ModelError, match="no model folder"):
        generating.open(tmp_path / "nothing")


@pytest.mark.bench
@pytest.mark.skipif(not BENCH.is_dir(), reason=f"there is no {BENCH}; set SLIMSEARCH_BENCH")
def test_refvlm_says_the_same_in_every_engine(tmp_path):
    """Greedy tokens on real questions, against transformers' own generate."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    source = BENCH / "refvlm"
    exporting.export(str(source), ["onnx", "openvino"], tmp_path / "out")
    records = json.loads((BENCH / "vqa" / "dev.json").read_text())[:6]
    processor = AutoProcessor.from_pretrained(source)
    model = AutoModelForImageTextToText.from_pretrained(source, dtype=torch.float32).eval()
    wanted, talks, questions = [], [], []
    for record in records:
        question = record["conversations"][0]["value"].replace("<image>", "").strip()
        picture = next((BENCH / "vqa").rglob(Path(record["image"]).name))
        asked = [{"type": "image"}, {"type": "text", "text": question}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": asked}], add_generation_prompt=True
        )
        shown = generating.Pair("", picture, ()).open()
        ids = processor(images=shown, text=text, return_tensors="pt", add_special_tokens=False)
        made = model.generate(**ids, max_new_tokens=16, do_sample=False)
        end = model.generation_config.eos_token_id
        wanted.append([n for n in made[0, ids["input_ids"].shape[1] :].tolist() if n != end])
        talks.append(Talk(picture))
        questions.append(question)
    for runtime in ("onnxruntime", "openvino"):
        _, speaker = generating.open(tmp_path / "out", runtime)
        fresh = [Talk(talk.picture) for talk in talks]
        said = speaker.ask(fresh, questions, 16)
        assert [list(answer.tokens) for answer in said] == wanted


class Spelling:
    """Says every token as its bytes."""

    def decode(self, tokens) -> str:
        return bytes(tokens).decode("utf-8", "replace")


def test_pieces_are_whole_letters_and_together_the_text():
    tokens = [*" a\u00e9 b".encode(), 0xC3]
    pieces = generating._Pieces(Spelling())
    shown = [piece for token in tokens if (piece := pieces.add(token))]
    assert shown == ["a", "\u00e9", " b"]
    assert pieces.rest(Spelling().decode(tokens).strip()) == "\N{REPLACEMENT CHARACTER}"
    assert pieces.rest(Spelling().decode(tokens).strip()) == ""
