"""Every file in runtimes/ against the contract of a runtime, and transformers' own generate."""

import pytest
import tiny
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoProcessor,
    LlavaForConditionalGeneration,
)

from slimsearch.contracts import Runtime, Session
from slimsearch.plugins import about, find, names

RUNTIMES = names("runtimes")
every_runtime = pytest.mark.parametrize("name", RUNTIMES)
STEPS = 8


def said(session: Session, question: str, picture, steps: int = STEPS) -> list[int]:
    tokens, logits = [], session.prefill(question, picture)
    while len(tokens) < steps:
        tokens.append(int(logits.argmax()))
        if tokens[-1] in session.end:
            break
        logits = session.decode(tokens[-1])
    return tokens


def generated(folder, question: str, shown) -> list[int]:
    processor = AutoProcessor.from_pretrained(folder)
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    asked = [{"type": "image"}, {"type": "text", "text": question}]
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": asked}], add_generation_prompt=True
    )
    ids = processor(images=shown, text=prompt, return_tensors="pt", add_special_tokens=False)
    made = model.generate(**ids, max_new_tokens=STEPS, do_sample=False)
    return made[0, ids["input_ids"].shape[1] :].tolist()


def test_all_are_found():
    assert set(RUNTIMES) >= {"torch"}
    assert all(about("runtimes", name) for name in RUNTIMES)
    assert all(issubclass(find("runtimes", name), Runtime) for name in RUNTIMES)


@every_runtime
@pytest.mark.parametrize("number", [0, 5])
def test_greedy_tokens_are_those_of_generate(llava, pairs_file, name, number):
    picture = pairs_file.parent / f"{number}.png"
    session = find("runtimes", name)().open(llava)
    wanted = generated(llava, "What colour is it?", tiny.picture(number))
    assert said(session, "What colour is it?", picture) == wanted


@every_runtime
def test_another_question_starts_afresh(llava, pairs_file, name):
    """A session's cache holds nothing of the question before."""
    picture = pairs_file.parent / "2.png"
    session = find("runtimes", name)().open(llava)
    first = said(session, "What colour is it?", picture)
    said(session, "And around that?", pairs_file.parent / "3.png")
    assert said(session, "What colour is it?", picture) == first


@every_runtime
def test_logits_are_those_of_the_last_token(llava, pairs_file, name):
    session = find("runtimes", name)().open(llava)
    logits = session.prefill("red?", pairs_file.parent / "1.png")
    assert logits.shape == (tiny.VOCABULARY,)
    assert session.decode(9).shape == (tiny.VOCABULARY,)
    assert session.end == {tiny.END}
    assert session.text(tiny.tokenizer()("red more", add_special_tokens=False)["input_ids"]) == (
        "red more")  # fmt: skip


@every_runtime
def test_text_alone(llama, name):
    model = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32).eval()
    ids = tiny.tokenizer()("the red square", return_tensors="pt")
    made = model.generate(
        input_ids=ids["input_ids"], attention_mask=ids["attention_mask"],
        max_new_tokens=STEPS, do_sample=False,
    )  # fmt: skip
    wanted = made[0, ids["input_ids"].shape[1] :].tolist()
    assert said(find("runtimes", name)().open(llama), "the red square", None) == wanted


@every_runtime
def test_the_demo_model_sees(name, tmp_path):
    from slimsearch.demo import world
    from slimsearch.shelf import PACKAGE

    session = find("runtimes", name)().open(PACKAGE / "demo" / "model")
    right = []
    for n, one in enumerate(world.pictures("evaluation", 4, 3, 0)):
        one.image.save(tmp_path / f"{n}.png")
        for question in one.questions:
            tokens = said(session, question.text, tmp_path / f"{n}.png")
            tokens = [token for token in tokens if token not in session.end]
            right.append(session.text(tokens).strip() == question.answer)
    assert sum(right) / len(right) > 0.6, right
