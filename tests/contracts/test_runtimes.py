"""Every file in runtimes/ against the contract of a runtime, and transformers' own generate."""

import shutil

import numpy as np
import pytest
import tiny
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    LlavaForConditionalGeneration,
)

from slimsearch.api import exporting, generating
from slimsearch.api.exporting import Choices
from slimsearch.api.generating import Speaker, Talk
from slimsearch.contracts import Runtime
from slimsearch.errors import InputError, ModelError
from slimsearch.plugins import about, find, names
from slimsearch.shelf import PACKAGE

RUNTIMES = names("runtimes")
every_runtime = pytest.mark.parametrize("name", RUNTIMES)
STEPS = 8
ROOM = 192  # of a cache that is fixed; the most that a test here reads
QUESTION = "What colour is it?"
MODELS = {
    "llava": (tiny.llava, {}),
    "as 1.5": (
        tiny.llava,
        {"dtype": torch.bfloat16, "shards": 2, "old_names": True, "kv_heads": 2},
    ),
    "tied": (tiny.llava, {"tied": True, "kv_heads": 1}),
    "llama": (tiny.llama, {"kv_heads": 2}),
}


class Exports:
    """Models as every runtime takes them: each written once, and opened once in each engine."""

    def __init__(self, folder):
        self.folder = folder
        self.speakers: dict[tuple[str, str], Speaker] = {}

    def source(self, model: str):
        if model == "demo":
            return PACKAGE / "demo" / "model"
        make, choices = MODELS[model]
        place = self.folder / "sources" / model
        return place if place.exists() else make(place, **choices)

    def export(self, model: str, runtime: str):
        form = find("runtimes", runtime).forms[0]
        place = self.folder / form / model
        if not place.exists():
            exporting.export(str(self.source(model)), [form], place, Choices(room=ROOM))
        return place

    def speaker(self, model: str, runtime: str) -> Speaker:
        """One that stays open, for some engines compile for seconds; it has heard others before."""
        if (model, runtime) not in self.speakers:
            folder = self.export(model, runtime)
            self.speakers[model, runtime] = generating.open(folder, runtime)[1]
        return self.speakers[model, runtime]


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    made = Exports(tmp_path_factory.mktemp("exports"))
    yield made
    for speaker in made.speakers.values():
        speaker.session.close()


@pytest.fixture
def opened(exports):
    """A model in an engine."""

    def opened(name: str, model: str = "llava") -> Speaker:
        if reason := find("runtimes", name)().absent():
            pytest.skip(reason)
        return exports.speaker(model, name)

    return opened


def said(speaker: Speaker, question: str, picture, steps: int = STEPS) -> list[int]:
    (answer,) = speaker.ask([Talk(picture)], [question], steps)
    return list(answer.tokens)


def generated(folder, turns: list[str], shown) -> list[int]:
    """What transformers' generate says to the last of a conversation's turns."""
    processor = AutoProcessor.from_pretrained(folder)
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    messages = []
    for number, text in enumerate(turns):
        role = "assistant" if number % 2 else "user"
        picture = [] if number or shown is None else [{"type": "image"}]
        messages.append({"role": role, "content": [*picture, {"type": "text", "text": text}]})
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
    ids = processor(images=shown, text=prompt, return_tensors="pt", add_special_tokens=False)
    made = model.generate(**ids, max_new_tokens=STEPS, do_sample=False)
    return [n for n in made[0, ids["input_ids"].shape[1] :].tolist() if n != tiny.END]


def test_all_are_found():
    assert set(RUNTIMES) >= {"torch"}
    assert all(about("runtimes", name) for name in RUNTIMES)
    assert all(issubclass(find("runtimes", name), Runtime) for name in RUNTIMES)
    assert all(set(find("runtimes", name).forms) <= set(names("exporters")) for name in RUNTIMES)


@every_runtime
@pytest.mark.parametrize("model", [model for model in MODELS if model != "llama"])
@pytest.mark.parametrize("number", [0, 5])
def test_greedy_tokens_are_those_of_generate(opened, exports, pairs_file, name, model, number):
    picture = pairs_file.parent / f"{number}.png"
    wanted = generated(exports.source(model), [QUESTION], tiny.picture(number))
    assert said(opened(name, model), QUESTION, picture) == wanted


@every_runtime
def test_logits_are_torchs(opened, pairs_file, name):
    """Of a prompt with a picture and of three tokens after it, within 1e-3 relative."""
    ids = np.array([[tiny.BEGIN, *[tiny.IMAGE] * tiny.VISUAL_TOKENS, 40, 50, 60]])
    pixels = np.random.default_rng(0).standard_normal(
        (1, 3, tiny.PICTURE_SIZE, tiny.PICTURE_SIZE), np.float32
    )
    found = {}
    for one in ("torch", name):
        session = opened(one).session
        session.forget()
        embeds = np.array(session.embed(ids))
        embeds[ids == tiny.IMAGE] = session.see(pixels)[0]
        every = [session.step(embeds, np.ones_like(ids), np.arange(ids.shape[1])[None])]
        for extra in range(3):
            length = ids.shape[1] + extra + 1
            token = session.embed(np.array([[70 + extra]]))
            every.append(
                session.step(token, np.ones((1, length), np.int64), np.array([[length - 1]]))
            )
        found[one] = np.concatenate(every)
    assert found[name].shape == (4, tiny.VOCABULARY)
    assert np.abs(found[name] - found["torch"]).max() < 1e-3 * np.abs(found["torch"]).max()


@every_runtime
def test_a_batch_says_what_each_says_alone(opened, pairs_file, name):
    """Questions of different lengths are padded on the left, and one has no picture."""
    questions = [QUESTION, "red?", "And around that, in the whole picture? And more?", "blue"]
    pictures = [pairs_file.parent / f"{n}.png" for n in (0, 3, 5)]
    speaker = opened(name)
    alone = [
        said(speaker, question, picture)
        for question, picture in zip(questions, [*pictures, None], strict=True)
    ]
    together = speaker.ask([Talk(p) for p in (*pictures, None)], questions, STEPS)
    assert [list(answer.tokens) for answer in together] == alone


@every_runtime
def test_further_turns_are_generates_too(opened, exports, pairs_file, name):
    questions = [QUESTION, "And around that?", "red or blue?"]
    talks = [Talk(pairs_file.parent / f"{n}.png") for n in (2, 4)]
    speaker = opened(name, "as 1.5")
    turns: list[list[str]] = [[], []]
    for question in questions:
        answers = speaker.ask(talks, [question, question + " And more?"], STEPS)
        for row, (answer, more) in enumerate(zip(answers, ("", " And more?"), strict=True)):
            turns[row].append(question + more)
            shown = tiny.picture((2, 4)[row])
            assert list(answer.tokens) == generated(exports.source("as 1.5"), turns[row], shown)
            turns[row].append(answer.text)


@every_runtime
def test_another_question_starts_afresh(opened, pairs_file, name):
    """A session's cache holds nothing of the question before."""
    picture = pairs_file.parent / "2.png"
    speaker = opened(name)
    first = said(speaker, QUESTION, picture)
    said(speaker, "And around that?", pairs_file.parent / "3.png")
    assert said(speaker, QUESTION, picture) == first


@every_runtime
def test_text_alone(opened, exports, name):
    folder = exports.source("llama")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = AutoTokenizer.from_pretrained(folder)("the red square", return_tensors="pt")
    made = model.generate(
        input_ids=ids["input_ids"], attention_mask=ids["attention_mask"],
        max_new_tokens=STEPS, do_sample=False,
    )  # fmt: skip
    wanted = made[0, ids["input_ids"].shape[1] :].tolist()
    assert said(opened(name, "llama"), "the red square", None) == wanted


@every_runtime
def test_a_text_model_refuses_pictures(opened, pairs_file, name):
    with pytest.raises(InputError, match="reads text only"):
        said(opened(name, "llama"), "red", pairs_file.parent / "0.png")


@every_runtime
def test_room_is_kept(opened, name):
    """A prompt that fills the model is refused; an answer ends where the room does."""
    speaker = opened(name, "llama")
    room = speaker.session.room
    with pytest.raises(InputError, match=rf"makes \d+ tokens.* {room} in all"):
        said(speaker, "red " * room, None)
    words, count = "red", 0
    while count < room - 6:
        words += " red"
        count = len(tiny.tokenizer()(words)["input_ids"])
    assert len(said(speaker, words, None, 50)) <= room - count


@every_runtime
def test_a_folder_without_its_form_is_refused(opened, exports, name, tmp_path):
    opened(name)
    form = find("runtimes", name).forms[0]
    folder = shutil.copytree(exports.export("llava", name), tmp_path / "copy")
    shutil.rmtree(folder / form, ignore_errors=True)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(ModelError, match=f"--to {form}"):
        generating.open(folder, name)


@every_runtime
def test_the_demo_model_sees(opened, name, tmp_path):
    from slimsearch.demo import world

    speaker = opened(name, "demo")
    right = []
    for n, one in enumerate(world.pictures("evaluation", 4, 3, 0)):
        one.image.save(tmp_path / f"{n}.png")
        for question in one.questions:
            (answer,) = speaker.ask([Talk(tmp_path / f"{n}.png")], [question.text], STEPS)
            right.append(answer.text == question.answer)
    assert sum(right) / len(right) > 0.6, right
