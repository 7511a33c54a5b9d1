"""Makes the golden run folders of this release: python tests/golden/make.py

They are kept in version control, one folder for each release and format, so that a later release
is held to reading what this one wrote. Never make those of an earlier release again.

    tests/golden/<version>/model, prose.txt    what was searched, a model of some thousand weights
    tests/golden/<version>/finished            a run that ended
    tests/golden/<version>/interrupted         the same, stopped after its first round
"""

import os
import shutil
import sys
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
sys.path.insert(0, str(Path(__file__).parent.parent))

import tiny
import torch

from slimsearch import Settings, __version__, search
from slimsearch.record import journal
from slimsearch.record.history import FORMAT

HERE = Path(__file__).parent
BUILT_IN = Path("/tmp/slimsearch-golden")  # runs name the place of their model: one of nobody's


def main() -> None:
    torch.set_num_threads(1)
    place = HERE / f"{__version__}-format-{FORMAT}"
    if place.exists():
        sys.exit(f"{place} is there already: a release's folders are made once.")
    BUILT_IN.mkdir()
    tiny.llama(BUILT_IN / "model", blocks=1, dtype=torch.bfloat16)
    tiny.text(BUILT_IN / "prose.txt", words=300)
    os.chdir(BUILT_IN)
    search(
        Settings(
            model="model", calibration="prose.txt", segments=2, segment_length=24, rounds=2,
            candidates=3, survivors=2, finalists=1, batch_tokens=200, device="cpu",
            policy="per_matrix", strategy="random", out="finished",
        )
    )  # fmt: skip
    shutil.copytree("finished", "interrupted")
    records, offsets = journal.read(Path("interrupted/journal.jsonl"))
    first = next(n for n, record in enumerate(records) if record["kind"] == "round")
    os.truncate("interrupted/journal.jsonl", offsets[first + 1])
    shutil.rmtree("interrupted/model")
    os.unlink("interrupted/best.toml")
    for folder in ("finished", "interrupted"):
        os.unlink(f"{folder}/lock")
    shutil.move(BUILT_IN, place)


if __name__ == "__main__":
    main()
