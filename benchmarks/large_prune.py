"""Peak memory of `slimsearch prune --stream` on a LLaVA-1.5-7B-shaped model, by decoder blocks.

    python benchmarks/large_prune.py [--blocks 1,2,3] [--segments 16] [--folder /tmp]

Makes checkpoints with random weights at 7B width (hidden 4096, FFN 11008, CLIP ViT-L/14), prunes
each in a process of its own, and prints its peak resident memory. Memory that does not grow with
the number of blocks is what streaming promises; seconds grow with it.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import torch
from safetensors.torch import save_file
from transformers import LlavaConfig, LlavaForConditionalGeneration

from slimsearch import display
from slimsearch.shelf import PACKAGE

PRUNE = (
    "import resource, sys; from slimsearch.cli import main; sys.argv[0] = 'slimsearch'\n"
    "try: main()\n"
    "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--blocks", default="1,2,3")
    parser.add_argument("--segments", default="16")
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    rows = []
    for blocks in map(int, given.blocks.split(",")):
        with tempfile.TemporaryDirectory(dir=given.folder) as place:
            size = make(Path(place) / "model", blocks)
            began = perf_counter()
            peak = prune(Path(place), given.segments)
            seconds = perf_counter() - began
        row = [str(blocks), f"{size / 2**30:.2f}", f"{peak / 2**20:.2f}", f"{seconds:.0f}"]
        rows.append(row)
    columns = ("blocks", "checkpoint GiB", "peak resident GiB", "seconds")
    display.grid("prune --stream --ratio 0.5", columns, rows)


def make(folder: Path, blocks: int) -> int:
    """Writes a random checkpoint in bf16, one shard for each block; its bytes."""
    folder.mkdir()
    demo = PACKAGE / "demo" / "model"
    for file in demo.iterdir():
        if file.suffix in (".json", ".jinja"):
            shutil.copyfile(file, folder / file.name)
    config = LlavaConfig(
        text_config={
            "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008,
            "num_hidden_layers": blocks, "num_attention_heads": 32, "num_key_value_heads": 32,
            "vocab_size": 32064, "max_position_embeddings": 4096,
        },
        vision_config={
            "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096,
            "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 336,
            "patch_size": 14, "projection_dim": 768,
        },
        image_token_index=json.loads((demo / "config.json").read_text())["image_token_index"],
        dtype="bfloat16", architectures=["LlavaForConditionalGeneration"],
    )  # fmt: skip
    config.save_pretrained(folder)
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    shards: dict[str, dict[str, torch.Size]] = {}
    for name, tensor in model.state_dict().items():
        key = name if name.startswith("lm_head") else name.removeprefix("model.")
        key = key.replace("language_model.", "language_model.model.", 1)
        key = key.replace("lm_head", "language_model.lm_head")
        block = (
            key.split(".layers.")[1].split(".")[0] if "language_model.model.layers" in key else "x"
        )
        shards.setdefault(f"model-{block}.safetensors", {})[key] = tensor.shape
    places: dict[str, str] = {}
    generator = torch.Generator().manual_seed(0)
    for name, shapes in shards.items():
        drawn = {
            key: torch.empty(shape).normal_(0, 0.02, generator=generator).to(torch.bfloat16)
            for key, shape in shapes.items()
        }
        save_file(drawn, folder / name, metadata={"format": "pt"})
        places |= dict.fromkeys(drawn, name)
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    index = {"metadata": {"total_size": size}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return size


def prune(place: Path, segments: str) -> int:
    """Prunes place/model in a process of its own; its peak resident memory in KiB."""
    command = [
        sys.executable, "-c", PRUNE, "prune", "--model", str(place / "model"), "--stream",
        "--ratio", "0.5", "--calibration", "demo", "--pairs", "none", "--segments", segments,
        "--segment-length", "256", "--out", str(place / "pruned"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return int(done.stderr.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
