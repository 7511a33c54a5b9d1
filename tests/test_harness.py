"""Our models under lmms-eval's interface, held against transformers' own answers."""

import tomllib
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path

import harness_stub
import pytest
import torch
from harness_stub import Instance
from transformers import AutoProcessor, LlavaForConditionalGeneration

from slimsearch.demo import world
from slimsearch.errors import SettingsError, TaskError
from slimsearch.model import checkpoint

REPO = Path(__file__).parents[1]
SPLIT, TASK = "test", "shapes"


@pytest.fixture
def docs() -> list[dict]:
    return [
        {"image": shown.image, "question": question.text, "answer": question.answer}
        for shown in world.pictures("evaluation", 3, 2, 0)
        for question in shown.questions
    ]


@pytest.fixture
def opened(monkeypatch, docs):
    """The model as lmms-eval's registry and command line make it."""
    harness_stub.install(monkeypatch)
    from slimsearch.harness import manifest

    module, name = manifest().simple_class_path.rsplit(".", 1)
    model_class = getattr(import_module(module), name)
    assert issubclass(model_class, harness_stub.lmms)
    assert model_class.is_simple

    def made(arguments: str = "pretrained=demo", **more):
        model = model_class.create_from_arg_string(arguments, {"device": None, **more})
        model.task_dict = {TASK: {SPLIT: docs}}
        return model

    return made


def show(doc) -> list:
    return [doc["image"].convert("RGB")]


def asked(docs, wishes, show=show) -> list[Instance]:
    return [
        Instance((f"<image>\n{doc['question']}", dict(wishes), show, n, TASK, SPLIT))
        for n, doc in enumerate(docs)
    ]


def likely(docs, answer, show=show) -> list[Instance]:
    return [
        Instance((doc["question"], answer(doc), show, n, TASK, SPLIT)) for n, doc in enumerate(docs)
    ]


def test_its_entry_point_is_a_manifest(monkeypatch):
    harness_stub.install(monkeypatch)
    project = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["project"]
    found = project["entry-points"]["lmms_eval.models"]["slimsearch"]
    point = EntryPoint("slimsearch", found, "lmms_eval.models")
    assert point.load()().model_id == "slimsearch"
    assert project["optional-dependencies"]["lmms-eval"]


@pytest.mark.parametrize("batch", [1, 4])
def test_answers_come_in_order_and_are_cached(opened, docs, batch):
    model = opened(batch_size=batch)
    requests = asked(docs, {"max_new_tokens": 8, "until": ["ASSISTANT:"], "temperature": 0})
    answers = model.generate_until(requests)
    assert answers == [doc["answer"] for doc in docs]
    assert [answer for _, _, answer in model.cache_hook.kept] == answers


def test_wishes_are_kept_apart(opened, docs):
    model = opened(batch_size=8)
    long = asked(docs[:1], {"max_new_tokens": 40}, lambda doc: None)
    long[0].args = ("Once upon a time", *long[0].args[1:])
    short = asked(docs, {"max_new_tokens": 8})[1:3]
    both = model.generate_until([short[0], long[0], short[1]])
    assert both[0] == docs[1]["answer"]
    assert both[2] == docs[2]["answer"]
    letter = next(one for one in both[1] if one.isalpha())
    long[0].args[1]["until"] = letter
    assert model.generate_until(long) == [both[1].split(letter)[0].strip()]


def test_log_likelihoods_are_those_of_transformers(opened, docs):
    folder = checkpoint.find("demo").folder
    processor = AutoProcessor.from_pretrained(folder)
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    found = opened().loglikelihood(likely(docs[:3], lambda doc: " green"))
    for doc, (value, greedy) in zip(docs, found, strict=False):
        content = [{"type": "image"}, {"type": "text", "text": doc["question"]}]
        said = [{"role": "user", "content": content}]
        prompt = processor.apply_chat_template(said, add_generation_prompt=True)
        said.append({"role": "assistant", "content": [{"type": "text", "text": "green"}]})
        whole = processor.apply_chat_template(said)
        whole = whole[: whole.index("green", len(prompt)) + len("green")]
        first = processor(images=doc["image"], text=prompt)["input_ids"][0]
        inputs = processor(images=doc["image"], text=whole, return_tensors="pt")
        ids = inputs["input_ids"][0]
        logits = model(**inputs).logits[0].log_softmax(-1)
        start = next(n for n in range(len(ids)) if n >= len(first) or first[n] != ids[n])
        slow = sum(logits[n - 1, ids[n]].item() for n in range(start, len(ids)))
        assert value == pytest.approx(slow, abs=1e-3)
        assert greedy == all(logits[n - 1].argmax() == ids[n] for n in range(start, len(ids)))


def test_the_right_answer_is_the_greedy_one(opened, docs):
    model = opened()
    found = model.loglikelihood(likely(docs, lambda doc: lambda one: one["answer"]))
    assert all(greedy for _, greedy in found)
    text = model.loglikelihood(likely(docs[:1], lambda doc: "red", lambda doc: []))
    assert text[0][0] < 0


def test_what_it_cannot_do_is_said(opened, docs):
    with pytest.raises(SettingsError, match="--batch_size auto cannot be"):
        opened(batch_size="auto")
    model = opened()
    with pytest.raises(TaskError, match="shapes, document 0 shows 2 pictures or films"):
        model.generate_until(asked(docs[:1], {}, lambda doc: [doc["image"], [doc["image"]]]))
    with pytest.raises(NotImplementedError, match="single rounds"):
        model.generate_until_multi_round([])
    wishes = {"do_sample": True, "temperature": 0.7, "max_new_tokens": 2}
    with pytest.warns(UserWarning, match="decodes greedily"):
        model.generate_until(asked(docs[:1], wishes))
