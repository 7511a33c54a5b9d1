"""The published answers of LLaVA-1.5-13B give the published scores, to the last digit."""

import json
import os
from pathlib import Path

import pytest

from slimsearch.evaluation.evaluating import evaluate
from slimsearch.evaluation.sitting import Exam

pytestmark = pytest.mark.bench


@pytest.fixture
def bench() -> Path:
    beside = Path(__file__).parents[3] / "shared" / "bench"
    place = Path(os.environ.get("SLIMSEARCH_BENCH", beside))
    if not place.is_dir():
        pytest.skip(f"there is no {place}; set SLIMSEARCH_BENCH")
    return place


def test_scienceqa(bench: Path):
    wanted = json.loads((bench / "expected_scores.json").read_text())["scienceqa_minitest_13b"]
    answers = bench / "scienceqa" / "llava-v1.5-13b.predictions.json"
    found = evaluate(Exam("scienceqa", str(bench / "scienceqa"), given=str(answers)))
    assert round(found["figures"]["accuracy"]["value"], 2) == wanted["accuracy"]
    assert round(found["breakdown"]["IMG"]["accuracy"]["value"], 2) == wanted["image_accuracy"]
    assert found["count"] == wanted["n"]
    assert found["figures"]["accuracy"]["low"] < wanted["accuracy"]


def test_pope(bench: Path):
    wanted = json.loads((bench / "expected_scores.json").read_text())["pope_13b_f1"]
    answers = bench / "pope" / "llava-v1.5-13b.answers.jsonl"
    found = evaluate(Exam("pope", str(bench / "pope"), given=str(answers)))
    assert round(found["figures"]["mean_f1"]["value"], 2) == wanted.pop("mean")
    for split, f1 in wanted.items():
        assert round(found["breakdown"][split]["f1"]["value"], 2) == f1


def test_vizwiz_and_mmvet_are_read(bench: Path):
    """Real records; a person's own answer is right where two others gave it too."""
    from slimsearch.tasks.mmvet import MmVet
    from slimsearch.tasks.vqa import Vqa

    records = Vqa().questions(str(bench / "vizwiz"), None)
    assert len(records) == 300
    assert all(len(one.expected) == 10 for one in records)
    best = [max(Vqa().mark(one, said)["right"] for said in one.expected) for one in records]
    assert sum(best) / 300 > 0.8
    asked = MmVet().questions(str(bench / "mm-vet"), None)
    assert len(asked) == 109
