"""run, resume, plan, status, export, prune and generate on tiny models."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny

from slimsearch import settings
from slimsearch.api import runs
from slimsearch.record import history
from slimsearch.record.run import reopen

SLIMSEARCH = Path(sys.executable).with_name("slimsearch")


@pytest.fixture(scope="module")
def run(tmp_path_factory, llava, pairs_file, text_file) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("runs") / "done"
    chosen = tiny.settings(llava, pairs_file, text_file)
    runs.search(settings.change(chosen, {"out": str(folder)}, "the test"))
    return folder


@pytest.fixture
def interrupted(run, tmp_path) -> Path:
    """The same run, stopped after its first round."""
    folder = tmp_path / "interrupted"
    shutil.copytree(run, folder)
    lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    first = next(n for n, line in enumerate(lines) if b'"kind":"round"' in line)
    (folder / "journal.jsonl").write_bytes(b"".join(lines[: first + 1]))
    shutil.rmtree(folder / "model")
    (folder / "best.toml").unlink()
    return folder


def test_run_prints_a_table_and_what_to_type_next(slimsearch, flags, small, tmp_path):
    out = tmp_path / "run"
    said = slimsearch("run", *flags(small, out=out))
    assert said.code == 0, said.err
    for part in (
        "dense",
        "uniform sparsegpt",
        "searched + projector + gains + weights",
        "VQA accuracy",
        f"slimsearch show {out / 'best.toml'}",
        f"slimsearch export {out} --to hf",
    ):
        assert part in said.out
    assert "round" not in said.out
    assert "Traceback" not in said.err


def test_where_no_one_watches_each_round_is_one_plain_line(slimsearch, flags, small, tmp_path):
    said = slimsearch("run", *flags(small, out=tmp_path / "run"))
    rows = [line.split() for line in said.err.splitlines()]
    rounds = [row for row in rows if row and row[0] in ("1", "2")]
    assert [row[0] for row in rounds] == ["1", "2"]
    header = next(line for line in said.err.splitlines() if line.split()[:1] == ["round"])
    assert header.split()[:3] == ["round", "champion", "score"]
    assert "\x1b" not in said.err
    assert "\r" not in said.err
    assert "level store ..." in said.err


def test_run_json_prints_nothing_but_json(slimsearch, small, tmp_path):
    file = tmp_path / "mine.toml"
    out = tmp_path / "run"
    file.write_text(settings.write(settings.change(small, {"out": str(out)}, "the test")))
    said = slimsearch("run", "--from", file, "--json")
    found = json.loads(said.out)
    assert found["folder"] == str(out)
    assert found["model"] == str(out / "model")
    assert found["table"][0]["name"] == "dense"
    assert abs(found["sparsity"] - 0.5) <= 0.01
    kept = settings.read(out / "settings.toml")
    assert kept.rounds == small.rounds
    assert kept.model == small.model


def test_a_run_folder_is_never_overwritten(slimsearch, flags, small, run):
    before = (run / "journal.jsonl").read_bytes()
    said = slimsearch("run", *flags(small, out=run))
    assert said.code == 4
    assert "already holds a search: finished; 2 of 2 rounds closed" in said.err
    assert (run / "journal.jsonl").read_bytes() == before


def test_out_that_is_a_file_is_refused(slimsearch, flags, small, tmp_path):
    (tmp_path / "taken").write_text("mine")
    said = slimsearch("run", *flags(small, out=tmp_path / "taken"))
    assert said.code in (2, 4), said.err
    assert (tmp_path / "taken").read_text() == "mine"


def test_dry_run_plans_and_writes_nothing(slimsearch, flags, small, tmp_path):
    out = tmp_path / "run"
    said = slimsearch("run", *flags(small, out=out), "--dry-run", "--json")
    found = json.loads(said.out)
    assert found["model_type"] == "llava"
    assert found["blocks"] == 2
    assert found["matrices"] == 14
    assert found["candidates"] == 8
    assert not out.exists()


def test_plan_shows_tables(slimsearch, flags, small):
    said = slimsearch("plan", *flags(small))
    assert said.code == 0, said.err
    assert "decoder blocks" in said.out
    assert "level store" in said.out
    assert "in all" in said.out


@pytest.mark.parametrize("json_flag", [[], ["--json"]])
def test_status_of_a_finished_and_an_interrupted_run(slimsearch, run, interrupted, json_flag):
    done, halfway = (slimsearch("status", place, *json_flag) for place in (run, interrupted))
    assert done.code == halfway.code == 0
    if json_flag:
        assert json.loads(done.out)["state"] == "finished"
        found = json.loads(halfway.out)
        assert (found["state"], found["rounds"], found["of"]) == ("interrupted", 1, 2)
        assert found["table"] is None
        assert found["scored"] == 4
    else:
        assert "finished; 2 of 2 rounds closed" in done.out
        assert "searched + projector + gains + weights" in done.out
        assert f"slimsearch resume {interrupted}" in halfway.out


def test_status_of_a_run_that_goes_on(slimsearch, interrupted):
    with reopen(interrupted):
        assert json.loads(slimsearch("status", interrupted, "--json").out)["state"] == "going on"
        assert "slimsearch resume" not in slimsearch("status", interrupted).out
    assert json.loads(slimsearch("status", interrupted, "--json").out)["state"] == "interrupted"


def test_show_reads_a_run_folder(slimsearch, run):
    found = json.loads(slimsearch("show", run, "--json").out)
    assert set(found["layer_sparsity"]) == {
        f"blocks.{n}.{role}" for n in (0, 1) for role in ("q", "k", "v", "o", "gate", "up", "down")
    }


def test_show_of_an_unfinished_run_is_refused_clearly(slimsearch, interrupted):
    said = slimsearch("show", interrupted)
    assert said.code in (3, 4)
    assert "best.toml" in said.err


def test_resume_ends_as_the_unbroken_run_did(slimsearch, run, interrupted):
    said = slimsearch("resume", interrupted, "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["folder"] == str(interrupted)
    for name in ("best.toml", "model/model.safetensors"):
        assert (interrupted / name).read_bytes() == (run / name).read_bytes()


def test_resume_of_a_finished_run(slimsearch, run):
    said = slimsearch("resume", run)
    assert said.code == 4
    assert "best.toml" in said.err


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_a_signal_stops_a_run_that_then_goes_on(slimsearch, flags, small, tmp_path, number, code):
    out = tmp_path / "run"
    words = flags(small, out=out, rounds=12, patience=0, candidates=8, policy="per_matrix")
    with subprocess.Popen(
        [SLIMSEARCH, "run", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        journal = out / "journal.jsonl"
        _wait_for(lambda: journal.exists() and b'"kind":"round"' in journal.read_bytes())
        process.send_signal(number)
        shown, complaint = process.communicate(timeout=60)
    assert process.returncode == code, complaint
    assert shown == ""
    assert complaint.splitlines()[-1].endswith(f"slimsearch resume {out}")
    found = json.loads(slimsearch("status", out, "--json").out)
    assert found["state"] == "interrupted"
    assert 1 <= found["rounds"] < 12
    said = slimsearch("resume", out)
    assert said.code == 0, said.err
    assert json.loads(slimsearch("status", out, "--json").out)["rounds"] == 12


@pytest.mark.parametrize("after", [0.3, 1.5, 3.0, 4.5])
@pytest.mark.slow
def test_a_signal_while_loading_is_no_refused_input(flags, small, tmp_path, after):
    with subprocess.Popen(
        [SLIMSEARCH, "run", *flags(small, out=tmp_path / "run", rounds=400)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        time.sleep(after)
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130, complaint


def _wait_for(condition) -> None:
    until = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < until, "nothing happened for 200 seconds"
        time.sleep(0.02)


# ---- broken inputs


def damaged(source: Path, folder: Path) -> Path:
    shutil.copytree(source, folder)
    return folder


def cut_short(folder: Path) -> str:
    file = folder / "model-00002-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    return file.name


def without_a_shard(folder: Path) -> str:
    (folder / "model-00001-of-00002.safetensors").unlink()
    return "model-00001-of-00002.safetensors"


def bad_json(folder: Path) -> str:
    (folder / "config.json").write_text("{broken")
    return "config.json"


def list_json(folder: Path) -> str:
    (folder / "config.json").write_text("[1]")
    return "config.json"


def no_config(folder: Path) -> str:
    (folder / "config.json").unlink()
    return "config.json"


def bad_index(folder: Path) -> str:
    (folder / "model.safetensors.index.json").write_text("{}")
    return "model.safetensors.index.json"


def shard_outside(folder: Path) -> str:
    index = folder / "model.safetensors.index.json"
    shutil.copy(folder / "model-00001-of-00002.safetensors", folder.parent / "evil.safetensors")
    index.write_text(index.read_text().replace("model-00001-of-00002", "../evil"))
    return "../evil.safetensors"


def shard_linked_outside(folder: Path) -> str:
    shard = folder / "model-00001-of-00002.safetensors"
    shutil.move(shard, folder.parent / "elsewhere.safetensors")
    shard.symlink_to(folder.parent / "elsewhere.safetensors")
    return shard.name


def pickled_only(folder: Path) -> str:
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    return "pytorch_model.bin"


def unknown_type(folder: Path) -> str:
    file = folder / "config.json"
    file.write_text(json.dumps({"model_type": "mamba"}))
    return "mamba"


def without_tokenizer(folder: Path) -> str:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    return "tokenizer"


def without_processor(folder: Path) -> str:
    for name in ("preprocessor_config.json", "processor_config.json"):
        (folder / name).unlink()
    return "preprocessor_config.json"


def without_a_tensor(folder: Path) -> str:
    file = folder / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    index["weight_map"]["language_model.model.extra.weight"] = "model-00001-of-00002.safetensors"
    file.write_text(json.dumps(index))
    return "language_model.model.extra.weight"


@pytest.mark.parametrize(
    "damage",
    [cut_short, without_a_shard, bad_json, list_json, no_config, bad_index, shard_outside,
     shard_linked_outside, pickled_only, unknown_type, without_tokenizer, without_processor,
     without_a_tensor],
    ids=lambda damage: damage.__name__,
)  # fmt: skip
def test_a_broken_model_folder_is_refused_and_the_file_named(
    slimsearch, flags, small, llava_16, tmp_path, damage
):
    folder = damaged(llava_16, tmp_path / "model")
    named = damage(folder)
    said = slimsearch("run", *flags(small, model=folder, out=tmp_path / "run"))
    assert said.code == 3, said.err
    assert named in said.err
    assert not (tmp_path / "run").exists()


def test_empty_calibration_is_refused(slimsearch, flags, small, tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n")
    said = slimsearch("run", *flags(small, calibration=empty, out=tmp_path / "run"))
    assert said.code == 3
    assert "empty.txt holds no text" in said.err


def test_too_little_calibration_is_refused(slimsearch, flags, small, tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("one two")
    said = slimsearch("run", *flags(small, calibration=short, out=tmp_path / "run"))
    assert said.code == 3
    assert "fewer than one segment" in said.err


def test_an_impossible_ratio_is_refused(slimsearch, flags, small, tmp_path):
    said = slimsearch("run", *flags(small, levels="0.1,0.2", out=tmp_path / "run"))
    assert said.code == 3
    assert "Ratio 0.5 cannot be met" in said.err


# ---- export, prune, generate


def test_export_writes_the_champion_again(slimsearch, run, tmp_path):
    out = tmp_path / "exported"
    said = slimsearch("export", run, "--out", out)
    assert said.code == 0, said.err
    assert str(out) in said.out
    one, two = (folder / "model.safetensors" for folder in (run / "model", out))
    assert one.read_bytes() == two.read_bytes()
    assert (out / "chat_template.jinja").is_file()
    assert slimsearch("export", run, "--out", out).code == 4


def test_export_of_an_unfinished_run_is_refused(slimsearch, interrupted, tmp_path):
    said = slimsearch("export", interrupted, "--out", tmp_path / "x")
    assert said.code == 4
    assert f"slimsearch resume {interrupted}" in said.err
    assert not (tmp_path / "x").exists()


def test_prune_applies_one_policy(slimsearch, flags, small, tmp_path):
    out = tmp_path / "pruned"
    said = slimsearch("prune", *flags(small, out=out, policy="uniform", ratio=0.3))
    assert said.code == 0, said.err
    facts = json.loads((out / "slimsearch.json").read_text())
    assert facts["sparsity"] == pytest.approx(0.3, abs=0.001)
    assert len(facts["matrices"]) == 14
    assert "uniform sparsegpt" in said.out


def test_prune_takes_its_model_with_or_without_the_flag(slimsearch, flags, small, llama, tmp_path):
    named, bare = (
        flags(small, pairs="none", policy="uniform", **more) for more in ({}, {"model": "demo"})
    )
    assert slimsearch("prune", *named, "--out", tmp_path / "one").code == 0
    assert slimsearch("prune", small.model, *bare, "--out", tmp_path / "two").code == 0
    one, two = (tmp_path / name / "model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    said = slimsearch("prune", llama, *named, "--out", tmp_path / "three")
    assert said.code == 2
    assert "Two models" in said.err


def test_prune_refuses_a_space(slimsearch, flags, small, tmp_path):
    said = slimsearch("prune", *flags(small, out=tmp_path / "x", policy="per_layer_wide"))
    assert said.code == 3
    assert "slimsearch run" in said.err


def test_prune_takes_a_found_policy_as_it_is(slimsearch, flags, small, run, tmp_path):
    """best.toml says everything; the ratio of the run need not be said again."""
    file = tmp_path / "found.toml"
    file.write_text('[layer_sparsity]\n"blocks.0" = 0.8\n"blocks.1" = 0.7\n')
    out = tmp_path / "x"
    said = slimsearch("prune", *flags(small, out=out, policy=file))
    assert said.code == 0, said.err
    assert json.loads((out / "slimsearch.json").read_text())["sparsity"] == pytest.approx(
        0.75, abs=0.001
    )


def test_generate_answers_about_a_picture(slimsearch, run, pairs_file):
    words = ["generate", run / "model", "--prompt", "What colour is it?", "--max-new-tokens", "5"]
    picture = ["--image", pairs_file.parent / "0.png"]
    said = slimsearch(*words, *picture, "--json")
    found = json.loads(said.out)
    assert said.code == 0
    assert 0 < len(found["tokens"]) <= 5
    assert tiny.tokenizer().decode(found["tokens"], skip_special_tokens=True).strip() == (
        found["text"])  # fmt: skip
    assert slimsearch(*words, *picture).out.strip() == found["text"]
    other = slimsearch(*words, "--image", pairs_file.parent / "4.png", "--json")
    assert other.code == 0


def test_generate_refuses_what_is_no_picture(slimsearch, run, text_file):
    said = slimsearch("generate", run / "model", "--prompt", "x", "--image", text_file)
    assert said.code == 3
    assert "is no picture that can be read" in said.err


def test_generate_refuses_a_picture_for_a_text_model(slimsearch, llama, pairs_file):
    picture = pairs_file.parent / "0.png"
    said = slimsearch("generate", llama, "--prompt", "x", "--image", picture)
    assert said.code == 3
    assert "reads text only" in said.err


def test_generate_reads_text(slimsearch, llama):
    said = slimsearch("generate", llama, "--prompt", "red and", "--max-new-tokens", "3", "--json")
    assert len(json.loads(said.out)["tokens"]) == 3


def test_a_raised_damping_is_journalled_and_shown(slimsearch, flags, small, tmp_path):
    """Fewer tokens than columns and no damping: the Hessian is singular."""
    out = tmp_path / "run"
    few = {"pairs": "none", "segments": 1, "damping": 0.0, "rounds": 1, "out": str(out)}
    assert slimsearch("run", *flags(small, **few)).code == 0
    raised = history.read(out).raised
    assert raised["level store"]["blocks.1.down"] == 0.001
    assert any(during.startswith("finalist") for during in raised)
    assert "row 'uniform sparsegpt'" in raised
    said = slimsearch("status", out)
    assert "level store: Hessians" in said.out
    assert "blocks.1.down to 0.001" in said.out
    shown = slimsearch("show", out).out
    assert all(line in shown for line in said.out.splitlines() if "damping raised" in line)
    for command in ("status", "show"):
        found = json.loads(slimsearch(command, out, "--json").out)
        assert found["raised_damping"] == raised
