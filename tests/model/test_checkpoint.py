"""Model folders as files: whole or refused, and copied tensor by tensor."""

import hashlib
import json
import shutil

import pytest
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from slimsearch.errors import ModelError
from slimsearch.model import checkpoint
from slimsearch.model.checkpoint import INDEX, SINGLE


@pytest.fixture
def copied(llava_16, tmp_path):
    return shutil.copytree(llava_16, tmp_path / "model")


def test_a_folder_is_found(llava, llava_16):
    one, two = checkpoint.find(str(llava)), checkpoint.find(str(llava_16))
    assert one.model_type == two.model_type == "llava"
    assert set(one.shards.values()) == {SINGLE}
    assert len(set(two.shards.values())) == 2
    assert len(one.shards) == len(two.shards) == len(load_file(llava / SINGLE))


def test_the_demo_is_found():
    assert checkpoint.find("demo").model_type == "llava"


def test_the_fingerprint_holds_the_hash_of_every_shard(llava_16):
    found = checkpoint.find(str(llava_16)).fingerprint()
    for name in ("config.json", "model-00001-of-00002.safetensors"):
        assert found[name] == hashlib.sha256((llava_16 / name).read_bytes()).hexdigest()
    assert {"config.json", *(f.name for f in llava_16.glob("*.safetensors"))} <= set(found)


def test_the_dtype_of_a_tensor_on_disk(llava, llava_16):
    one, two = checkpoint.find(str(llava)), checkpoint.find(str(llava_16))
    assert one.dtype(next(iter(one.shards))) == torch.float32
    assert {two.dtype(key) for key in two.shards} == {torch.bfloat16}


def test_a_copy_keeps_bytes_names_and_metadata(llava_16, tmp_path):
    found = checkpoint.find(str(llava_16))
    key = "language_model.model.layers.0.mlp.up_proj.weight"
    changed = torch.full((48, 32), 0.123456789)
    found.copy(tmp_path, {key: changed})
    for name in set(found.shards.values()):
        before, after = load_file(llava_16 / name), load_file(tmp_path / name)
        assert set(before) == set(after)
        with safe_open(tmp_path / name, "pt") as shard:
            assert shard.metadata() == {"format": "pt"}
        for one, weight in before.items():
            wanted = changed.bfloat16() if one == key else weight
            assert torch.equal(after[one].view(torch.int16), wanted.view(torch.int16))
    assert (tmp_path / INDEX).read_bytes() == (llava_16 / INDEX).read_bytes()


def test_what_is_not_there(tmp_path):
    with pytest.raises(ModelError, match="There is no model folder"):
        checkpoint.find(str(tmp_path / "none"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(ModelError, match="is a file"):
        checkpoint.find(str(tmp_path / "file"))
    with pytest.raises(ModelError, match=r"config\.json"):
        checkpoint.find(str(tmp_path))


@pytest.mark.parametrize("name", ["../other", "/no/where", "~/no-such-folder-here", "a/b/c", "",
                                  ".", ".."])  # fmt: skip
def test_paths_are_never_looked_up_on_the_hub(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoint, "_from_hub", lambda name: pytest.fail(f"asked for {name}"))
    with pytest.raises(ModelError):
        checkpoint.find(name)


def test_a_hub_id_without_a_network_is_refused(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="could not be fetched from the hub"):
        checkpoint.find("someone/no-such-model")


@pytest.mark.parametrize("length", [0, 5, 8, 100, 5000])
def test_a_shard_cut_anywhere_is_refused(copied, length):
    file = copied / "model-00001-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(ModelError, match=r"model-00001-of-00002\.safetensors is damaged"):
        checkpoint.find(str(copied))


@pytest.mark.parametrize("place", ["../m.safetensors", "/m.safetensors", "a/b.safetensors", 3])
def test_a_shard_outside_the_folder_is_refused(copied, place):
    index = json.loads((copied / INDEX).read_text())
    index["weight_map"][next(iter(index["weight_map"]))] = place
    (copied / INDEX).write_text(json.dumps(index))
    with pytest.raises(ModelError):
        checkpoint.find(str(copied))


def test_a_link_out_of_the_folder_is_refused_but_not_in_a_hub_cache(copied, tmp_path, llava_16):
    blobs = tmp_path / "models--x--y" / "blobs"
    snapshot = tmp_path / "models--x--y" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(copied.iterdir())):
        shutil.copy(file, blobs / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    assert checkpoint.find(str(snapshot)).shards == checkpoint.find(str(copied)).shards
    shard = copied / "model-00001-of-00002.safetensors"
    shard.unlink()
    shard.symlink_to(llava_16 / shard.name)
    with pytest.raises(ModelError, match="a link out of its folder"):
        checkpoint.find(str(copied))


@pytest.mark.parametrize(
    ("name", "content"),
    [("config.json", "{"), ("config.json", "[]"), ("config.json", "{}"), ("config.json", "\0"),
     ("config.json", '{"model_type": 3}'), (INDEX, "{"), (INDEX, "{}"),
     (INDEX, '{"weight_map": []}')],
)  # fmt: skip
def test_bad_json_is_refused_by_name(copied, name, content):
    (copied / name).write_text(content)
    with pytest.raises(ModelError, match=name):
        checkpoint.find(str(copied))


def test_pickled_weights_are_never_opened(copied):
    for file in copied.glob("*.safetensors*"):
        file.unlink()
    (copied / "pytorch_model.bin").write_bytes(b"never opened")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin\) are never opened"):
        checkpoint.find(str(copied))


def test_a_single_file_needs_no_index(tmp_path):
    folder = tiny.llava(tmp_path / "one")
    assert not (folder / INDEX).exists()
    assert set(checkpoint.find(str(folder)).shards) == set(load_file(folder / SINGLE))


def test_ctrl_c_during_a_download_is_no_fault_of_the_hub(monkeypatch, tmp_path):
    import huggingface_hub

    from slimsearch.errors import Stopped

    def stopped(*_, **__):
        raise Stopped("stopped.", 130)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", stopped)
    with pytest.raises(Stopped):
        checkpoint.find("someone/some-model")
