"""Decoder blocks that lie elsewhere than they are computed: the same numbers, less memory."""

import subprocess
import sys
import weakref
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest
import tiny
import tiny_families
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from slimsearch.api import generating, inputs, pruning, runs
from slimsearch.errors import ResourceError, SettingsError
from slimsearch.model import checkpoint, placing, skeleton
from slimsearch.model.placing import PlacedBlocks
from slimsearch.record import history
from slimsearch.searching.watch import Watch
from slimsearch.settings import Settings

ON_DISK = {"device_map": "auto", "max_memory": "cpu=1KB"}


def gradients(model, embeds):
    """The last hidden states, and gradients down to the embeddings and a gain within a block."""
    embeds = embeds.detach().clone().requires_grad_()
    name = next(name for name in model.gain_parameters if ".1." in name)
    gain = model.weights([name])[name].to(model.dtype).requires_grad_()
    with torch.enable_grad():
        hidden = model.hidden({"inputs_embeds": embeds, "use_cache": False}, {name: gain})
        hidden.square().sum().backward()
    return hidden.detach(), embeds.grad, gain.grad


@pytest.mark.parametrize("family", [*tiny_families.VISION, *tiny_families.TEXT])
def test_every_family_says_the_same_wherever_its_blocks_lie(family, load, tmp_path):
    whole = load(tiny_families.make(family, tmp_path / "model"))
    chosen = replace(Settings(), device="cpu", dtype="float32", **ON_DISK)
    placed = placing.load(whole.checkpoint, chosen)
    ids = torch.randint(5, 300, (2, 12), generator=torch.Generator().manual_seed(0))
    embeds = whole.model.get_input_embeddings()(ids)
    for one, other in zip(gradients(whole, embeds), gradients(placed, embeds), strict=True):
        assert torch.equal(one, other)


def test_weights_that_come_along_are_not_held_for_the_backward_pass(load, llama):
    """Copies stand for a GPU's: none but those of the block that is computed are alive."""
    whole = load(llama)
    found = skeleton.load(whole.checkpoint, "cpu", "float32", "auto")
    alive, most = set(), 0

    def bring(weight):
        nonlocal most
        copy = weight.clone()
        alive.add(key := object())
        weakref.finalize(copy, lambda: alive.discard(key))
        most = max(most, len(alive))
        return copy

    blocks = PlacedBlocks(found, bring)
    for index in range(2):
        blocks.settle(index, placing.DISK)
    placed = skeleton.with_blocks(found, blocks)
    embeds = whole.model.get_input_embeddings()(torch.arange(5, 25)[None])
    for one, other in zip(gradients(whole, embeds), gradients(placed, embeds), strict=True):
        assert torch.equal(one, other)
    assert most < 2 * len(dict(blocks[0].named_parameters()))
    assert not alive


def test_a_search_ends_the_same_wherever_the_blocks_lie(small, tmp_path):
    notes = tiny.Notes()
    small = replace(small, polish="gains")  # as auto is where blocks are placed
    runs.search(replace(small, out=str(tmp_path / "whole")), Watch())
    runs.search(replace(small, out=str(tmp_path / "placed"), **ON_DISK), notes)
    assert "Decoder blocks by where they lie: 2 on disk." in notes.notes
    for name in (history.JOURNAL, "best.toml", "model/model.safetensors"):
        one, other = ((tmp_path / run / name).read_bytes() for run in ("whole", "placed"))
        assert one == other, name


def test_blocks_go_where_there_is_room_first(llava):
    """What stands beside them counts too."""
    found = checkpoint.find(str(llava))
    sizes = {key: prod(found.shape(key)) * 4 for key in found.shards}
    block = sum(size for key, size in sizes.items() if "language_model.layers.0." in key)
    beside = sum(sizes.values()) - 2 * block
    for bytes_, said in (
        (beside + 2 * block, "2 in memory"),
        (beside + 2 * block - 1, "1 in memory, 1 on disk"),
        (beside + block - 1, "2 on disk"),
    ):
        chosen = replace(
            Settings(), device="cpu", dtype="float32", device_map="auto",
            max_memory=f"cpu={bytes_ / 1000}KB",
        )  # fmt: skip
        told: list[str] = []
        placing.load(found, chosen, told.append)
        assert told == [f"Decoder blocks by where they lie: {said}."]


def test_memory_holds_what_it_may(tmp_path):
    """A process that runs 12 blocks of 13 MB with room for one of them, watched from outside."""
    config = LlamaConfig(
        hidden_size=512, intermediate_size=1500, num_hidden_layers=12, num_attention_heads=4,
        vocab_size=tiny.VOCABULARY,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    code = (
        "import sys, torch; from dataclasses import replace\n"
        "from transformers.models.llama import modeling_llama\n"
        "from slimsearch.model import checkpoint, placing\n"
        "from slimsearch.settings import Settings\n"
        "def held(what): return int(next(line.split()[1] for line in open('/proc/self/status') if "
        "line.startswith(what)))\n"
        "before = held('VmRSS')\n"
        "chosen = replace(Settings(), dtype='float32', device='cpu', device_map=sys.argv[2], "
        "max_memory=sys.argv[3])\n"
        "model = placing.load(checkpoint.find(sys.argv[1]), chosen)\n"
        "embeds = torch.randn(1, 8, 512, requires_grad=True)\n"
        "for _ in range(2):\n"
        "    model.hidden({'inputs_embeds': embeds, 'use_cache': False}).sum().backward()\n"
        "for matrix in model.matrices: model.linear(matrix.name).weight.data.mul_(0.5)\n"
        "print(held('VmHWM') - before)"
    )

    def peak(*words: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path), *words],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return int(done.stdout)

    whole, placed = peak("", ""), peak("auto", "cpu=20MB")
    assert placed < 0.6 * whole, (placed, whole)


def test_generate_says_the_same(small, tmp_path):
    pruning.prune(replace(small, policy="uniform"), tmp_path / "out", Watch())
    said = []
    for choices in ({}, ON_DISK):
        name, speaker = generating.open(tmp_path / "out", "torch", choices=choices)
        (talk, questions), = generating.asked(["What colour?"], [], None)  # fmt: skip
        said.append(speaker.ask([talk], questions, 8)[0].tokens)
    assert name == "torch"
    assert said[0] == said[1]
    with pytest.raises(SettingsError, match="--device-map goes with --runtime torch"):
        generating.open(tmp_path / "out", "onnxruntime", choices=ON_DISK)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"device_map": "balanced"}, "device_map = 'balanced' cannot be: auto lets"),
        ({"max_memory": "cpu=4GiB"}, "give both"),
        ({"device_map": "auto", "stream": True}, "Leave out --stream"),
        ({"device_map": "auto", "executor": "ray"}, "holds a whole model"),
        *(
            ({"device_map": "auto", "max_memory": bounds}, "max_memory = '.*' cannot be read")
            for bounds in ("4GiB", "cpu=4", "cpu=GiB", "disk=4GiB", "cpu=nanGiB", "cpu=infGB")
        ),
    ],
)
def test_what_cannot_be_is_refused_before_a_model_is_loaded(small, changes, said):
    with pytest.raises(SettingsError, match=said):
        inputs.gather(replace(small, **changes))


def test_a_place_that_is_not_there_is_refused(llava):
    chosen = replace(Settings(), device="cpu", device_map="auto", max_memory="0=4GiB")
    with pytest.raises(SettingsError, match="names cuda:0, and there is cpu to place blocks in"):
        placing.load(checkpoint.find(str(llava)), chosen)


def test_a_place_on_disk_that_cannot_be_written_is_named(llava, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nothing"))
    chosen = replace(Settings(), device="cpu", **ON_DISK)
    with pytest.raises(ResourceError, match=str(tmp_path / "nothing")):
        placing.load(checkpoint.find(str(llava)), chosen)


def test_nothing_is_left_on_disk(llava, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    model = placing.load(checkpoint.find(str(llava)), replace(Settings(), device="cpu", **ON_DISK))
    assert float(model.linear("blocks.1.q").weight.abs().sum()) > 0
    assert list(Path(tmp_path).iterdir()) == []
