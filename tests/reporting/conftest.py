"""A whole small search with everything a report can show, made once."""

import json
from pathlib import Path

import pytest
import tiny

from slimsearch import reporting
from slimsearch.api import runs
from slimsearch.record import results
from slimsearch.settings import Settings


@pytest.fixture(scope="session")
def run(tmp_path_factory, llava: Path, pairs_file: Path, text_file: Path) -> Path:
    """Finished, evaluated on two tasks, and timed."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    chosen = tiny.settings(llava, pairs_file, text_file)
    runs.search(Settings(**{**vars(chosen), "rounds": 3, "finalists": 3, "out": str(folder)}))
    picture = folder.parent / "asked.png"
    tiny.picture(3).save(picture)
    for model, right in (("dense", 80.0), ("champion", 60.0)):
        _evaluate(folder, model, right, picture)
    (folder / "bench.json").write_text(json.dumps(_bench()))
    return folder


@pytest.fixture(scope="session")
def page(run: Path, tmp_path_factory) -> Path:
    """Its report."""
    folder = tmp_path_factory.mktemp("reports") / "one"
    reporting.report([run], folder)
    return folder / reporting.PAGE


def _evaluate(run: Path, model: str, right: float, picture: Path) -> None:
    told = {
        "task": "pope", "finished": True, "headline": "accuracy",
        "model": {"name": model, "source": str(run), "base": "tiny", "sparsity": 0.5},
        "data": {"name": "POPE random", "source": "pope", "fingerprint": "0"},
        "choices": {}, "count": 5, "units": 5, "notes": [],
        "figures": {"accuracy": {"value": right, "low": right - 10, "high": right + 10}},
        "breakdown": {"random": {"accuracy": {"value": right, "low": None, "high": None}}},
        "against": [],
    }  # fmt: skip
    if model == "champion":
        told["against"] = [{
            "model": {"name": "dense"}, "count": 5, "mcnemar": None,
            "figures": {"accuracy": {"value": -20.0, "low": -40.0, "high": -1.0, "p": 0.03}},
        }]  # fmt: skip
    place = run / results.FOLDER / model
    results.write(place / "pope.json", told)
    answers = ["yes", "no", "yes", "no", "yes"] if model == "dense" else ["no", *["yes"] * 4]
    results.write_lines(
        place / "pope.jsonl",
        [
            {"id": str(number), "groups": [], "prompt": f"Is there a thing <{number}>?",
             "picture": str(picture) if number else "gone.png", "answer": answer,
             "read": answer, "expected": ["yes"], "marks": {}}
            for number, answer in enumerate(answers)
        ],
    )  # fmt: skip


def _bench() -> dict:
    def row(model: str, engine: str, speed: float) -> dict:
        return {
            "model": model, "engine": engine, "prompt": 64, "prefill_ms": 64e3 / speed,
            "decode_per_s": speed / 10, "prefill_of_own_dense": None if model == "against" else 1.5,
            "decode_of_own_dense": None if model == "against" else 1.4,
            "prefill_of_best_dense": 0.75, "decode_of_best_dense": 0.7, "file_mib": 12.5,
            "memory_mib": 300.0,
        }  # fmt: skip

    rows = [row("export", "deepsparse float32", 1500), row("against", "deepsparse float32", 1000),
            row("against", "openvino bfloat16", 2000)]  # fmt: skip
    return {"rows": rows, "notes": ["vllm is not here."], "verdict": ["prefill: use openvino."]}
