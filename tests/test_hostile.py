"""What comes from elsewhere does not take the machine over: refused before it is opened."""

import ast
import errno
import json
import os
import pickle
import re
import resource
import shutil
import signal
import subprocess
import sys
import zlib
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import slimsearch
from slimsearch import settings
from slimsearch.api import inputs, runs
from slimsearch.calibration.pictures import check_picture
from slimsearch.calibration.recipe import FileText
from slimsearch.calibration.textfile import read_text
from slimsearch.calibration.texts import LIMIT, gather_texts
from slimsearch.calibration.turns import Turn
from slimsearch.errors import CalibrationError, InputError, ModelError, RunError, SettingsError
from slimsearch.model import checkpoint, confining, conversation, loading, senses
from slimsearch.model.checkpoint import INDEX, RECORD, SINGLE
from slimsearch.privacy import SWITCHES
from slimsearch.record import history
from slimsearch.searching.watch import Watch

PACKAGE = Path(slimsearch.__file__).parent


class Bomb:
    """Whoever unpickles it leaves a file behind."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.fixture
def copied(llava, tmp_path) -> Path:
    return shutil.copytree(llava, tmp_path / "model")


_watching: list[list[str]] = []  # an audit hook stays for good, so there is only one


def _watch(event: str, args: tuple) -> None:
    for seen in _watching if event == "open" else ():
        seen.append(str(args[0]))


@pytest.fixture(scope="module")
def hook() -> None:
    sys.addaudithook(_watch)


@pytest.fixture
def opened(hook):
    """Every file that is opened from here on."""
    seen: list[str] = []
    _watching.append(seen)
    yield seen
    _watching.remove(seen)


# ---- models


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".ckpt", ".pkl"])
def test_pickles_are_never_opened(copied, tmp_path, opened, suffix):
    mark = tmp_path / "mark"
    (copied / SINGLE).unlink()
    file = copied / f"pytorch_model{suffix}"
    file.write_bytes(pickle.dumps(Bomb(mark)))
    opened.clear()
    with pytest.raises(ModelError, match=f"pytorch_model{suffix}.*never opened.*save_pretrained"):
        checkpoint.find(str(copied))
    with pytest.raises(ModelError, match="Pickled weights are never opened"):
        checkpoint.find(str(file))
    assert str(file) not in opened
    assert not mark.exists()


def test_a_pickle_beside_safetensors_is_left_alone(copied, tmp_path, opened):
    (copied / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "mark")))
    opened.clear()
    loading.load(checkpoint.find(str(copied)), "cpu", "auto")
    assert str(copied / "config.json") in opened
    assert str(copied / "pytorch_model.bin") not in opened
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("name", ["config.json", SINGLE, "tokenizer.json", "chat_template.jinja"])
def test_a_link_out_of_the_folder_is_refused_before_anything_is_opened(
    copied, tmp_path, opened, name
):
    shutil.move(copied / name, tmp_path / name)
    (copied / name).symlink_to(tmp_path / name)
    opened.clear()
    with pytest.raises(ModelError, match=f"{name} is a link out of its folder"):
        checkpoint.find(str(copied))
    assert not [file for file in opened if str(tmp_path) in file]


def test_blobs_somewhere_above_are_no_hub_cache(copied, tmp_path):
    (tmp_path / "blobs").mkdir()
    shutil.move(copied / SINGLE, tmp_path / "blobs" / "abc")
    (copied / SINGLE).symlink_to("../blobs/abc")
    with pytest.raises(ModelError, match="is a link out of its folder"):
        checkpoint.find(str(copied))


@pytest.mark.parametrize("place", ["../evil.safetensors", "{absolute}", "a/../../evil.safetensors"])
def test_a_shard_name_that_leaves_the_folder_is_refused_unopened(llava_16, tmp_path, opened, place):
    folder = shutil.copytree(llava_16, tmp_path / "model")
    evil = shutil.copy(folder / "model-00001-of-00002.safetensors", tmp_path / "evil.safetensors")
    index = json.loads((folder / INDEX).read_text())
    key = next(iter(index["weight_map"]))
    index["weight_map"][key] = place.format(absolute=evil)
    (folder / INDEX).write_text(json.dumps(index))
    opened.clear()
    with pytest.raises(ModelError, match="outside the folder"):
        checkpoint.find(str(folder))
    assert str(evil) not in opened


@pytest.mark.parametrize("name", ["..", "", "weights.bin", ["a"], 7, None])
def test_a_shard_that_is_no_safetensors_file_is_refused(llava_16, tmp_path, name):
    """Whatever it holds: transformers goes by the name, and unpickles what is called otherwise."""
    folder = shutil.copytree(llava_16, tmp_path / "model")
    shutil.copy(folder / "model-00001-of-00002.safetensors", folder / "weights.bin")
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"][next(iter(index["weight_map"]))] = name
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"names the shard .* Refused"):
        checkpoint.find(str(folder))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "anything"])
def test_a_pipe_in_a_model_folder_is_refused_unopened(copied, name):
    (copied / name).unlink(missing_ok=True)
    os.mkfifo(copied / name)
    with pytest.raises(ModelError, match=f"{name} is a pipe or device"):
        checkpoint.find(str(copied))


def test_weights_and_pictures_that_may_not_be_read_are_not_called_damaged(
    llava, tmp_path, monkeypatch
):
    tiny.picture(1).save(tmp_path / "one.png")

    def kept_back(file: Path, **_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))

    def opened(file: Path, *given: str, **named: str) -> object:
        return kept_back(file) if file.name == SINGLE else open(file, *given, **named)

    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr(Image, "open", kept_back)
    with pytest.raises(ModelError, match=f"{SINGLE} cannot be read: Permission denied"):
        checkpoint.find(str(llava))
    with pytest.raises(CalibrationError, match=r"one\.png cannot be read: Permission denied"):
        check_picture(tmp_path / "one.png", "here")


@pytest.mark.parametrize("target", ["{itself}", "gone"])
def test_a_shard_that_links_to_itself_or_to_nothing_is_missing(llava_16, tmp_path, target):
    folder = shutil.copytree(llava_16, tmp_path / "model")
    name = "model-00001-of-00002.safetensors"
    (folder / name).unlink()
    (folder / name).symlink_to(target.format(itself=name))
    with pytest.raises(ModelError, match=f"{name} is missing though {INDEX} names it"):
        checkpoint.find(str(folder))


def test_the_file_that_is_checked_is_the_file_that_is_loaded(llava, tmp_path):
    """With both at hand transformers takes the single file; so do we."""
    folder = shutil.copytree(llava, tmp_path / "model")
    (folder / INDEX).write_text(json.dumps({"weight_map": {"x": "other.safetensors"}}))
    found = checkpoint.find(str(folder))
    assert set(found.shards.values()) == {SINGLE}
    assert SINGLE in found.fingerprint()


def with_config(folder: Path, **changes) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


@pytest.mark.parametrize(
    ("key", "value"),
    [("transformers_weights", "../evil.safetensors"),
     ("transformers_weights", "pytorch_model.bin"),
     ("quantization_config", {"quant_method": "bitsandbytes", "load_in_4bit": True})],
)  # fmt: skip
def test_a_config_that_has_other_weights_loaded_is_refused(copied, key, value):
    with pytest.raises(ModelError, match=f"config.json: '{key}'"):
        checkpoint.find(str(with_config(copied, **{key: value})))


@pytest.mark.parametrize("depth", [10**7, 0, -1])
@pytest.mark.parametrize("part", ["text_config", "vision_config"])
def test_more_blocks_than_tensors_are_refused_before_they_are_listed(copied, part, depth):
    config = json.loads((copied / "config.json").read_text())
    with_config(copied, **{part: config[part] | {"num_hidden_layers": depth}})
    with pytest.raises(ModelError, match=f"num_hidden_layers = {depth}, and the weights are "):
        loading.config_of(checkpoint.find(str(copied)))


@pytest.mark.parametrize(
    ("template", "said"),
    [("{{ ''.__class__.__mro__ }}", "SecurityError"), ("{% if", "TemplateSyntaxError"),
     ("{% for i in range(10 ** 11) %}x{% endfor %}", "OverflowError")],
)  # fmt: skip
def test_a_chat_template_that_does_harm_or_fails_is_refused(copied, template, said):
    (copied / "chat_template.jinja").write_text(template)
    with pytest.raises(ModelError, match=rf"its chat template fails \({said}"):
        conversation.load(checkpoint.find(str(copied)))


ENDLESS = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3
TOWERING = "{% set n = messages|length + 8 %}{{ n ** (n ** n) }}"  # jinja reckons constants at once
GROWING = (
    "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}"
    "{% endfor %}"
)


@pytest.mark.parametrize(
    ("template", "seconds", "said"),
    [(ENDLESS, 0.2, "has not ended after 0.2 seconds"),
     (TOWERING, 0.2, "has not ended after 0.2 seconds"),
     (GROWING, 99, "asks for more than 1 GiB"),
     ("{{ 'x' * 9999999999 }}", 99, "asks for more than 1 GiB")],
)  # fmt: skip
def test_a_chat_template_that_takes_too_much_is_refused(
    copied, monkeypatch, template, seconds, said
):
    """When it is tried, and where it waits for another conversation than that."""
    monkeypatch.setattr(confining, "SECONDS", seconds)
    before = resource.getrlimit(resource.RLIMIT_DATA), signal.getsignal(signal.SIGPROF)
    file = copied / "chat_template.jinja"
    mark, begin = "later", file.read_text()
    file.write_text(template)
    with pytest.raises(ModelError, match=rf"model: the chat template {said}.*Copy chat_template"):
        conversation.load(checkpoint.find(str(copied)))
    file.write_text(
        f"{{% if messages[0]['content'][-1]['text'] == '{mark}' %}}{template}{{% endif %}}{begin}"
    )
    speech = conversation.load(checkpoint.find(str(copied)))
    with pytest.raises(ModelError, match=f"the chat template {said}"):
        speech.render([Turn(mark, None)], 0)
    after = resource.getrlimit(resource.RLIMIT_DATA), signal.getsignal(signal.SIGPROF)
    assert (after, signal.getitimer(signal.ITIMER_PROF)[0]) == (before, 0)


@pytest.mark.parametrize("template", ["hello", "{{ messages[0]['content'][-1]['text'] }}"])
def test_a_chat_template_without_question_or_answer_is_refused(copied, template):
    (copied / "chat_template.jinja").write_text(template)
    with pytest.raises(ModelError, match=r"its chat template makes '.*': not both are in it. Copy"):
        conversation.load(checkpoint.find(str(copied)))


def test_a_picture_s_mark_in_a_question_is_refused_and_not_taken_for_one(llava):
    speech = conversation.load(checkpoint.find(str(llava)))
    with pytest.raises(InputError, match=r"The question 'a <image> b' holds '<image>', which"):
        speech.render([Turn("What?", "This."), Turn("a <image> b", None)], 1)


def test_an_answer_that_the_chat_template_changes_is_named(copied, small, tmp_path):
    """As those of models that think do with all up to </think>."""
    file = copied / "chat_template.jinja"
    file.write_text(file.read_text().replace("part['text'] }}", "part['text'].split('|')[-1] }}"))
    tiny.picture(1).save(tmp_path / "one.png")
    pairs = tmp_path / "thoughts.json"
    pairs.write_text(json.dumps([{"image": "one.png", "question": "What?", "answer": "well|red"}]))
    chosen = replace(small, model=str(copied), pairs=str(pairs), out=str(tmp_path / "run"))
    with pytest.raises(
        CalibrationError, match=r"record 1: .*changes the answer 'well\|red'\. Write"
    ):
        runs.search(chosen, Watch())


def _rewritten(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("token", [7, 999_999])
def test_another_picture_token_than_the_processors_is_refused_by_both(copied, token):
    _rewritten(copied / "config.json", image_token_index=token)
    with pytest.raises(ModelError, match=rf"config\.json takes token {token} .* puts '<image>'"):
        conversation.load(checkpoint.find(str(copied)))


def test_other_places_for_a_picture_than_the_tower_fills_are_refused(copied, small, tmp_path):
    _rewritten(copied / "processor_config.json", num_additional_image_tokens=2)
    chosen = replace(small, model=str(copied), out=str(tmp_path / "run"))
    with pytest.raises(ModelError, match=r"model: what its processor puts .*tokens: \d+, features"):
        runs.search(chosen, Watch())


@pytest.mark.parametrize(
    ("facts", "said"),
    [({"crop_size": {"height": 10**6, "width": 10**6}}, "crop_size.height = 1000000"),
     ({"size": {"shortest_edge": 10**6}}, "size.shortest_edge = 1000000: pictures of 1,000,000,0"),
     ({"size": {"longest_edge": 10**9}, "merge_size": 2}, "size.longest_edge = 1000000000"),
     ({"image_grid_pinpoints": [[336, 10**5]]}, "image_grid_pinpoints = 100000"),
     ({"max_patches": 10**6}, "max_patches = 1000000, and 4096 tiles")],
)  # fmt: skip
def test_a_processor_that_asks_for_pictures_beyond_memory_is_refused(copied, facts, said):
    class Asking:
        image_processor = SimpleNamespace(to_dict=lambda: facts)

    found = checkpoint.find(str(copied))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(senses, "_opened", lambda _: Asking())
        with pytest.raises(ModelError, match=said):
            senses.processor(found)


def test_a_processor_of_endless_pictures_is_refused_before_it_makes_one(copied):
    changed = 0
    for file in copied.glob("*processor*config.json"):
        text = file.read_text()
        more = re.sub(r'"(height|width|shortest_edge)": \d+', r'"\1": 1000000', text)
        changed += more != text
        file.write_text(more)
    assert changed
    with pytest.raises(ModelError, match=r"^\S+: its processor .* asks for .* = 1000000: "):
        conversation.load(checkpoint.find(str(copied)))


@pytest.mark.parametrize(
    ("name", "content"),
    [*product(["tokenizer.json", "processor_config.json"], [b"", b"\x9e\xff", b'{"a": {', b"[]"]),
     ("chat_template.jinja", b"\x9e\xff")],
)  # fmt: skip
def test_a_garbled_file_beside_the_weights_is_named(copied, name, content):
    (copied / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf"{name} (is no readable (JSON|text)|holds no JSON)"):
        conversation.load(checkpoint.find(str(copied)))


@pytest.mark.parametrize("content", [None, b"{}"])
def test_a_tokenizer_without_its_words_is_named(copied, content):
    (copied / "tokenizer.json").unlink()
    if content is not None:
        (copied / "tokenizer.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"could not be loaded: .* Compare .*tokenizer\.json"):
        conversation.load(checkpoint.find(str(copied)))


def test_an_adapter_is_refused(copied):
    (copied / "adapter_config.json").write_text('{"base_model_name_or_path": "some/other"}')
    with pytest.raises(ModelError, match=r"adapter_config\.json makes this an adapter"):
        checkpoint.find(str(copied))


def test_code_beside_a_model_is_not_run(copied, tmp_path, small):
    mark = tmp_path / "mark"
    (copied / "modeling.py").write_text(f"open({str(mark)!r}, 'w')\nclass Evil: pass\n")
    with_config(copied, auto_map={"AutoConfig": "modeling.Evil", "AutoModel": "modeling.Evil"})
    file = copied / "tokenizer_config.json"
    changed = json.loads(file.read_text()) | {
        "auto_map": {"AutoTokenizer": ["modeling.Evil", None]}
    }
    file.write_text(json.dumps(changed))
    given = inputs.gather(replace(small, model=str(copied)))
    loading.load(given.checkpoint, "cpu", "auto")
    assert not mark.exists()


def test_no_checkpoints_code_is_trusted_anywhere():
    """Every from_pretrained says trust_remote_code=False, in itself or in the options it takes."""
    found = 0
    for file in PACKAGE.rglob("*.py"):
        tree = ast.parse(file.read_text("utf-8"))
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)
                 and isinstance(node.func, ast.Attribute)
                 and node.func.attr == "from_pretrained"]  # fmt: skip
        options = {
            target.id
            for node in ast.walk(tree) if isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Dict)
            and any(isinstance(key, ast.Constant) and key.value == "trust_remote_code"
                    and isinstance(value, ast.Constant) and value.value is False
                    for key, value in zip(node.value.keys, node.value.values, strict=True))
            for target in node.targets if isinstance(target, ast.Name)
        }  # fmt: skip
        for call in calls:
            found += 1
            said = any(
                (keyword.arg == "trust_remote_code" and getattr(keyword.value, "value", 1) is False)
                or (keyword.arg is None and getattr(keyword.value, "id", "") in options)
                for keyword in call.keywords
            )  # fmt: skip
            assert said, f"{file}, line {call.lineno}"
    assert found >= 4


def test_no_pickle_and_no_torch_load_in_the_package():
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
                assert not {"pickle", "joblib", "dill", "shelve", "marshal"} & set(names), file
            if isinstance(node, ast.Attribute) and node.attr == "load":
                assert getattr(node.value, "id", "") != "torch", file


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.bool])
def test_weights_of_another_kind_are_refused_by_name(copied, dtype):
    weights = load_file(copied / SINGLE)
    key = "model.language_model.layers.0.mlp.up_proj.weight"
    weights[key] = torch.ones_like(weights[key]).to(dtype)
    save_file(weights, copied / SINGLE, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"{SINGLE} holds {key} as "):
        checkpoint.find(str(copied))


@pytest.mark.parametrize("part", ["language_model.layers.1.mlp.up_proj", "multi_modal_projector"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(copied, part, value):
    weights = load_file(copied / SINGLE)
    key = next(key for key in weights if part in key and key.endswith("weight"))
    weights[key][0, 0] = value
    save_file(weights, copied / SINGLE, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"hold NaN or infinity, in {key}"):
        loading.load(checkpoint.find(str(copied)), "cpu", "auto")


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b"\xff\xfe", b'{"a": ' * 50_000, b""],
    ids=["deep", "utf16", "obj", "empty"],
)
def test_json_that_is_none_is_refused(copied, content):
    (copied / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"config\.json is no readable JSON"):
        checkpoint.find(str(copied))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "README.md", RECORD])
def test_ten_gigabytes_beside_the_weights_are_refused_unread(copied, name):
    (copied / name).touch()
    os.truncate(copied / name, 10 << 30)
    with pytest.raises(ModelError, match=f"{name} is larger than 64 MiB"):
        checkpoint.find(str(copied))


# ---- calibration


@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_a_text_of_ten_gigabytes_is_read_up_to_the_limit_only(tmp_path, suffix):
    file = tmp_path / f"big{suffix}"
    line = b'{"text": "red and blue"}\n' if suffix == ".jsonl" else b"red and blue \n"
    file.write_bytes(line * (2 * 100_000 // len(line)))
    os.truncate(file, 10 << 30)
    text, cut = read_text(file, "", 100_000)
    assert cut
    assert 40_000 < len(text) <= 100_000
    os.truncate(file, 0)
    os.truncate(file, 10 << 30)
    with pytest.raises(CalibrationError, match=r"big\."):
        read_text(file, "", 100_000)


def test_one_endless_line(tmp_path):
    file = tmp_path / "line.txt"
    file.write_text("red " * 100_000)
    text, cut = read_text(file, "", 100_000)
    assert (len(text), cut) == (100_000, True)
    file.write_text("a few words and then " + "red" * 100_000)
    with pytest.raises(CalibrationError, match=r"line.txt holds a word of over 65536 characters"):
        read_text(file, "", 1_000_000)
    file.write_text("red and blue " * (LIMIT // 12))
    found = gather_texts(FileText(str(file)), 0)
    assert len(found.text) <= LIMIT
    assert f"{file} is longer than 16 MiB" in found.notes[0]
    lines = tmp_path / "line.jsonl"
    lines.write_text('{"text": "' + "red" * 100_000 + '"}')
    with pytest.raises(CalibrationError, match="within its first 100000 bytes"):
        read_text(lines, "", 100_000)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "holds no text"), (bytes(range(256)) * 50, "binary"), (b"\x7fELF\0\0", "binary"),
     ("rot".encode("utf-16"), "UTF-16"), ("grün ".encode("latin-1") * 50, "byte 2 is 0xfc")],
)  # fmt: skip
def test_what_is_no_text_is_refused(small, tmp_path, content, said):
    file = tmp_path / "text.txt"
    file.write_bytes(content)
    with pytest.raises(CalibrationError, match=said):
        inputs.gather(replace(small, calibration=str(file)))


@pytest.mark.parametrize("name", ["data.pkl", "data.pt", "data.bin"])
@pytest.mark.parametrize("key", ["calibration", "pairs", "policy"])
def test_pickles_as_data_are_refused_unexecuted(small, tmp_path, key, name):
    mark = tmp_path / "mark"
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(InputError, match=name):
        inputs.gather(replace(small, **{key: str(tmp_path / name)}))
    assert not mark.exists()


@pytest.mark.parametrize("key", ["calibration", "policy"])
def test_a_toml_file_without_an_end_is_refused(small, tmp_path, key):
    file = tmp_path / "some.toml"
    chosen = replace(small, **{key: str(file)})
    file.write_text("a = " + "[" * 100_000)
    with pytest.raises(InputError, match=r"some\.toml is no .*nested too deeply"):
        inputs.gather(chosen)
    os.truncate(file, 10 << 30)
    with pytest.raises(InputError, match=r"some\.toml is no .*larger than 16 MiB"):
        inputs.gather(chosen)


def png_bomb(file: Path) -> None:
    """Sixty thousand by sixty thousand pixels in a few bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        whole = kind + body
        return len(body).to_bytes(4) + whole + zlib.crc32(whole).to_bytes(4)

    size = (60_000).to_bytes(4)
    header = chunk(b"IHDR", size + size + bytes([8, 2, 0, 0, 0]))
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b""))


def test_pictures(tmp_path):
    whole = tmp_path / "whole.png"
    tiny.picture(3).resize((64, 64)).save(whole)
    renamed = tmp_path / "renamed.jpg"
    shutil.copy(whole, renamed)
    assert check_picture(renamed, "here") == check_picture(whole, "here"), "content decides"
    cut = tmp_path / "cut.png"
    text, bomb = tmp_path / "text.png", tmp_path / "bomb.png"
    text.write_text("no picture")
    png_bomb(bomb)
    script = tmp_path / "script.png"
    script.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(ls) system\n")
    for length in range(0, whole.stat().st_size - 12, 7):
        cut.write_bytes(whole.read_bytes()[:length])
        with pytest.raises(CalibrationError, match=r"cut\.png"):
            check_picture(cut, "here")
    endless = tmp_path / "endless.png"
    shutil.copy(whole, endless)
    os.truncate(endless, 10 << 30)
    thin = tmp_path / "thin.png"
    Image.new("L", (20_001, 100)).save(thin)
    for file, said in (
        (thin, "20001 x 100 pixels: one side is more than 200 times"),
        (endless, "is larger than 256 MiB"),
        (text, "no picture"),
        (bomb, "is a decompression bomb"),
        (script, "no picture"),
    ):
        with pytest.raises(CalibrationError, match=said):
            check_picture(file, "here")


# ---- the journal of a run made elsewhere


@pytest.mark.parametrize(
    "record",
    [
        {"kind": "levels", "files": {"../../x": {"bytes": 1, "sha256": "0"}}},
        {"kind": "end", "files": {"/etc/passwd": {"bytes": 1, "sha256": "0"}}},
        {"kind": "end", "files": ["best.toml"]},
        {"kind": "projector", "version": "../../x", "file": {"bytes": 1, "sha256": "0"}},
        {"kind": "projector", "version": 1, "file": {}},
        {"kind": "damping", "during": "a row", "raised": {"blocks.0.q": "\x1b[2J"}},
        {"kind": "drift", "differences": [], "fingerprint": 7, "afresh": False},
        {"kind": ["score"]},
    ],
)
def test_a_record_of_a_known_kind_that_means_no_good_is_refused_by_its_place(tmp_path, record):
    start = {"kind": "start", "format": history.FORMAT, "fingerprint": {}}
    texts = [json.dumps(some).encode() for some in (start, record)]
    lines = [b"%08x %s\n" % (zlib.crc32(text), text) for text in texts]
    (tmp_path / "settings.toml").touch()
    (tmp_path / "journal.jsonl").write_bytes(b"".join(lines))
    with pytest.raises(RunError, match=rf"journal\.jsonl holds at byte {len(lines[0])} \(line 2\)"):
        history.read(tmp_path)


def test_settings_and_journal_of_a_run_made_elsewhere_have_an_end(tmp_path):
    text = json.dumps({"kind": "start", "format": history.FORMAT, "fingerprint": {}}).encode()
    line = b"%08x %s\n" % (zlib.crc32(text), text)
    (tmp_path / "settings.toml").touch()
    (tmp_path / "journal.jsonl").write_bytes(line)
    os.truncate(tmp_path / "settings.toml", 10 << 30)
    with pytest.raises(SettingsError, match=r"settings\.toml .*larger than 16 MiB"):
        settings.read(tmp_path / "settings.toml")
    os.truncate(tmp_path / "journal.jsonl", 10 << 30)
    with pytest.raises(RunError, match=rf"damaged at byte {len(line)} \(line 2\)"):
        history.read(tmp_path)


# ---- the network

WATCHED = """
import sys
calls = []
def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto",
                 "socket.sendmsg", "socket.bind"):
        calls.append((event, repr(args[-1])))
        raise RuntimeError(f"{event} {args}")
sys.addaudithook(watch)
from slimsearch import Settings, search
from slimsearch.settings import read
from pathlib import Path
search(read(Path(sys.argv[1])))
assert not calls, calls
print("quiet")
"""


def test_a_local_run_opens_no_network_connection(small, tmp_path):
    """With nothing set that keeps libraries offline, as a user runs it."""
    file = tmp_path / "settings.toml"
    file.write_text(settings.write(replace(small, rounds=1, out=str(tmp_path / "run"))))
    unset = {*SWITCHES, "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"}
    environment = {key: value for key, value in os.environ.items() if key not in unset}
    environment["OMP_NUM_THREADS"] = "1"
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(file)],
        capture_output=True, text=True, env=environment, timeout=280,
    )  # fmt: skip
    assert done.stdout == "quiet\n", done.stderr


def test_telemetry_is_off_before_anything_is_imported():
    code = (
        "import slimsearch, os\n"
        "from huggingface_hub import constants\n"
        "print(constants.HF_HUB_DISABLE_TELEMETRY, os.environ['RAY_USAGE_STATS_ENABLED'],"
        " os.environ['NM_DISABLE_ANALYTICS'], os.environ['DO_NOT_TRACK'])"
    )
    environment = {key: value for key, value in os.environ.items() if key not in SWITCHES}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout == "True 0 1 1\n"
