"""Times `slimsearch run --ratio 0.5` on the demo model and prints the split by stage.

    python benchmarks/demo_run.py [--ratio 0.5] [--seeds 0,1,2]

Seconds are this machine's; shares are what carries over. Starting Python and importing torch and
transformers is the stage `start`.
"""

from time import perf_counter

began = perf_counter()

import argparse  # noqa: E402  the clock runs while everything is imported
import tempfile  # noqa: E402
from dataclasses import replace  # noqa: E402
from pathlib import Path  # noqa: E402

from slimsearch import Settings, display, search  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--seeds", default="0")
    given = parser.parse_args()
    start = perf_counter() - began
    for seed in map(int, given.seeds.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            settings = replace(
                Settings(), ratio=given.ratio, seed=seed, out=str(Path(folder) / "run")
            )
            clock = perf_counter()
            result = search(settings)
            whole = perf_counter() - clock + start
        seconds = {"start": start, **result.seconds}
        seconds["between stages"] = whole - sum(seconds.values())
        rows = [[stage, f"{s:.1f}", f"{s / whole:.0%}"] for stage, s in seconds.items()]
        title = f"seed {seed}, ratio {given.ratio:g}"
        display.grid(title, ("stage", "seconds", "share"), [*rows, ["whole", f"{whole:.1f}", ""]])
        display.results([vars(row) for row in result.table])
        display.say(f"Rank correlation of stitched and exact scores: {result.correlation}")


if __name__ == "__main__":
    main()
