"""A whole search, small: it ends with what it promises, repeats itself, and survives a stop
anywhere."""

import json
import shutil
import subprocess
import sys
import tomllib
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from slimsearch import policy
from slimsearch.api import runs
from slimsearch.errors import (
    InputError,
    ModelError,
    PolicyError,
    ResourceError,
    RunError,
    SettingsError,
    SlimsearchError,
    SolverError,
    Stopped,
)
from slimsearch.objectives.text_loss import TextLoss
from slimsearch.record import history
from slimsearch.record.candidate import Score
from slimsearch.searching.watch import Watch
from slimsearch.settings import Settings
from slimsearch.solvers.sparsegpt import SparseGPT
from slimsearch.teaching.training import Trainer

UNFINISHED = 4  # lines of a journal: start, scope, the dense row, the level store
STAGES = ("load", "level store", "search", "projector", "finalists", "baselines", "evaluation",
          "export")  # fmt: skip


@pytest.fixture(scope="module")
def chosen(tmp_path_factory, llava_16, pairs_file, text_file) -> Settings:
    """Fourteen genes on a bf16 model in two shards."""
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    found = tiny.settings(llava_16, pairs_file, text_file)
    return replace(found, policy="per_matrix", candidates=3, survivors=2, out=str(out))


@pytest.fixture(scope="module")
def result(chosen) -> runs.Result:
    return runs.search(chosen)


def lines(folder: Path) -> list[bytes]:
    return (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)


def outcome(folder: Path) -> dict[str, bytes]:
    """All that a run ends with, byte by byte; what is not compared: how long things took."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert {"journal.jsonl", "best.toml", "model"} <= {file.name for file in folder.iterdir()}
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in files
        if file.name not in ("times.jsonl", "settings.toml")  # the latter names its folder
    }


def copy_of(run: Path, folder: Path, kept: int, *, torn: bool = False) -> Path:
    """The run as it stood after `kept` lines of its journal, perhaps in the middle of the next."""
    shutil.copytree(run, folder)
    whole = lines(run)
    tail = whole[kept][: len(whole[kept]) // 2] if torn else b""
    (folder / "journal.jsonl").write_bytes(b"".join(whole[:kept]) + tail)
    shutil.rmtree(folder / "model")
    (folder / "best.toml").unlink()
    for record in tiny.records(run)[kept:]:
        if record["kind"] == "projector":
            (folder / "projectors" / f"{record['version']:04d}.safetensors").unlink()
    return folder


def test_a_search_ends_with_a_policy_a_model_and_a_table(result, chosen):
    assert [row.name for row in result.table] == [
        "dense", "uniform sparsegpt, text only", "uniform sparsegpt", "searched",
        "searched + projector + gains + weights"]  # fmt: skip
    assert result.table[0].sparsity == 0
    assert len({tuple(row.figures.items()) for row in result.table}) == 5, "a row was not pruned"
    assert all({"perplexity", "accuracy", "answer_loss"} == set(r.figures) for r in result.table)
    assert [done.index for done in result.rounds] == [1, 2]
    found = policy.read(result.folder / "best.toml")
    assert found.tables == result.policy.tables
    kept = tomllib.loads((result.folder / "settings.toml").read_text())
    assert kept["policy"] == "per_matrix"
    assert kept["ratio"] == 0.5


def test_the_champion_is_on_budget_and_its_zeros_are_in_the_model(result):
    weights = {}
    for file in result.model.glob("*.safetensors"):
        weights |= load_file(file)
    pruned = {key: w for key, w in weights.items() if "_proj" in key and "language_model" in key}
    assert len(pruned) == 14
    zeros = sum(int((weight == 0).sum()) for weight in pruned.values())
    share = zeros / sum(weight.numel() for weight in pruned.values())
    assert share == pytest.approx(result.sparsity, abs=1e-6)
    assert abs(share - 0.5) <= 0.01
    roles = {"q": "self_attn.q_proj", "o": "self_attn.o_proj", "down": "mlp.down_proj"}
    for name, level in result.policy.tables["layer_sparsity"].items():
        _, block, role = name.split(".")
        if role in roles:
            key = f"language_model.model.layers.{block}.{roles[role]}.weight"
            assert int((pruned[key] == 0).sum()) == round(level * pruned[key].numel())


def test_the_exported_model_is_the_one_in_the_tables_last_row(result, text_file):
    model = AutoModelForImageTextToText.from_pretrained(result.model, dtype=torch.float32)
    tokenizer = AutoProcessor.from_pretrained(result.model).tokenizer
    words = Path(text_file).read_text()
    start = len(words) - len(words) // 10
    while not words[start].isspace():
        start += 1
    ids = torch.tensor(tokenizer(words[start:].strip())["input_ids"])
    offsets = np.random.default_rng(0).integers(0, len(ids) - 24, size=64, endpoint=True)
    losses = [model(input_ids=ids[None, o : o + 24], labels=ids[None, o : o + 24]).loss.item()
              for o in offsets]  # fmt: skip
    mean = torch.tensor(losses, dtype=torch.float64).mean().exp().item()
    assert result.table[-1].figures["perplexity"] == pytest.approx(mean, rel=1e-4)


def test_the_champion_lived_to_the_end(result, chosen):
    """It is among the best by stitched totals under the last projector."""
    latest = {}
    for record in tiny.records(result.folder):
        if record["kind"] == "score":
            latest[record["candidate"]] = record["total"], record["projector"]
    newest = max(version for _, version in latest.values())
    alive = sorted((total, name) for name, (total, version) in latest.items() if version == newest)
    end = tiny.records(result.folder)[-1]
    assert end["champion"] in [name for _, name in alive[: chosen.finalists]]
    assert end["total"] == result.total
    assert result.total == pytest.approx(
        result.terms["text_loss"] + 10 * result.terms["answer_loss"]
    )


def rounds_as_dicts(folder: Path) -> list[dict]:
    return [s for r in tiny.records(folder) if r["kind"] == "round" for s in r["scores"]]


def test_no_more_survivors_live_on_than_were_asked_for(result, chosen):
    """Round 2 scores again what survived round 1: at most `survivors` candidates."""
    second = history.read(result.folder).rounds[2]
    old = [score for score in second.scores if score.candidate.startswith("1-")]
    assert 0 < len(old) <= chosen.survivors


def test_every_candidate_is_on_budget(result):
    for score in rounds_as_dicts(result.folder):
        assert abs(score["sparsity"] - 0.5) <= 0.01


def test_two_runs_of_one_seed_are_identical(result, chosen, tmp_path):
    again = runs.search(replace(chosen, out=str(tmp_path / "again")))
    assert outcome(again.folder) == outcome(result.folder)


def test_another_seed_goes_another_way(result, chosen, tmp_path):
    again = runs.search(replace(chosen, seed=1, rounds=1, out=str(tmp_path / "other")))
    assert again.rounds[0].scores != result.rounds[0].scores


# ---- resume


@pytest.mark.parametrize("kept", range(1, 40))
def test_a_run_cut_after_any_line_ends_the_same(result, tmp_path, kept):
    if kept >= len(lines(result.folder)):
        pytest.skip("the journal is shorter")
    run = copy_of(result.folder, tmp_path / "run", kept, torn=kept % 2 == 0)
    if kept == 1:
        shutil.rmtree(run / "levels")
    resumed = runs.resume(run)
    assert outcome(run) == outcome(result.folder)
    assert resumed.policy == result.policy
    assert resumed.total == result.total
    assert resumed.table == result.table


def test_the_parameters_above_reach_the_journals_end(result):
    assert 10 < len(lines(result.folder)) <= 40


def test_scores_in_the_journal_are_not_paid_for_again(result, tmp_path, monkeypatch):
    records = tiny.records(result.folder)
    first = next(n for n, record in enumerate(records) if record["kind"] == "round")
    run = copy_of(result.folder, tmp_path / "run", first + 1)
    before = lines(run)
    watch = tiny.Notes()
    runs.resume(run, watch)
    assert lines(run)[: len(before)] == before
    assert watch.rounds == [1, 2]
    scored = [r["candidate"] for r in tiny.records(run)[first + 1 :] if r["kind"] == "score"]
    assert len(scored) == sum(r["kind"] == "score" for r in records[first + 1 :])


def test_a_crash_between_the_export_and_the_last_line_is_mended(result, tmp_path):
    """Killed after model/ was written, before the journal said so."""
    run = tmp_path / "run"
    shutil.copytree(result.folder, run)
    (run / "journal.jsonl").write_bytes(b"".join(lines(run)[:-1]))
    runs.resume(run)
    assert outcome(run) == outcome(result.folder)


def test_a_projector_file_newer_than_the_journal_is_written_again(result, tmp_path):
    """Killed after a projector was written, before the journal said so."""
    records = tiny.records(result.folder)
    place = next(n for n, record in enumerate(records) if record["kind"] == "projector")
    run = tmp_path / "run"
    shutil.copytree(result.folder, run)
    (run / "journal.jsonl").write_bytes(b"".join(lines(run)[:place]))
    shutil.rmtree(run / "model")
    runs.resume(run)
    assert outcome(run) == outcome(result.folder)


class Stopping(Watch):
    """Stops like a signal when a stage begins or ends for the nth time."""

    def __init__(self, name: str, time: int):
        super().__init__()
        self._name, self._left = name, time

    def begin(self, name: str, steps: int) -> None:
        self._left -= name == self._name
        if self._left == 0:
            raise Stopped("stopped.", 130)


@pytest.mark.parametrize(
    ("stage", "time"),
    [("level store", 1), ("search", 1), ("projector", 2), ("finalists", 2), ("baselines", 1),
     ("evaluation", 4), ("export", 1)],
)  # fmt: skip
def test_a_run_stopped_in_any_stage_ends_the_same(result, chosen, tmp_path, stage, time):
    run = tmp_path / "run"
    with pytest.raises(Stopped):
        runs.search(replace(chosen, out=str(run)), Stopping(stage, time))
    assert not (run / "best.toml").exists()
    runs.resume(run)
    assert outcome(run) == outcome(result.folder)


def test_where_candidates_are_scored_is_no_part_of_a_run(result, tmp_path):
    """A run that was begun on a cluster is gone on with here, to the same bytes."""
    run = copy_of(result.folder, tmp_path / "run", 9)
    file = run / "settings.toml"
    begun = file.read_text().replace('executor = "local"', 'executor = "ray"')
    file.write_text(begun.replace("ray_workers = 0", "ray_workers = 8"))
    with pytest.raises(SettingsError, match="keeps its seed"):
        runs.resume(run, where={"seed": 1})
    runs.resume(run, where={"executor": "local"})
    assert outcome(run) == outcome(result.folder)


def test_a_finished_run_is_not_gone_on_with(result):
    before = lines(result.folder)
    with pytest.raises(RunError, match="is finished"):
        runs.resume(result.folder)
    assert lines(result.folder) == before


@pytest.mark.parametrize("name", ["best.toml", "model/config.json", "samples/1.png"])
def test_what_a_finished_run_wrote_is_checked_when_it_is_resumed(result, tmp_path, name):
    run = shutil.copytree(result.folder, tmp_path / "run")
    content = (run / name).read_bytes()
    (run / name).write_bytes(content[:-1])
    with pytest.raises(RunError, match=rf"{name} is cut short: it ends at byte {len(content) - 1}"):
        runs.resume(run)


def test_a_damaged_level_store_of_a_finished_run_is_named_and_may_be_gone(result, tmp_path):
    run = shutil.copytree(result.folder, tmp_path / "run")
    file = next((run / "levels").iterdir())
    tiny.flip(file)
    with pytest.raises(RunError, match=rf"{file.name} .*needs it no more"):
        runs.resume(run)
    shutil.rmtree(run / "levels")
    with pytest.raises(RunError, match="is finished"):
        runs.resume(run)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [("rounds = 2", "rounds = 3", "rounds was 2, is 3"), ("seed = ", "# seed = ", "lacks 'seed'")],
)
def test_changed_settings_of_a_finished_run_are_named(result, tmp_path, before, after, said):
    run = shutil.copytree(result.folder, tmp_path / "run")
    file = run / "settings.toml"
    assert before in file.read_text()
    file.write_text(file.read_text().replace(before, after))
    with pytest.raises(SlimsearchError, match=said):
        runs.resume(run)


def test_a_run_over_an_unfinished_one_offers_to_resume_it(unfinished, chosen):
    before = lines(unfinished)
    with pytest.raises(RunError) as caught:
        runs.search(replace(chosen, out=str(unfinished)))
    for part in ("interrupted; 0 of 2 rounds closed", f"slimsearch resume {unfinished}"):
        assert part in str(caught.value)
    assert lines(unfinished) == before


@contextmanager
def swapped(file: Path, content: bytes):
    before = file.read_bytes()
    file.write_bytes(content)
    try:
        yield
    finally:
        file.write_bytes(before)


@pytest.fixture
def unfinished(result, tmp_path) -> Path:
    return copy_of(result.folder, tmp_path / "run", UNFINISHED)


def test_a_changed_model_refuses_resume(unfinished, llava_16):
    shard = llava_16 / "model-00002-of-00002.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    with swapped(shard, bytes(content)), pytest.raises(RunError, match=r"model\.model-00002"):
        runs.resume(unfinished)
    assert len(lines(unfinished)) == UNFINISHED


def test_a_changed_calibration_refuses_resume(unfinished, text_file):
    words = text_file.read_bytes()
    with swapped(text_file, b"more " + words), pytest.raises(RunError, match="calibration was"):
        runs.resume(unfinished)


def test_a_changed_picture_refuses_resume(unfinished, pairs_file):
    file = pairs_file.parent / "3.png"
    tiny.picture(40).save(pairs_file.parent.parent / "other.png")
    other = (pairs_file.parent.parent / "other.png").read_bytes()
    with swapped(file, other), pytest.raises(RunError, match="calibration was"):
        runs.resume(unfinished)


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [("seed = 0", "seed = 1", "seed"), ("eta = -1.0", "eta = 0.25", "eta"),
     ("rounds = 2", "rounds = 3", "rounds")],
)  # fmt: skip
def test_a_changed_setting_refuses_resume(unfinished, before, after, key):
    file = unfinished / "settings.toml"
    assert before in file.read_text()
    file.write_text(file.read_text().replace(before, after))
    with pytest.raises(RunError, match=rf"settings\.{key} was .* is "):
        runs.resume(unfinished)


def test_a_damaged_settings_file_is_named(unfinished):
    """Cut between two lines it is still TOML, and flipped it names what is not there."""
    file = unfinished / "settings.toml"
    whole = file.read_text()
    file.write_text(whole[: whole.index("# Text to calibrate on")])
    with pytest.raises(SettingsError, match=rf"{file} lacks '[a-z_]+': it was cut short"):
        runs.resume(unfinished, allow_drift=True)
    file.write_text(whole.replace("pairs.json", "pairs.jso~"))
    with pytest.raises(InputError, match=rf"no pairs at .*So says {file}\."):
        runs.resume(unfinished)


def test_drift_that_is_allowed_marks_the_result(unfinished, llava_16):
    """In the journal, in the result, in the model's record and on its card."""
    shard = llava_16 / "model-00002-of-00002.safetensors"
    file = unfinished / "settings.toml"
    file.write_text(file.read_text().replace("finalists = 2", "finalists = 1"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    watch = tiny.Notes()
    with swapped(shard, bytes(content)):
        found = runs.resume(unfinished, watch, allow_drift=True)
    assert len(found.drift) == 2
    assert found.drift[0].startswith("model.model-00002-of-00002.safetensors was '")
    assert found.drift[1] == "settings.finalists was 2, is 1"
    assert [note for note in watch.notes if note.startswith("Drift: ")] == [
        f"Drift: {line}." for line in found.drift
    ]
    records = tiny.records(unfinished)
    assert [r["differences"] for r in records if r["kind"] == "drift"] == [list(found.drift)]
    assert records[-1]["drift"] == list(found.drift)
    assert history.read(unfinished).drift == list(found.drift)
    assert json.loads((found.model / "slimsearch.json").read_text())["drift"] == list(found.drift)
    assert "settings.finalists was 2, is 1" in (found.model / "README.md").read_text()


def test_drift_of_another_seed_is_no_search_to_go_on_with(small, tmp_path):
    """The rounds in the journal were proposed by another strategy's state."""
    found = runs.search(replace(small, strategy="random", out=str(tmp_path / "whole")))
    place = next(n for n, r in enumerate(tiny.records(found.folder)) if r["kind"] == "round")
    run = copy_of(found.folder, tmp_path / "run", place + 1)
    file = run / "settings.toml"
    file.write_text(file.read_text().replace("seed = 0", "seed = 1"))
    with pytest.raises(RunError, match="belong to different searches"):
        runs.resume(run, allow_drift=True)


def test_a_changed_tokenizer_refuses_resume(unfinished, llava_16):
    """Other tokens mean other segments, so the run would not end the same."""
    file = llava_16 / "tokenizer.json"
    found = json.loads(file.read_text())
    found["model"]["merges"] = found["model"]["merges"][:-2]
    changed = json.dumps(found).encode()
    with swapped(file, changed), pytest.raises(RunError, match="was begun under other conditions"):
        runs.resume(unfinished)


def _cut(content: bytes) -> bytes:
    return content[:200]


def _another_value(content: bytes) -> bytes:
    return content[:-5] + bytes([content[-5] ^ 16]) + content[-4:]


@pytest.mark.parametrize("harm", [_cut, _another_value, None])
def test_a_damaged_level_store_is_solved_anew_to_the_same_end(result, unfinished, harm):
    file = unfinished / "levels" / "0001.safetensors"
    content = file.read_bytes()
    file.unlink()
    if harm is not None:
        file.write_bytes(harm(content))
    watch = tiny.Notes()
    runs.resume(unfinished, watch)
    assert any(str(file) in note and "solved anew" in note for note in watch.notes)
    assert file.read_bytes() == content
    assert outcome(unfinished) == outcome(result.folder)


def test_a_damaged_level_store_that_comes_out_otherwise_is_refused(unfinished, monkeypatch):
    """As on a machine that sums in another order; nothing that was there is lost."""
    file = unfinished / "levels" / "0001.safetensors"
    file.write_bytes(_cut(file.read_bytes()))
    prune = SparseGPT.prune_together

    def otherwise(self, matrices, hessian, levels):
        return prune(self, [matrix * 1.001 for matrix in matrices], hessian, levels)

    monkeypatch.setattr(SparseGPT, "prune_together", otherwise)
    at = (unfinished / "journal.jsonl").read_bytes().index(b'"kind":"levels"') - 10
    with pytest.raises(RunError, match=rf"0001\.safetensors is cut short.* at byte {at} "):
        runs.resume(unfinished)
    assert file.stat().st_size == 200
    assert (unfinished / "levels" / "0000.safetensors").is_file()
    assert not list(unfinished.glob(".levels-*"))


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_where_the_level_store_is_held_changes_nothing(small, tmp_path, place):
    ends = []
    for name, changes in {"auto": {}, "chosen": {"store_in": place}}.items():
        found = runs.search(replace(small, rounds=1, out=str(tmp_path / name), **changes))
        ends.append((found.policy, found.total, found.table))
        ends.append((found.model / "model.safetensors").read_bytes())
    assert ends[:2] == ends[2:]


def test_a_damaged_projector_is_refused(result, tmp_path):
    records = tiny.records(result.folder)
    place = next(n for n, record in enumerate(records) if record["kind"] == "round")
    if not any(record["kind"] == "projector" for record in records[:place]):
        pytest.fail("the first projector step was not kept, so nothing is tested")
    run = copy_of(result.folder, tmp_path / "run", place + 1)
    file = run / "projectors" / "0001.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 4
    file.write_bytes(bytes(content))
    with pytest.raises(RunError, match=r"0001\.safetensors is damaged"):
        runs.resume(run)


def test_a_bad_line_in_the_middle_refuses_resume(unfinished):
    file = unfinished / "journal.jsonl"
    content = bytearray(file.read_bytes())
    offset = len(lines(unfinished)[0])
    content[offset + 30] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(RunError, match=f"byte {offset} "):
        runs.resume(unfinished)
    assert file.read_bytes() == bytes(content)


# ---- folders


def test_a_folder_with_something_in_it_is_never_overwritten(result, chosen):
    before = outcome(result.folder)
    with pytest.raises(RunError, match=r"holds a search: finished; 2 of 2 rounds.*best\.toml"):
        runs.search(chosen)
    assert outcome(result.folder) == before


def test_a_second_process_is_kept_out(unfinished):
    held = subprocess.Popen(
        [sys.executable, "-c",
         "import fcntl, sys; h = open(sys.argv[1], 'w'); fcntl.flock(h, fcntl.LOCK_EX);"
         "print('held', flush=True); sys.stdin.read()", str(unfinished / "lock")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with held:
        assert held.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match="in use by another process"):
            runs.resume(unfinished)
    runs.resume(unfinished)


def test_free_folders_are_numbered_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chosen = Settings(model="some/model", ratio=0.6, seed=3)
    assert runs.free_folder(chosen) == Path("runs/model-0.6-3")
    (tmp_path / "runs/model-0.6-3").mkdir(parents=True)
    assert runs.free_folder(chosen) == Path("runs/model-0.6-3-2")
    assert runs.free_folder(Settings()) == Path("runs/demo-0.5-0")


# ---- what fails


def test_a_failing_candidate_gets_infinity_and_the_run_goes_on(small, tmp_path, monkeypatch):
    measure, calls = TextLoss.measure, []

    def one_bad(self, vlm, calibrated):
        calls.append(1)
        return float("nan") if len(calls) == 2 else measure(self, vlm, calibrated)

    monkeypatch.setattr(TextLoss, "measure", one_bad)
    out = tmp_path / "run"
    found = runs.search(replace(small, policy="per_matrix", out=str(out)))
    bad = [Score(**{k: v for k, v in r.items() if k != "kind"})
           for r in tiny.records(out) if r["kind"] == "score" and r["total"] is None]  # fmt: skip
    assert [score.candidate for score in bad] == ["1-02"]
    assert bad[0].failure == "text_loss is not a finite number"
    first = found.rounds[0]
    assert [score.ok for score in first.scores] == [True, False, True, True]
    assert len(first.weights) == 3
    assert first.champion.candidate != "1-02"


def test_a_candidate_whose_measuring_raises_fails_alone(small, tmp_path, monkeypatch):
    """DESIGN: a failed candidate becomes a score of infinity with its reason."""
    measure, tried = TextLoss.measure, []

    def one_bad(self, vlm, calibrated):
        """The second candidate never fits, whatever the batch."""
        tried.append(max(len(batch.ids) for batch in calibrated.all))
        if len(tried) > 1 and 1 not in tried[:-1]:
            raise torch.OutOfMemoryError("no room")
        return measure(self, vlm, calibrated)

    monkeypatch.setattr(TextLoss, "measure", one_bad)
    found = runs.search(replace(small, policy="per_matrix", out=str(tmp_path / "run")))
    bad = [score for score in found.rounds[0].scores if not score.ok]
    assert [score.candidate for score in bad] == ["1-02"]
    assert "out of memory" in bad[0].failure
    assert tried[1] > 1, "no smaller batch was tried"


def test_if_all_fail_the_run_stops_and_can_go_on(small, tmp_path, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(TextLoss, "measure", lambda *_: float("nan"))
        with pytest.raises(ResourceError, match="Every candidate of round 1 failed"):
            runs.search(replace(small, out=str(out)))
    records = tiny.records(out)
    assert [record["total"] for record in records if record["kind"] == "score"] == [None] * 4
    assert [record["failure"] for record in records if record["kind"] == "score"] == [
        "text_loss is not a finite number"] * 4  # fmt: skip
    resumed, unbroken = runs.resume(out), runs.search(replace(small, out=str(tmp_path / "other")))
    assert (resumed.policy, resumed.total) == (unbroken.policy, unbroken.total)


def test_a_projector_step_that_explodes_does_not_end_the_run(small, tmp_path, monkeypatch):
    step = Trainer.step

    def exploding(self, *given):
        done = step(self, *given)
        return replace(done, after=float("nan"), kept=False, note="did not help")

    monkeypatch.setattr(Trainer, "step", exploding)
    found = runs.search(replace(small, out=str(tmp_path / "run")))
    assert [done.step.kept for done in found.rounds] == [False, False]


def test_a_model_with_nan_weights_is_refused_before_the_search(models, small, tmp_path):
    folder = tiny.llava(models / "nan")
    weights = load_file(folder / "model.safetensors")
    weights["model.language_model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="NaN or infinity"):
        runs.search(replace(small, model=str(folder), out=str(tmp_path / "run")))


def test_an_impossible_ratio_leaves_no_folder(small, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(PolicyError, match="cannot be met"):
        runs.search(replace(small, ratio=0.7, levels="0.4,0.5", out=str(out)))
    assert not out.exists()


def test_a_matrix_that_cannot_be_solved_costs_only_those_who_prune_it(small, tmp_path, monkeypatch):
    """Who leaves it dense goes on; the baseline that cannot be pruned is left out, aloud."""
    prune = SparseGPT.prune_together

    def fails_on_down(self, matrices, hessian, levels):
        if matrices[0].shape == (32, 48) and levels[0]:
            raise SolverError("stays indefinite")
        return prune(self, matrices, hessian, levels)

    monkeypatch.setattr(SparseGPT, "prune_together", fails_on_down)
    out, watch = tmp_path / "run", tiny.Notes()
    chosen = replace(
        small, policy="per_matrix", ratio=0.25, levels="0,0.25,0.5", candidates=24, seed=3
    )
    found = runs.search(replace(chosen, out=str(out)), watch)
    failed = history.read(out).failures
    assert failed
    assert {score.failure for score in failed} <= {
        f"blocks.{n}.down: stays indefinite" for n in (0, 1)
    }
    assert not {f"blocks.{n}.down" for n in (0, 1)} & {
        name for name, level in found.policy.tables["layer_sparsity"].items() if level
    }
    assert any("'uniform sparsegpt' is left out" in note for note in watch.notes)
    assert [row.name for row in found.table] == [
        "dense",
        "searched",
        "searched + projector + gains + weights",
    ]


def test_a_solver_that_fails_says_so(small, tmp_path, monkeypatch):
    def fail(self, weights, hessian, levels):
        raise SolverError("cannot be solved")

    monkeypatch.setattr(SparseGPT, "prune_together", fail)
    with pytest.raises(ResourceError, match=r"Every candidate of round 1 failed.*be solved"):
        runs.search(replace(small, out=str(tmp_path / "run")))


# ---- other kinds of run


def test_a_text_only_model_skips_the_projector_and_says_so(llama, text_file, tmp_path):
    watch = tiny.Notes()
    chosen = tiny.settings(llama, "auto", text_file)
    found = runs.search(replace(chosen, out=str(tmp_path / "run")), watch)
    assert any("text-only" in note and "projector step is skipped" in note for note in watch.notes)
    assert all(done.step is None and done.projector == 0 for done in found.rounds)
    assert [row.name for row in found.table] == [
        "dense",
        "uniform sparsegpt",
        "searched",
        "searched + gains + weights",
    ]
    assert set(found.table[0].figures) == {"perplexity"}
    assert set(found.terms) == {"text_loss", "weight_norm"}


def test_the_paper_objective_is_text_only_and_says_so(small, tmp_path):
    watch = tiny.Notes()
    found = runs.search(replace(small, objective="paper", out=str(tmp_path / "run")), watch)
    assert any("gives the projector no gradient" in note for note in watch.notes)
    assert set(found.terms) == {"text_loss", "weight_norm"}
    assert all(done.step is None for done in found.rounds)


def test_without_pairs_it_says_so(small, tmp_path):
    watch = tiny.Notes()
    runs.search(replace(small, pairs="none", out=str(tmp_path / "run")), watch)
    assert any("No image-text pairs" in note for note in watch.notes)


def test_too_few_pairs_for_a_projector_step_is_said(small, tmp_path):
    """One pair is one batch: none is left to judge the step on. Nothing degrades silently."""
    watch = tiny.Notes()
    found = runs.search(replace(small, pair_count=1, out=str(tmp_path / "run")), watch)
    assert all(done.step is None for done in found.rounds)
    assert any("projector" in note for note in watch.notes)


@pytest.mark.parametrize("strategy", ["random", "uniform"])
def test_every_strategy_ends(small, tmp_path, strategy):
    found = runs.search(replace(small, strategy=strategy, out=str(tmp_path / "run")))
    assert (found.folder / "best.toml").is_file()


def test_the_uniform_policy_has_one_candidate(small, tmp_path):
    found = runs.search(replace(small, policy="uniform", out=str(tmp_path / "run")))
    assert set(found.policy.tables["layer_sparsity"].values()) == {0.5}


def test_a_result_is_json(result):
    facts = json.loads(json.dumps(result.as_dict()))
    assert facts["model"] == str(result.folder / "model")
    assert facts["policy"] == {"layer_sparsity": dict(result.policy.tables["layer_sparsity"])}
    assert "rounds" not in facts
