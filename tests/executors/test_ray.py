"""Ray's executor on a cluster of two nodes, where workers and a node are killed."""

import os
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import sleep

import pytest
import ray
import torch
from ray.cluster_utils import Cluster

from slimsearch.api import runs
from slimsearch.contracts import Term
from slimsearch.errors import ResourceError
from slimsearch.executors._cluster import connected
from slimsearch.executors._worker import tensors_shared
from slimsearch.executors.ray import Ray
from slimsearch.families.layer_sparsity import LayerSparsity
from slimsearch.model.batch import Calibrated
from slimsearch.model.conversation import text_batches
from slimsearch.objectives.text_loss import TextLoss
from slimsearch.policy import Policy
from slimsearch.record.candidate import Candidate
from slimsearch.searching.evaluate import Evaluator
from slimsearch.searching.watch import Watch
from slimsearch.solvers.magnitude import Magnitude
from slimsearch.surgery.level_store import LevelStore, fill

pytestmark = pytest.mark.timeout(600)

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not look in tests/


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of a core each, and this process as their driver."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = made.add_node(num_cpus=1)
    made.wait_for_nodes()
    yield made, second
    made.shutdown()


@pytest.mark.parametrize(
    "tensor",
    [torch.rand(3, 4).T, torch.rand(3, 1).bfloat16(), torch.ones(()), torch.empty(0, 2),
     torch.tensor([True, False]), torch.ones(1).expand(100, 3, 40)],
)  # fmt: skip
def test_what_a_tensor_is_after_its_journey(cluster, tensor):
    with connected(cluster[0].address, 0, 0), tensors_shared():
        found = ray.get(ray.put([tensor]))[0]
        assert found.dtype == tensor.dtype
        assert torch.equal(found, tensor)
        assert found.untyped_storage().nbytes() <= tensor.untyped_storage().nbytes()


class Deadly(Term):
    """Ends its process where a folder holds a file named after the zeros of a matrix."""

    def __init__(self, folder: Path):
        self.folder = folder

    def measure(self, vlm, calibrated) -> float:
        zeros = int((vlm.linear("blocks.0.q").weight == 0).sum())
        if (self.folder / str(zeros)).exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return float(zeros)


@pytest.fixture
def evaluator(seen, tmp_path) -> Evaluator:
    model = seen[0]
    batches = tuple(text_batches(torch.arange(5, 45).view(2, 20), model.device, 1000))
    store = LevelStore(model)
    levels = {m.name: (0.25, 0.5, 0.75) for m in model.matrices}
    fill(store, model, batches, levels, Magnitude(), "both", lambda: None)
    return Evaluator(
        model, store, Calibrated(batches, ()), {"layer_sparsity": LayerSparsity()},
        {"text_loss": TextLoss(), "deadly": Deadly(tmp_path)}, {"text_loss": 1.0, "deadly": 0.0},
    )  # fmt: skip


def candidate(number: int, level: float) -> Candidate:
    return Candidate(f"1-{number:02d}", (number,), Policy({"layer_sparsity": {"blocks.*": level}}))


@pytest.mark.slow
def test_a_candidate_that_kills_its_workers_fails_alone(cluster, evaluator, tmp_path):
    """It is tried again by another worker, as often as was said; the others come in order."""
    levels = [0.0, 0.25, 0.5, 0.75]
    candidates = [candidate(number, level) for number, level in enumerate(levels, 1)]
    wanted = [evaluator.score(each, 7) for each in candidates]
    evaluator.restore()
    size = evaluator.vlm.linear("blocks.0.q").weight.numel()
    (tmp_path / str(size // 2)).touch()
    ours = Ray(ray_address=cluster[0].address, ray_workers=1, ray_cpus=1, ray_retries=1)
    found = list(ours.score(candidates, evaluator, 7, {}))
    notes = ours.take_notes()
    ours.close()
    assert [score.candidate for score in found] == [each.name for each in candidates]
    assert [score for score in found if score.ok] == [wanted[0], wanted[1], wanted[3]]
    assert "every worker that tried it died" in found[2].failure
    assert "its worker process has died" in found[2].failure
    assert [note.split(":")[0] for note in notes] == ["A worker died over 1-03 and is replaced"] * 2


class Killing(Watch):
    """Kills a worker once the first score is there, and a node once the second round has one."""

    def __init__(self, cluster):
        super().__init__()
        self.cluster, self.killed, self.notes = cluster, [], []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def scored(self, score) -> None:
        if not self.killed:
            self.killed.append("worker")
            os.kill(workers()[0], signal.SIGKILL)
        elif score.candidate.startswith("2-") and len(self.killed) == 1:
            self.killed.append("node")
            self.cluster[0].remove_node(self.cluster[1], allow_graceful=False)


def workers() -> list[int]:
    """The processes of actors, by the name that Ray gives them."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if file.read_bytes().startswith(b"ray::Worker"):
                found.append(int(file.parent.name))
    return found


def test_a_run_on_two_nodes_is_the_run_on_this_one(cluster, small, tmp_path):
    """Journal, policy and weights, bit for bit, though a worker and then a node are killed."""
    alone, many = (replace(small, out=str(tmp_path / name)) for name in ("alone", "many"))
    runs.search(alone)
    watch = Killing(cluster)
    runs.search(
        replace(many, executor="ray", ray_address=cluster[0].address, ray_workers=2, ray_cpus=1),
        watch,
    )
    assert watch.killed == ["worker", "node"]
    assert len([note for note in watch.notes if "died" in note]) >= 2
    for name in ("journal.jsonl", "best.toml", "model/model.safetensors", "model/slimsearch.json"):
        assert (tmp_path / "many" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    assert (tmp_path / "many" / "journal.jsonl").read_bytes().count(b'"kind":"projector"') >= 1
    for _ in range(50):
        if not workers():
            break
        sleep(0.1)
    assert not workers(), "no worker outlives its run"


def test_where_no_cluster_is_it_says_so(evaluator):
    with pytest.raises(ResourceError, match=r"No Ray cluster could be had at 127\.0\.0\.1:9"):
        list(Ray(ray_address="127.0.0.1:9").score([candidate(1, 0.5)], evaluator, 0, {}))
