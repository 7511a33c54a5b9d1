"""Peak memory of `slimsearch export --to onnx` against the model's size, for a random decoder.

    python benchmarks/export_memory.py [GB on disk, default 1]

Prints one line for a model in float32 and one in bfloat16. The peak is the largest resident set
that the exporting process had, libraries included; what those take alone stands above.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

WIDTH, INNER, VOCABULARY = 2048, 5632, 32000
EXPORT = "import sys; from slimsearch.cli import main; sys.argv[0] = 'slimsearch'; main()"
NOTHING = "import torch, transformers.models.llama.modeling_llama"


def make(folder: Path, size: float, dtype: torch.dtype) -> int:
    """A random LLaMA of about `size` bytes; its size on disk."""
    block = 4 * WIDTH**2 + 3 * WIDTH * INNER
    blocks = max(1, round((size / dtype.itemsize - 2 * VOCABULARY * WIDTH) / block))
    config = LlamaConfig(
        hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=blocks,
        num_attention_heads=16, num_key_value_heads=8, vocab_size=VOCABULARY, dtype=dtype,
    )  # fmt: skip
    torch.set_default_dtype(dtype)
    disable_progress_bar()
    LlamaForCausalLM(config).save_pretrained(folder)
    torch.set_default_dtype(torch.float32)
    words = models.WordLevel({"<unk>": 0, "</s>": 2}, unk_token="<unk>")
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(words), unk_token="<unk>", eos_token="</s>"
    ).save_pretrained(folder)
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def peak(code: str, *words: object) -> int:
    """The largest resident set of a process of its own, in bytes."""
    told = "import resource, sys; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    done = subprocess.run(
        [sys.executable, "-c", f"import atexit\natexit.register(lambda: exec({told!r}))\n{code}",
         *map(str, words)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(done.stdout.split()[-1]) * 1024


def main() -> None:
    size = float(sys.argv[1] if len(sys.argv) > 1 else 1) * 1e9
    alone = peak(NOTHING)
    print(f"libraries alone: {alone / 1e9:.2f} GB")
    for dtype in (torch.float32, torch.bfloat16):
        with TemporaryDirectory() as place:
            held = make(Path(place, "model"), size, dtype)
            out = Path(place, "out")
            most = peak(EXPORT, "export", Path(place, "model"), "--to", "onnx", "--out", out)
            written = sum(file.stat().st_size for file in (out / "onnx").iterdir())
            print(
                f"{str(dtype)[6:]}: {held / 1e9:.2f} GB on disk, {written / 1e9:.2f} GB written, "
                f"peak {most / 1e9:.2f} GB = {most / held:.2f} times the model"
            )


if __name__ == "__main__":
    main()
