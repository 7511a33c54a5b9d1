"""What every command shares: instant help, exit codes, one line of complaint."""

import json
import re
import resource
import subprocess
import sys
from dataclasses import fields

import pytest
import typer.testing

from slimsearch.api import benching
from slimsearch.cli import app
from slimsearch.settings import Settings
from slimsearch.version import __version__

COMMANDS = ("bench", "run", "resume", "plan", "status", "show", "prune", "export", "generate",
            "list", "compare", "doctor", "sweep", "tune", "report",
            "paper", "eval", "flops", "narrow",
)  # fmt: skip


def plain(text: str) -> str:
    """Without the codes that colour it."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_every_command_is_there():
    assert {command.name for command in app.registered_commands} == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    found = typer.testing.CliRunner().invoke(app, [command, "--help"])
    assert found.exit_code == 0
    assert "Usage" in plain(found.output)


def test_python_runs_it_as_a_module():
    found = subprocess.run([sys.executable, "-m", "slimsearch", "--version"], capture_output=True)
    assert (found.returncode, found.stdout) == (0, f"slimsearch {__version__}\n".encode())


def test_the_version_is_said():
    found = typer.testing.CliRunner().invoke(app, ["--version"])
    assert (found.exit_code, found.output) == (0, f"slimsearch {__version__}\n")


@pytest.mark.parametrize("command", ["run", "plan", "prune"])
def test_every_setting_has_a_flag_that_help_shows(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    shown = plain(typer.testing.CliRunner().invoke(app, [command, "--help"]).output)
    words = set(re.findall(r"--[a-z-]+", shown))
    assert {"--" + item.name.replace("_", "-") for item in fields(Settings)} <= words
    assert "--from" in words


def test_help_is_quick_and_imports_no_torch(process):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = []
    for _ in range(3):
        said = process("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        before = after
        assert said.code == 0
        assert "Usage" in said.out
    assert min(seconds) < 0.5, seconds


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["list"], ["show", "uniform"]])
def test_light_commands_import_nothing_heavy(words):
    code = (
        "import sys; sys.argv = ['slimsearch', *sys.argv[1:]]\n"
        "from slimsearch.cli import main\n"
        "try:\n    main()\nexcept SystemExit as ended:\n    assert not ended.code\n"
        "heavy = {'torch', 'transformers', 'pymoo', 'numpy', 'datasets'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        (["run", "--ratio", "1.2"], 2, ["ratio = 1.2 cannot be"]),
        (["run", "--ratio", "0"], 2, ["ratio = 0 cannot be"]),
        (["run", "--rounds", "0"], 2, ["rounds = 0 cannot be"]),
        (["run", "--solver", "sparsgpt"], 2, ["no 'sparsgpt' in", "Did you mean 'sparsegpt'"]),
        (["run", "--strategy", "genetc"], 2, ["Did you mean 'genetic'"]),
        (["run", "--executor", "lokal"], 2, ["Did you mean 'local'"]),
        (["run", "--objective", "text_los"], 2, ["unknown term 'text_los'", "'text_loss'"]),
        (["run", "--objective", "2 text_loss"], 2, ["cannot be read"]),
        (["run", "--tokens", "texts"], 2, ["Did you mean 'text'"]),
        (["run", "--dtype", "int8"], 2, ["dtype = 'int8' cannot be"]),
        (["run", "--from", "nowhere.toml"], 2, ["no settings file nowhere.toml"]),
        (["run", "--policy", "per_layr"], 3, ["no 'per_layr' in policies", "'per_layer'"]),
        (["run", "--policy", "nowhere.toml"], 3, ["no file nowhere.toml"]),
        (["run", "--calibration", "wikitex2"], 3, ["'wikitext2'"]),
        (["run", "--calibration", "nowhere.txt"], 3, ["nowhere.txt"]),
        (["run", "--pairs", "nowhere.json"], 3, ["nowhere.json"]),
        (["run", "--model", "no/such/folder"], 3, ["no model folder no/such/folder"]),
        (["run", "--device", "cuda:77"], 3, ["cuda:77", "--device cpu"]),
        (["prune"], 2, ["--out FOLDER"]),
        (["list", "solver"], 2, ["Did you mean 'solvers'"]),
        (["show", "per_layr"], 3, ["Did you mean 'per_layer"]),
        (["status", "nowhere"], 4, ["nowhere is no run folder"]),
        (["resume", "nowhere"], 4, ["nowhere is no run folder"]),
        (["export", "nowhere", "--out", "x"], 3, ["no model folder nowhere"]),
        (["export", "demo", "--out", "x", "--to", "onx"], 2, ["no 'onx' in exporters"]),
        (["export", "demo", "--out", "n" * 300], 3, ["n cannot be opened: File name too long"]),
        (["export", "demo", "--out", "x", "--int8"], 2, ["--int8 says nothing to --to hf"]),
        (["generate", "nowhere", "--prompt", "x"], 3, ["no model folder nowhere"]),
        (["bench", "nowhere"], 3, ["no model folder nowhere"]),
        (["bench", "demo", "--prompt-tokens", "x"], 2, ["--prompt-tokens x cannot be"]),
    ],
)  # fmt: skip
def test_a_refusal_is_one_line_and_an_exit_code(
    slimsearch, tmp_path, monkeypatch, words, code, parts
):
    monkeypatch.chdir(tmp_path)
    said = slimsearch(*words)
    assert said.code == code, said
    assert said.out == ""
    complaint = said.err.splitlines()[-1]
    assert complaint.startswith("slimsearch: ")
    assert [part for part in parts if part not in complaint] == []
    assert "Traceback" not in said.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words", [["run", "--nonsense"], ["run", "--rounds", "many"], ["fly"], ["status"]]
)
def test_usage_is_exit_code_2(slimsearch, words):
    said = slimsearch(*words)
    assert said.code == 2
    assert said.out == ""


def test_debug_shows_the_traceback(slimsearch):
    assert "Traceback" in slimsearch("run", "--debug", "--ratio", "2").err
    assert "Traceback" not in slimsearch("run", "--ratio", "2").err


@pytest.mark.parametrize("command", ["status", "show", "report", "resume"])
def test_a_place_that_the_system_refuses_is_named_and_no_bug(slimsearch, tmp_path, command):
    place = tmp_path / ("x" * 300)
    said = slimsearch(command, place)
    assert said.code in (3, 4)
    assert str(place) in said.err
    assert "File name too long" in said.err
    assert "bug" not in said.err


def test_what_was_timed_is_told_though_it_cannot_be_drawn(slimsearch, tmp_path, monkeypatch):
    timed = {"prompt": 8, **dict.fromkeys(("decode_spread", "first_token_spread")), **dict.fromkeys(
        ("prefill_ms", "first_token_ms", "decode_per_s", "ready_s", "file_mib", "memory_mib",
         "prefill_spread", "prefill_of_own_dense", "decode_of_own_dense", "prefill_of_best_dense",
         "decode_of_best_dense"), 1.0)}  # fmt: skip
    row = benching.Row("export", "torch float32", **timed)
    monkeypatch.setattr(benching, "bench", lambda *_: benching.Result((row,), (), ()))
    said = slimsearch("bench", tmp_path, "--json", "--chart", tmp_path / "none" / "bars.svg")
    assert said.code == 5
    assert "bars.svg could not be written" in said.err
    assert json.loads(said.out)["rows"][0]["engine"] == "torch float32"


def test_a_bug_of_ours_is_exit_code_1(slimsearch, monkeypatch):
    def broken():
        raise RuntimeError("unforeseen")

    monkeypatch.setattr("slimsearch.machine.look", broken)
    said = slimsearch("doctor")
    assert said.code == 1
    assert "RuntimeError: unforeseen (a bug of slimsearch" in said.err


def test_an_unknown_key_in_a_settings_file(slimsearch, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("candidatse = 3\n")
    said = slimsearch("run", "--from", file)
    assert said.code == 2
    assert f"{file} has an unknown key 'candidatse'. Did you mean 'candidates'?" in said.err


def test_a_flag_wins_over_the_file(slimsearch, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("ratio = 0.4\nrounds = 7\n")
    said = slimsearch("run", "--from", file, "--ratio", "3")
    assert "ratio = 3 cannot be" in said.err
    file.write_text("ratio = 3\n")
    assert "ratio = 3 cannot be" in slimsearch("run", "--from", file, "--rounds", "1").err


@pytest.mark.parametrize("kind", ["", "solvers", "policies", "calibration", "strategies"])
def test_list_says_what_there_is(slimsearch, kind):
    said = slimsearch("list", *([kind] if kind else []), "--json")
    found = json.loads(said.out)
    assert said.code == 0
    assert all(about for names in found.values() for about in names.values())
    shown = slimsearch("list", *([kind] if kind else [])).out
    assert all(name in shown for names in found.values() for name in names)
    if not kind:
        assert {"solvers", "families", "policies", "calibration"} <= set(found)
        assert "sparsegpt" in found["solvers"]


def test_show_prints_policies_and_spaces(slimsearch, tmp_path):
    shown = json.loads(slimsearch("show", "per_layer", "--json").out)
    assert shown["layer_sparsity"] == {"blocks.*": "-0.10..+0.10 by 0.05"}
    file = tmp_path / "mine.toml"
    file.write_text('[layer_sparsity]\n"blocks.0" = 0.25\n"blocks.1" = 0.75\n')
    said = slimsearch("show", file).out
    assert "blocks.0  0.250" in said
    assert "blocks.1  0.750" in said
    assert said.splitlines()[2].count("█") * 3 == pytest.approx(
        said.splitlines()[3].count("█"), abs=3
    )


def test_show_prints_how_blocks_run(slimsearch):
    said = slimsearch("show", "joint").out
    for line in ("[skip_ffn]", "[layer_cut]", "last", "0..4 by 1"):
        assert line in said
    said = slimsearch("show", "skip_answers").out
    assert "tokens" in said
    assert "T" in said
    assert json.loads(slimsearch("show", "attention_cut", "--json").out)["attention_cut"] == {
        "blocks.*": 1, "window": 0
    }  # fmt: skip


def test_doctor_looks_at_the_machine(slimsearch):
    found = json.loads(slimsearch("doctor", "--json").out)
    parts = {finding["part"]: finding for finding in found}
    assert parts["torch"]["ok"]
    assert parts["Python"]["found"] == ".".join(map(str, sys.version_info[:3]))
    assert "solver kernel" in parts
    shown = slimsearch("doctor").out
    assert all(part in shown for part in parts)
