"""The shipped demo model is an ordinary Hugging Face folder that answers and reads well."""

from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor, LlavaForConditionalGeneration

import slimsearch.demo
from slimsearch.api import pruning
from slimsearch.demo.measure import accuracy, perplexity
from slimsearch.demo.recipe import IGNORED, make_model, picture_rows
from slimsearch.demo.train import Plan, train
from slimsearch.demo.world import PICTURE_SIZE, pictures, text
from slimsearch.searching.watch import Watch
from slimsearch.settings import Settings

FOLDER = Path(slimsearch.demo.__file__).parent / "model"
pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own, on load


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model():
    return LlavaForConditionalGeneration.from_pretrained(FOLDER, dtype=torch.float32).eval()


def test_the_folder_is_small_and_complete():
    names = {file.name for file in FOLDER.iterdir()}
    assert {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "processor_config.json",
        "preprocessor_config.json",
        "chat_template.jinja",
        "README.md",
    } <= names
    assert sum(file.stat().st_size for file in FOLDER.glob("*.safetensors")) <= 8_000_000


def test_the_weights_are_whole_and_finite(model):
    layers = model.get_decoder().layers
    assert len(layers) >= 6
    assert all(weight.isfinite().all() for weight in model.parameters())
    widths = {
        module.in_features for module in model.modules() if isinstance(module, torch.nn.Linear)
    }
    assert all(width % 32 == 0 for width in widths)


def test_pictures_and_prompts_become_one_row(processor, model):
    picture = pictures("evaluation", 1, 1)[0]
    inputs = processor(
        images=picture.image, text="USER: <image>\nWhat is this? ASSISTANT:", return_tensors="pt"
    )
    visual = inputs["input_ids"] == model.config.image_token_index
    assert inputs["pixel_values"].shape == (1, 3, PICTURE_SIZE, PICTURE_SIZE)
    assert visual.sum() == model.config.image_seq_length


def test_the_chat_template_is_what_the_model_was_trained_on(processor):
    picture = pictures("evaluation", 1, 3)[0]
    messages = []
    for question in picture.questions:
        said = [{"type": "text", "text": question.text}]
        shown = [] if messages else [{"type": "image"}]
        messages += [
            {"role": "user", "content": shown + said},
            {"role": "assistant", "content": [{"type": "text", "text": question.answer}]},
        ]
    prompt = processor.apply_chat_template(messages)
    first = picture.questions[0]
    assert prompt.startswith(f"<s>USER: <image>\n{first.text} ASSISTANT: {first.answer}</s>USER: ")
    inputs = processor(images=picture.image, text=prompt, return_tensors="pt")
    rows = picture_rows([picture], processor.tokenizer)
    assert torch.equal(inputs["input_ids"], rows.tokens)
    assert torch.allclose(inputs["pixel_values"], rows.pixels, atol=1e-5)
    learned = rows.labels[rows.labels != IGNORED]
    assert processor.tokenizer.decode(learned).split("</s>")[:-1] == [
        f" {question.answer}" for question in picture.questions
    ]


@pytest.mark.parametrize(
    "words", ["Grüße, 世界! 🦆", "def f(x):\n\treturn x ** 2", "  two  spaces "]
)
def test_any_text_survives_the_tokenizer(processor, words):
    tokens = processor.tokenizer(words)["input_ids"]
    assert processor.tokenizer.unk_token_id not in tokens
    assert processor.tokenizer.decode(tokens, clean_up_tokenization_spaces=False) == words


def test_unseen_pictures_are_answered(model, processor):
    shares = accuracy(model, processor, pictures("evaluation", 60, 3, seed=1))
    assert shares["all"] >= 0.90, shares


def test_unseen_text_is_read(model, processor):
    tokenizer = processor.tokenizer
    assert perplexity(model, tokenizer, text("evaluation", 1500, seed=1)) < 4
    scrambled = " ".join(sorted(text("evaluation", 1500, seed=1).split()))
    assert perplexity(model, tokenizer, scrambled) > 20


@pytest.mark.slow
def test_training_writes_a_folder_that_loads(tmp_path):
    train(Plan(tmp_path / "model", seed=1, steps=3, vision_steps=2, text_words=2000))
    again = LlavaForConditionalGeneration.from_pretrained(
        tmp_path / "model", dtype=torch.float32
    ).eval()
    fresh = make_model(1).state_dict()
    moved = [
        not torch.equal(weight, fresh[name].bfloat16().float())
        for name, weight in again.state_dict().items()
    ]
    assert sum(moved) > len(moved) * 0.8  # a norm of 1 moves less than bfloat16 can show
    processor = AutoProcessor.from_pretrained(tmp_path / "model")
    shares = accuracy(again, processor, pictures("evaluation", 2, 3))
    assert 0 <= shares["all"] <= 1


def test_it_is_a_fair_patient(tmp_path):
    """Uniform SparseGPT as published, calibrated on text alone, costs it 10 points at 0.6."""
    settings = Settings(ratio=0.6, policy="uniform", objective="paper")
    dense, pruned = pruning.prune(settings, tmp_path / "pruned", Watch()).table
    assert dense.figures["accuracy"] >= 0.90
    assert dense.figures["accuracy"] - pruned.figures["accuracy"] >= 0.10
