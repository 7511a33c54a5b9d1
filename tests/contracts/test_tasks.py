"""Every file in tasks/ against the contract of a task, and its figures against transformers."""

from math import exp, isfinite

import official
import pytest
import torch
from torch.nn import functional
from transformers import AutoProcessor, LlavaForConditionalGeneration

from slimsearch.api import assembly
from slimsearch.calibration import Pair, Turn
from slimsearch.contracts import JudgedTask, Task
from slimsearch.demo import world
from slimsearch.evaluation import marking
from slimsearch.model import checkpoint, conversation, loading
from slimsearch.model.batch import Calibrated
from slimsearch.plugins import about, find, names

TASKS = names("tasks")
DATA = {
    "scienceqa": official.scienceqa, "vqa": official.vizwiz, "pope": official.pope,
    "mme": official.mme, "mmvet": official.mmvet, "llava_bench": official.llava_bench,
    "pairs": official.pairs, "perplexity": official.perplexity,
}  # fmt: skip


@pytest.fixture(scope="module")
def demo():
    """The demo model, a few of its world's pictures, and how it reads."""
    found = checkpoint.find("demo")
    model = loading.load(found, "cpu", "float32")
    return model, conversation.load(found), world.pictures("evaluation", 8, 3, 0)


def held_out(demo, words: int = 300) -> Calibrated:
    model, speech, shown = demo
    ids = torch.tensor(speech.tokens(world.text("evaluation", words, 0))[:192]).view(6, 32)
    pairs = [
        Pair(str(n), one.image, tuple(Turn(q.text, q.answer) for q in one.questions))
        for n, one in enumerate(shown)
    ]
    return Calibrated(
        tuple(conversation.text_batches(ids, model.device, 70)),
        tuple(conversation.pair_batches(model, speech, pairs, 300)),
    )


def test_all_are_found():
    assert set(TASKS) >= {"perplexity", "pairs"}
    assert all(about("tasks", name) for name in TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_questions_are_marked_and_summed(demo, name, tmp_path):
    """Official data in, figures out, whatever was answered: right, wrong or nothing."""
    fields = {"length": 32} if name == "perplexity" else {}
    task = find("tasks", name)(**fields)
    questions = task.questions(str(DATA[name](tmp_path)), demo[1].tokens)
    assert len({question.id for question in questions}) > 1
    for answer in ("", "A", "yes", questions[0].expected[0] if questions[0].expected else "1"):
        said = "-3.5" if name == "perplexity" else answer
        answered = [(question, said) for question in questions]
        if isinstance(task, JudgedTask):
            assert all(task.case(*pair) for pair in answered)
            verdicts = [task.verdict("1 1")] * len(answered)
            marked = marking.graded(answered, verdicts)
        else:
            marked = marking.mark(task, answered)
        whole, groups = marking.figures(task, marked, 0)
        assert task.headline in whole
        for figures in (whole, *groups.values()):
            for figure in figures.values():
                assert figure["value"] >= 0
                assert figure["low"] is None or figure["low"] <= figure["high"]
        known = [group for group in groups if group in task.order]
        assert known == [group for group in task.order if group in groups]


@pytest.mark.parametrize("name", assembly.TASKS)
def test_figures_of_the_dense_model(demo, name):
    task = find("tasks", name)()
    assert isinstance(task, Task)
    figures = task.measure(demo[0], held_out(demo))
    assert figures
    assert all(isinstance(key, str) and isfinite(value) for key, value in figures.items())


@pytest.mark.parametrize("name", TASKS)
def test_nothing_held_out_gives_no_figures(demo, name):
    assert find("tasks", name)().measure(demo[0], Calibrated((), ())) == {}


def test_perplexity_is_that_of_transformers(demo):
    held = held_out(demo)
    ids = torch.cat([batch.ids for batch in held.texts])
    logits = demo[0].model(input_ids=ids).logits.double()
    mean = functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    figure = find("tasks", "perplexity")().measure(demo[0], held)["perplexity"]
    assert figure == pytest.approx(exp(mean.item()), rel=1e-5)


def generated_right(demo, destroy=None) -> list[bool]:
    """Each answer asked for with transformers' own generate, the earlier ones given."""
    folder = checkpoint.find("demo").folder
    processor = AutoProcessor.from_pretrained(folder)
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    if destroy:
        destroy(model.get_decoder().layers)
    right = []
    for one in demo[2]:
        messages = []
        for n, question in enumerate(one.questions):
            place = [] if n else [{"type": "image"}]
            asked = [*place, {"type": "text", "text": question.text}]
            messages.append({"role": "user", "content": asked})
            prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
            inputs = processor(images=one.image, text=prompt, return_tensors="pt")
            made = model.generate(**inputs, max_new_tokens=8, do_sample=False)
            said = processor.decode(made[0, inputs["input_ids"].shape[1] :],
                                    skip_special_tokens=True)  # fmt: skip
            right.append(said.strip() == question.answer)
            answer = [{"type": "text", "text": question.answer}]
            messages.append({"role": "assistant", "content": answer})
    return right


def test_accuracy_is_that_of_generate(demo):
    right = generated_right(demo)
    figure = find("tasks", "pairs")().measure(demo[0], held_out(demo))["accuracy"]
    assert figure == pytest.approx(sum(right) / len(right))
    assert 0.5 < figure <= 1


def test_accuracy_of_a_damaged_model_is_that_of_generate(demo):
    """Where some answers are wrong, the same ones are."""

    def destroy(layers) -> None:
        for layer in layers:
            layer.self_attn.o_proj.weight.data.mul_(0.17)

    right = generated_right(demo, destroy)
    before = {key: weight.clone() for key, weight in demo[0].model.state_dict().items()}
    held = held_out(demo)
    destroy(demo[0].blocks)
    found = [hit for batch in held.pairs for row in demo[0].answers_right(batch) for hit in row]
    figure = find("tasks", "pairs")().measure(demo[0], held)["accuracy"]
    demo[0].model.load_state_dict(before)
    assert figure == pytest.approx(sum(right) / len(right))
    assert sum(found) == sum(right)
    assert 0.1 < figure < 0.95


def test_answer_loss_is_that_of_transformers(demo):
    model, speech, shown = demo
    total, count = 0.0, 0
    for one in shown:
        messages, spans = [], []
        for n, question in enumerate(one.questions):
            place = [] if n else [{"type": "image"}]
            asked = [*place, {"type": "text", "text": question.text}]
            messages.append({"role": "user", "content": asked})
            prompt = speech.processor.apply_chat_template(messages, add_generation_prompt=True)
            start = speech.processor(images=one.image, text=prompt, return_tensors="pt")
            answer = [{"type": "text", "text": question.answer}]
            messages.append({"role": "assistant", "content": answer})
            whole = speech.processor.apply_chat_template(messages)
            stop = speech.processor(images=one.image, text=whole, return_tensors="pt")
            spans.append((start["input_ids"].shape[1], stop["input_ids"].shape[1]))
        labels = torch.full_like(stop["input_ids"], -100)
        for first, last in spans:
            labels[:, first:last] = stop["input_ids"][:, first:last]
            count += last - first
        targets = int((labels[:, 1:] != -100).sum())
        total += model.model(**stop, labels=labels).loss.item() * targets
    figure = find("tasks", "pairs")().measure(model, held_out(demo))["answer_loss"]
    assert figure == pytest.approx(total / count, rel=1e-4)
