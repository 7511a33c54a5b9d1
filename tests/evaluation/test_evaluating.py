"""Whole evaluations: asked, resumed, compared, graded, scored from files, and refused."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from math import exp
from pathlib import Path

import official
import pytest
import torch
from transformers import AutoTokenizer, LlavaForConditionalGeneration

from slimsearch import artefact
from slimsearch.api import generating, pruning
from slimsearch.api.generating import Speaker
from slimsearch.api.runs import search
from slimsearch.errors import RunError, SettingsError, TaskError
from slimsearch.evaluation import examining
from slimsearch.evaluation.evaluating import evaluate
from slimsearch.evaluation.examining import Engine
from slimsearch.evaluation.judging import Judge
from slimsearch.evaluation.sitting import Exam
from slimsearch.model import checkpoint
from slimsearch.record import history, results

PLAIN = {"instruction": ""}  # the demo was not taught LLaVA's


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("official")
    for written in (official.pope, official.mme, official.vqav2, official.scienceqa,
                    official.mmvet, official.perplexity, official.pairs):  # fmt: skip
        written(folder / written.__name__)
    return folder


@pytest.fixture(scope="module")
def damaged(tmp_path_factory) -> Path:
    """The demo with its later blocks weakened: it still answers, but worse."""
    folder = tmp_path_factory.mktemp("models") / "damaged"
    folder.mkdir()
    found = checkpoint.find("demo")
    weak = [key for key in found.shards if "o_proj" in key]
    found.copy(folder, {key: 0.2 * tensor for key, tensor in found.read(weak)})
    return folder


@pytest.fixture
def pope(data, tmp_path) -> Exam:
    return Exam("pope", str(data / "pope"), "demo", out=str(tmp_path), choices=PLAIN)


def lines(folder: Path) -> list[dict]:
    (found,) = results.all_in(folder)
    return results.lines_of(found)


def test_a_model_that_knows_is_right_and_its_answers_are_kept(pope, tmp_path):
    found = evaluate(pope)
    assert found["figures"]["mean_f1"] == {"value": 100, "low": 100, "high": 100}
    assert found["model"]["name"] == "demo"
    assert found["model"]["runtime"] == "torch"
    assert found["model"]["sparsity"] == 0
    kept = lines(tmp_path)
    assert len(kept) == found["count"] == 8
    assert {entry["read"] == entry["expected"][0] for entry in kept} == {True}
    assert kept[0]["marks"]["right"] == 1
    assert Path(kept[0]["picture"]).is_file()
    (written,) = results.all_in(tmp_path)
    assert written["figures"] == found["figures"]


def test_what_was_answered_is_not_asked_again(pope, monkeypatch):
    first = evaluate(pope)
    monkeypatch.setattr(generating, "open", lambda *_: pytest.fail("the model was loaded again"))
    assert evaluate(pope) == first


def test_a_stopped_evaluation_ends_as_an_unbroken_one(pope, tmp_path, monkeypatch):
    pope = replace(pope, engine=Engine(batch=3))
    evaluate(replace(pope, out=str(tmp_path / "whole")))
    ask, calls = Speaker.ask, []

    def stops(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return ask(*args)

    monkeypatch.setattr(Speaker, "ask", stops)
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        evaluate(replace(pope, out=str(broken)))
    log = broken / "demo" / "pope.jsonl"
    assert len(results.read_lines(log)) == 3
    assert results.all_in(broken) == []
    log.write_bytes(log.read_bytes() + b'{"id": "4", "ans')  # as a kill leaves it
    evaluate(replace(pope, out=str(broken)))
    assert len(calls) == 2 + 2
    assert lines(broken) == lines(tmp_path / "whole")


def test_two_at_once_are_kept_apart(pope, tmp_path):
    """The second is told; once the first is gone, killed or not, its lock is no more."""
    place = tmp_path / "two" / "demo"
    holder = subprocess.Popen(
        [sys.executable, "-c",
         "import sys, time; from pathlib import Path; from slimsearch.record import results\n"
         "with results.held(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)",
         str(place)],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    with holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match=f"Another process is evaluating into {place}"):
            evaluate(replace(pope, out=str(tmp_path / "two")))
        holder.kill()
    evaluate(replace(pope, out=str(tmp_path / "two"), against="demo"))


def test_another_model_or_choice_is_not_mixed_in(pope, damaged, tmp_path):
    first = evaluate(pope)
    with pytest.raises(RunError, match=r"choices.tokens was 16, is 4.* --fresh"):
        evaluate(replace(pope, engine=Engine(tokens=4)))
    other = tmp_path / "models" / "demo"
    shutil.copytree(damaged, other)
    with pytest.raises(RunError, match=r"model\.fingerprint was"):
        evaluate(replace(pope, source=str(other)))
    fresh = evaluate(replace(pope, source=str(other), fresh=True))
    assert fresh["model"]["fingerprint"] != first["model"]["fingerprint"]


def test_a_limit_draws_by_seed_and_by_unit(data, tmp_path):
    exam = Exam("mme", str(data / "mme"), "demo", out=str(tmp_path), choices=PLAIN, limit=5)
    drawn = {}
    for seed in (0, 1, 0):
        found = evaluate(replace(exam, seed=seed, out=str(tmp_path / str(seed))))
        drawn.setdefault(seed, []).append(lines(tmp_path / str(seed)))
        assert (found["count"], found["units"]) == (6, 3)
    assert drawn[0][0] == drawn[0][1]
    assert drawn[0] != drawn[1]
    ids = [entry["id"] for entry in drawn[0][0]]
    assert sorted(name.removesuffix("#2") for name in ids[1::2]) == sorted(ids[::2])


def test_two_models_are_compared_on_the_same_questions(data, damaged, tmp_path):
    exam = Exam("vqa", str(data / "vqav2"), "demo", out=str(tmp_path), choices=PLAIN,
                against=str(damaged))  # fmt: skip
    found = evaluate(exam)
    (other,) = found["against"]
    assert other["model"]["name"] == "damaged"
    (theirs,) = [one for one in results.all_in(tmp_path) if one["model"]["name"] == "damaged"]
    mine, worse = found["figures"]["accuracy"]["value"], theirs["figures"]["accuracy"]["value"]
    difference = other["figures"]["accuracy"]
    assert difference["value"] == pytest.approx(mine - worse)
    assert difference["value"] > 0
    assert difference["low"] <= difference["value"] <= difference["high"]
    right = [{entry["id"]: entry["marks"]["right"] for entry in results.lines_of(one)}
             for one in results.all_in(tmp_path)]  # fmt: skip
    only = sum(right[1][name] > right[0][name] for name in right[0])
    assert {other["mcnemar"]["only_first"], other["mcnemar"]["only_second"]} >= {abs(only)}


def test_an_export_keeps_its_results_and_shows_them_on_its_card(data, damaged, tmp_path):
    from huggingface_hub import ModelCard

    from slimsearch.api.exporting import export

    folder = tmp_path / "exported"
    export(str(damaged), ["hf"], folder)
    evaluate(Exam("vqa", str(data / "vqav2"), str(folder), choices=PLAIN))
    (found,) = results.all_in(folder)
    assert Path(found["file"]) == folder / "eval" / "vqa-vqav2.json"
    card = ModelCard((folder / "README.md").read_text("utf-8"))
    (entry,) = card.data.eval_results
    assert (entry.dataset_type, entry.metric_type) == ("vqa", "accuracy")
    assert entry.metric_value == round(found["figures"]["accuracy"]["value"], 4)
    before = evaluate(Exam("vqa", str(data / "vqav2"), str(folder), choices=PLAIN))
    assert before["figures"] == found["figures"]


def test_a_run_keeps_its_champions_results_and_stays_whole(data, small, tmp_path, monkeypatch):
    """RUN and RUN/model are the same champion, whose folder is left as it was."""
    run = tmp_path / "run"
    search(replace(small, rounds=1, candidates=2, finalists=0, final_steps=1, out=str(run)))
    exam = Exam("pairs", str(data / "pairs" / "pairs.json"), str(run), against="dense, uniform")
    said = evaluate(exam)
    again = evaluate(Exam("pairs", str(data / "pairs" / "pairs.json"), str(run / "model")))
    assert again["figures"] == said["figures"]
    assert {one["model"]["name"] for one in results.all_in(run / "eval")} == {
        "champion", "dense", "uniform",
    }  # fmt: skip
    dense, uniform = (other["model"] for other in said["against"])
    assert dense["base"] == uniform["base"] == small.model
    rows = history.read(run).rows
    assert uniform["sparsity"] == rows["uniform sparsegpt"].sparsity
    assert set(artefact.record_of(run / "uniform")["matrices"].values()) == {small.ratio}
    history.read(run).check_written("model/")
    monkeypatch.setattr(pruning.assembly, "load", lambda *_: pytest.fail("pruned again"))
    assert evaluate(exam)["against"] == said["against"]


def test_a_baseline_is_only_pruned_of_what_the_run_began_with(data, small, tmp_path, llava):
    run, model = tmp_path / "run", tmp_path / "moved"
    shutil.copytree(llava, model)
    search(replace(small, model=str(model), rounds=1, candidates=2, finalists=0, final_steps=1,
                   out=str(run), skip_baselines=True))  # fmt: skip
    exam = Exam("pairs", str(data / "pairs" / "pairs.json"), str(run), against="uniform")
    config = json.loads((model / "config.json").read_text("utf-8"))
    (model / "config.json").write_text(json.dumps(config | {"changed": 1}), "utf-8")
    with pytest.raises(RunError, match=r"has changed since \(model\.config\.json was"):
        evaluate(exam)
    with pytest.raises(SettingsError, match=r"is no run\. Give the run, or prune"):
        evaluate(replace(exam, source="demo", out=str(tmp_path)))


def test_perplexity_is_that_of_transformers(data, tmp_path):
    found = evaluate(Exam("perplexity", str(data / "perplexity"), "demo", out=str(tmp_path),
                          choices={"length": 64, "stride": 48}))  # fmt: skip
    folder = checkpoint.find("demo").folder
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    text = " ".join((data / "perplexity" / "ptb.test.txt").read_text("utf-8").split("\n")).strip()
    ids = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")["input_ids"]
    loss = count = done = 0
    for start in range(0, ids.shape[1], 48):
        stop = min(start + 64, ids.shape[1])
        labels = ids[:, start:stop].clone()
        labels[:, : max(done - start, 0)] = -100
        targets = int((labels[:, 1:] != -100).sum())
        loss += model(input_ids=ids[:, start:stop], labels=labels).loss.item() * targets
        count, done = count + targets, stop
        if stop == ids.shape[1]:
            break
    assert found["figures"]["perplexity"]["value"] == pytest.approx(exp(loss / count), rel=1e-4)


class Reply:
    """A judge that gives 1.0 for the truth and 0.2 for anything else."""

    asked = 0

    def __call__(self, judge: Judge, case: str, temperature: float) -> str:
        Reply.asked += 1
        _, truth, said, _ = case.rsplit("\n", 1)[1].split(" | ")
        return "1.0" if truth == said else "0.2"


def test_open_answers_wait_for_a_judge(data, tmp_path, monkeypatch):
    exam = Exam("mmvet", str(data / "mmvet"), "demo", out=str(tmp_path))
    without = evaluate(exam)
    assert without["figures"] == {}
    assert any("--judge URL --judge-model NAME" in note for note in without["notes"])
    submission = json.loads((tmp_path / "demo" / without["submission"]).read_text("utf-8"))
    assert list(submission) == [f"v1_{n}" for n in range(4)]
    reply = Reply()
    monkeypatch.setattr(Judge, "say", lambda *given: reply(*given))
    exam = replace(exam, judge=Judge("http://localhost:1/v1", "judge"))
    graded = evaluate(exam)
    assert Reply.asked == 4
    assert graded["figures"]["score"]["value"] >= 20
    assert graded["judge"]["model"] == "judge"
    assert set(graded["breakdown"]) & {"rec", "math"}
    assert evaluate(exam) == graded
    assert Reply.asked == 4


def test_a_file_of_answers_is_scored_without_a_model(data, tmp_path):
    file = tmp_path / "answers.jsonl"
    texts = ["A", "B. it is", "The answer is C.", "(D)", "", "A"]
    said = [{"question_id": str(10 + n), "text": text} for n, text in enumerate(texts)]
    file.write_text("".join(json.dumps(entry) + "\n" for entry in said), "utf-8")
    exam = Exam("scienceqa", str(data / "scienceqa"), given=str(file))
    problems = json.loads((data / "scienceqa" / "problems.json").read_text("utf-8"))
    read = ["A", "B", "C", "", "", "A"]
    right = sum("ABCD"[problems[str(10 + n)]["answer"]] == letter for n, letter in enumerate(read))
    found = evaluate(exam)
    assert found["figures"]["accuracy"]["value"] == pytest.approx(100 * right / 6)
    assert found["model"]["name"] == "answers"
    file.write_text("".join(json.dumps(entry) + "\n" for entry in said[:3]), "utf-8")
    with pytest.raises(TaskError, match=r"lacks answers to 3 of 6 questions, 13 first. With --par"):
        evaluate(exam)
    some = evaluate(replace(exam, partial=True))
    assert some["count"] == 3
    assert any("3 questions were not answered" in note for note in some["notes"])


@pytest.mark.parametrize(
    "content",
    [
        {"10": 0, "11": 1, "12": -1, "13": 2, "14": 3, "15": 0},
        {"results": {"10": 0, "11": 1, "12": -1, "13": 2, "14": 3, "15": 0}, "acc": 3.0},
        [{"id": str(10 + n), "answer": text} for n, text in enumerate("AB?CDA")],
    ],
)
def test_answers_come_in_all_published_forms(data, tmp_path, content):
    (tmp_path / "said.json").write_text(json.dumps(content), "utf-8")
    found = evaluate(Exam("scienceqa", str(data / "scienceqa"), given=str(tmp_path / "said.json"),
                          out=str(tmp_path)))  # fmt: skip
    assert [entry["read"] for entry in lines(tmp_path)] == ["A", "B", "", "C", "D", "A"]
    assert found["count"] == 6


def test_answers_that_are_none_are_refused(data, tmp_path):
    file = tmp_path / "said.json"
    exam = Exam("scienceqa", str(data / "scienceqa"), given=str(file))
    for content, said in (
        ('{"v1_0": "x"}', "answers none of the 6 questions: they are named 10 and so on"),
        ('[{"text": "A"}]', "entry 1 has no name"),
        ('{"10": ["A"]}', "10 must have a text or a number"),
        ("[1, 2]", "holds no list of objects"),
        ("{", "is no JSON"),
    ):
        file.write_text(content, "utf-8")
        with pytest.raises(TaskError, match=said):
            evaluate(exam)


def test_what_cannot_be_is_said_before_a_model_is_loaded(data, llama, pope, tmp_path, monkeypatch):
    monkeypatch.setattr(generating, "open", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(TaskError, match=r"reads text only, and 8 of 8 questions of pope show a"):
        evaluate(replace(pope, source=str(llama)))
    with pytest.raises(SettingsError, match="one of both"):
        evaluate(replace(pope, given="answers.jsonl"))
    with pytest.raises(SettingsError, match="--length means nothing to pope"):
        evaluate(replace(pope, choices={"length": 3}))
    with pytest.raises(SettingsError, match=r"no 'popes' in tasks\. Did you mean 'pope'"):
        evaluate(replace(pope, task="popes"))
    with pytest.raises(SettingsError, match="no address"):
        evaluate(replace(pope, judge=Judge("gpt", "gpt")))
    broken = tmp_path / "broken"
    shutil.copytree(data / "pope", broken)
    gone = sorted((broken / "val2014").iterdir())[1]
    gone.unlink()
    with pytest.raises(TaskError, match=rf"2 of 8 pictures of pope are missing.*{gone.name}"):
        evaluate(replace(pope, data=str(broken)))


def test_what_is_missing_may_be_left_out(data, llama, pope, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(data / "pope", broken)
    sorted((broken / "val2014").iterdir())[1].unlink()
    found = evaluate(replace(pope, data=str(broken), partial=True))
    assert found["count"] == 6
    assert found["notes"] == ["2 questions were left out: their pictures cannot be shown."]
    text = Exam("scienceqa", str(data / "scienceqa"), str(llama), out=str(tmp_path), partial=True,
                engine=Engine(tokens=2))  # fmt: skip
    assert set(evaluate(text)["breakdown"]) & {"IMG", "NO"} == {"NO"}


def test_a_prompt_that_is_too_long_counts_as_not_answered(pope, monkeypatch, tmp_path):
    room = examining.subject("demo").found.room
    monkeypatch.setattr("slimsearch.model.resident.Resident.__init__", _with_room(60), raising=True)
    notes = []

    class Watching(examining.Watch):
        def note(self, text: str) -> None:
            notes.append(text)

    assert room > 60
    long = replace(pope, choices={"instruction": "Answer. " * 40})
    found = evaluate(long, Watching())
    assert any("8 prompts are longer than this model reads" in note for note in notes)
    assert {entry["answer"] for entry in lines(tmp_path)} == {""}
    assert found["count"] == 8


def _with_room(room: int):
    from slimsearch.model.resident import Resident

    made = Resident.__init__

    def smaller(self, vlm):
        made(self, vlm)
        self.room = room

    return smaller
