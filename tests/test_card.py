"""Model cards: what the hub reads of them, and what a person does."""

from huggingface_hub import ModelCard

from slimsearch import card

FACTS = {
    "base": "llava-hf/llava-1.5-7b-hf", "license": "llama2", "sees": True, "ratio": 0.5,
    "sparsity": 0.5, "solver": "sparsegpt", "calibration": "ptb",
    "matrices": {f"blocks.{n}.{role}": 0.25 * n + 0.1 for n in (0, 1) for role in ("q", "up")},
    "policy": {"layer_sparsity": {"blocks.0": 0.1}},
    "table": [
        {"name": "dense", "sparsity": 0.0, "figures": {"perplexity": 5.0, "accuracy": 0.9}},
        {"name": "searched", "sparsity": 0.5, "figures": {"perplexity": 6.0, "accuracy": 0.8}},
    ],
    "fingerprint": {"settings": {"segments": 64, "seed": 0, "strategy": "surrogate"}},
    "exports": {"hf": {"about": "transformers loads it."}, "onnx": {"about": "Graphs."}},
}  # fmt: skip
EVALUATION = {
    "task": "scienceqa", "data": {"name": ""}, "count": 424,
    "choices": {"limit": 0, "partial": False},
    "figures": {"accuracy": {"value": 74.7642, "low": 70.5, "high": 78.8}},
}  # fmt: skip


def test_the_hub_reads_its_head():
    data = ModelCard(card.text(FACTS, [EVALUATION])).data
    assert data.base_model == "llava-hf/llava-1.5-7b-hf"
    assert (data.license, data.pipeline_tag) == ("llama2", "image-text-to-text")
    assert data.library_name == "transformers"
    found = {(one.dataset_type, one.metric_type): one.metric_value for one in data.eval_results}
    assert found == {
        ("held-out", "perplexity"): 6.0, ("held-out", "accuracy"): 0.8,
        ("scienceqa", "accuracy"): 74.7642,
    }  # fmt: skip


def test_a_person_reads_the_rest():
    text = card.text(FACTS, [EVALUATION])
    assert "50.0% of the weights" in text
    assert "| 1 | 0.350 | 0.350 |" in text
    assert "| calibration | ptb |" in text
    assert "| segments | 64 |" in text
    assert "| searched | 0.500 | 6 | 0.8 | - |" in text
    assert "| scienceqa | 424 | accuracy | 74.76 | 70.5 to 78.8 |" in text
    assert "AutoModelForImageTextToText.from_pretrained" in text
    assert "slimsearch generate FOLDER --image picture.png" in text
    assert "its licence, llama2, holds for them" in text


def test_a_local_text_only_model_without_a_licence(tmp_path):
    facts = {**FACTS, "base": str(tmp_path / "my-llama"), "license": "", "sees": False,
             "exports": {"onnx": {"about": "Graphs."}}}  # fmt: skip
    text = card.text(facts)
    data = ModelCard(text).data
    assert data.base_model is None
    assert data.pipeline_tag == "text-generation"
    assert data.library_name is None
    assert "from_pretrained" not in text.split("## How to run it")[1]
    assert str(tmp_path) not in text
    assert "names none; look at that model's own card" in text


def test_a_drawn_sample_is_said_to_be_one():
    drawn = {**EVALUATION, "choices": {"limit": 10, "partial": False}, "count": 10}
    data = ModelCard(card.text(FACTS, [drawn])).data
    assert data.eval_results[-1].dataset_name == "scienceqa, 10 questions"


def test_a_licence_is_found_in_a_head_alone():
    assert card.licence_in("---\nlicense: apache-2.0\ntags: []\n---\n# x") == "apache-2.0"
    assert card.licence_in("---\nlicense: 'mit'\n---") == "mit"
    assert card.licence_in("# x\nlicense: mit\n") == ""
    assert card.licence_in("---\ntags: []\n---\nlicense: mit\n") == ""
    assert card.licence_in("") == ""


def test_a_code_block_of_a_card_runs(tmp_path, monkeypatch):
    """Whoever pastes it gets an answer."""
    from slimsearch.demo import world
    from slimsearch.model import checkpoint

    world.pictures("evaluation", 1, 1, 0)[0].image.save(tmp_path / "picture.png")
    monkeypatch.chdir(tmp_path)
    block = card.text(FACTS).split("```python\n")[1].split("```")[0]
    said = []
    folder = str(checkpoint.find("demo").folder)
    exec(block.replace("FOLDER", folder), {"print": said.append})
    assert said
    assert said[0]
