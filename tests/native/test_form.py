"""A native export: to the bit what it came from, refused where it is damaged, read by torch too."""

import errno
import json
import os
import shutil

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file

from slimsearch import artefact
from slimsearch.api import exporting, generating
from slimsearch.api.exporting import Choices
from slimsearch.errors import ModelError, ResourceError, SettingsError
from slimsearch.model import checkpoint, loading
from slimsearch.native import form, library, unpack
from slimsearch.native.form import Shape
from slimsearch.native.parts import SLACK
from slimsearch.native.session import NativeSession

SOURCES = {
    "as 1.5": {"dtype": torch.bfloat16, "shards": 2, "old_names": True, "kv_heads": 2},
    "tied": {"tied": True, "kv_heads": 1, "dtype": torch.bfloat16},
    "fp32": {},
}
needs_engine = pytest.mark.skipif(library.load() is None, reason="no C compiler here")


@pytest.fixture(scope="module", params=SOURCES)
def source(request, tmp_path_factory):
    """A pruned model folder, with a matrix of zeros alone and one without any."""
    folder = tiny.llava(tmp_path_factory.mktemp("source") / "model", **SOURCES[request.param])
    model = loading.load(checkpoint.find(str(folder)), "cpu", "float32")
    draw = torch.Generator().manual_seed(0)
    changed = {}
    for number, matrix in enumerate(model.matrices):
        weight = model.linear(matrix.name).weight
        kept = (0.0, 1.0, 0.5)[min(number, 2)]
        mask = torch.rand(weight.shape, generator=draw) < kept
        gone = torch.where(mask, weight, 0.0)
        changed[model.disk_name(model.matrix_parameter(matrix.name))] = gone
    model.checkpoint.overwrite(folder, changed)
    return folder


@pytest.fixture(scope="module")
def exported(source, tmp_path_factory):
    place = tmp_path_factory.mktemp("native") / "out"
    record = exporting.export(str(source), ["native"], place)
    return place, record["exports"]["native"]


def every(folder) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in folder.glob("*.safetensors"):
        found |= load_file(file)
    return found


def test_the_way_back_is_exact(source, exported, tmp_path):
    exporting.export(str(exported[0]), ["hf"], tmp_path / "hf")
    before, after = every(source), every(tmp_path / "hf")
    assert before.keys() == after.keys()
    for key, weight in before.items():
        assert weight.dtype == after[key].dtype, key
        assert torch.equal(weight.view(torch.uint8), after[key].view(torch.uint8)), key
    for name in ("config.json", "tokenizer.json"):
        assert (tmp_path / "hf" / name).read_bytes() == (source / name).read_bytes()


def test_a_full_disk_on_the_way_back_is_said_and_nothing_left(exported, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(ResourceError, match=r"could not be written: No space left.*Free space"):
        exporting.export(str(exported[0]), ["hf"], tmp_path / "hf")
    assert list(tmp_path.iterdir()) == []


def test_what_it_says_of_its_size_is_so(exported):
    folder, facts = exported
    assert facts["dtype"] in facts["note"]
    assert facts["of_dense"] == pytest.approx(facts["theory"], abs=0.5)  # tiny matrices are padded
    assert (
        facts["seals"][form.DECODER]["bytes"] == (folder / "native" / form.DECODER).stat().st_size
    )


def looked(folder) -> None:
    """Opens an export and both of its files."""
    session = NativeSession(artefact.find(folder).native())
    session.see(np.zeros((1, 3, tiny.PICTURE_SIZE, tiny.PICTURE_SIZE), np.float32))


@needs_engine
@pytest.mark.parametrize("name", [form.DECODER, form.OTHERS])
@pytest.mark.parametrize("how", ["flipped", "cut", "longer", "empty", "missing"])
def test_damage_is_refused_by_name(exported, tmp_path, name, how):
    folder = shutil.copytree(exported[0], tmp_path / "copy")
    file = folder / "native" / name
    content = bytearray(file.read_bytes())
    if how == "flipped":
        content[np.random.default_rng(0).integers(len(content))] ^= 4
    changed = {"cut": content[:-1], "longer": content + b"\0", "empty": b""}.get(how, content)
    file.write_bytes(bytes(changed))
    if how == "missing":
        file.unlink()
    with pytest.raises(ModelError, match=name):
        looked(folder)
    with pytest.raises(ModelError, match=name):
        exporting.export(str(folder), ["hf"], tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


@needs_engine
@pytest.mark.parametrize("what", ["no seals", "mask", "starts", "geometry", "offsets", "header"])
def test_forged_files_whose_hashes_agree_are_refused(exported, tmp_path, what):
    """Nothing in a file makes the kernels read outside of it."""
    folder = shutil.copytree(exported[0], tmp_path / "copy")
    file, record = folder / "native" / form.DECODER, folder / "slimsearch.json"
    content = bytearray(file.read_bytes())
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    begin = 8 + length + header["blocks.1.gate.mask"]["data_offsets"][0]
    if what == "mask":
        content[begin : begin + 8] = b"\xff" * 8
    elif what == "starts":
        begin = 8 + length + header["blocks.1.gate.starts"]["data_offsets"][0]
        content[begin + 8 : begin + 16] = (1 << 50).to_bytes(8, "little")
    elif what == "geometry":
        facts = json.loads(header["__metadata__"]["slimsearch"])
        assert f'\\"heads\\":{facts["heads"]},'.encode() in content
        old, new = (f'\\"heads\\":{n},'.encode() for n in (facts["heads"], facts["heads"] * 2))
        content = content.replace(old, new) if len(old) == len(new) else content.replace(old, b"[")
    elif what == "offsets":
        end = header["blocks.1.gate.mask"]["data_offsets"][1]
        content = content.replace(f",{end}]".encode(), f",{'9' * len(str(end))}]".encode())
    elif what == "header":
        content[:8] = (1 << 40).to_bytes(8, "little")
    file.write_bytes(bytes(content))
    facts = json.loads(record.read_text())
    facts["exports"]["native"]["seals"][form.DECODER] = form.seal(file)
    if what == "no seals":
        del facts["exports"]["native"]["seals"]
    record.write_text(json.dumps(facts))
    with pytest.raises(ModelError, match=form.DECODER):
        NativeSession(artefact.find(folder).native())


def test_torch_reads_it_where_there_is_no_compiler(exported, source, monkeypatch, pairs_file):
    from slimsearch.api.generating import Talk

    monkeypatch.setattr(library, "absent", lambda: "The native engine needs a C compiler.")
    said = {}
    for folder in (exported[0], source):
        name, speaker = generating.open(folder)
        assert name == "torch"
        (answer,) = speaker.ask([Talk(pairs_file.parent / "0.png")], ["What colour is it?"], 6)
        said[folder] = answer.tokens
    assert said[exported[0]] == said[source]
    with pytest.raises(SettingsError, match="needs a C compiler"):
        generating.open(exported[0], "native")


def test_dtypes(source, tmp_path):
    with pytest.raises(SettingsError, match="no dtype 'bf15'"):
        exporting.export(str(source), ["native"], tmp_path / "out", Choices(dtype="bf15"))
    for asked, stored in (("bf16", "bfloat16"), ("int8", "int8"), ("float32", "float32")):
        record = exporting.export(str(source), ["native"], tmp_path / asked, Choices(dtype=asked))
        assert record["exports"]["native"]["dtype"] == stored


@needs_engine
@pytest.mark.parametrize("dtype", ["bf16", "int8", "fp32"])
def test_the_number_of_threads_changes_no_logit(source, tmp_path, dtype):
    exporting.export(str(source), ["native"], tmp_path / "out", Choices(dtype=dtype))
    ids = np.random.default_rng(0).integers(5, tiny.VOCABULARY, (3, 90))
    mask = np.ones_like(ids)
    mask[0, :40] = 0
    positions = np.maximum(mask.cumsum(1) - 1, 0)
    found = []
    for threads in (1, 2, 5):
        session = NativeSession(artefact.find(tmp_path / "out").native(), threads)
        first = session.step(session.embed(ids), mask, positions)
        more = np.concatenate([mask, np.ones((3, 1), np.int64)], axis=1)
        one = session.embed(ids[:, :1])
        found.append((first, session.step(one, more, positions[:, -1:] + 1)))
        session.close()
    for other in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_a_matrix_read_back_does_not_lie_in_the_mapped_file():
    """As wide as words of the mask are, and dense: what could be handed over as it lies there."""
    shape = Shape("float32", 1, 64, 1, 1, 64, 64, 3, 8, 1e-5, "silu", {})
    stored = np.arange(3 * 64 + SLACK // 4, dtype=np.float32)
    stored.flags.writeable = False

    class Mapped(dict):
        def array(self, name, *_):
            return self[name]

    found = unpack.matrix(Mapped({"embedding.values": stored}), shape, "embedding")  # pyright: ignore[reportArgumentType]
    assert torch.equal(found, torch.arange(192.0).view(3, 64))
    found.zero_()
    assert stored[1] == 1
