"""Shared by all tests: no hub, one thread, tiny models and data made once for a session."""

import os

for _name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
    os.environ[_name] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from pathlib import Path  # noqa: E402

import torch  # noqa: E402

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is first imported

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import tiny  # noqa: E402

from slimsearch.calibration import Pair, Turn  # noqa: E402
from slimsearch.model import checkpoint, conversation, loading, vlm  # noqa: E402
from slimsearch.settings import Settings  # noqa: E402

torch.set_num_threads(1)
# The same examples every time: what lands has passed exactly what runs.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.load_profile("fixed")
TURNS = (Turn("What colour is it?", "red"), Turn("And around that?", "blue and more"))


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """Where the tiny models of this session stand."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def llava(models: Path) -> Path:
    return tiny.llava(models / "llava")


@pytest.fixture(scope="session")
def llama(models: Path) -> Path:
    return tiny.llama(models / "llama")


@pytest.fixture(scope="session")
def llava_16(models: Path) -> Path:
    """As LLaVA 1.5 comes: bf16, two shards, old names, and GQA on top."""
    return tiny.llava(
        models / "llava16", dtype=torch.bfloat16, shards=2, old_names=True, kv_heads=2
    )


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory) -> Path:
    return tiny.pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="session")
def text_file(tmp_path_factory) -> Path:
    return tiny.text(tmp_path_factory.mktemp("text") / "prose.txt")


@pytest.fixture
def small(llava: Path, pairs_file: Path, text_file: Path) -> Settings:
    """A search of seconds."""
    return tiny.settings(llava, pairs_file, text_file)


@pytest.fixture
def load():
    """Opens a model folder as a VLM."""

    def opened(folder: Path, dtype: str = "float32") -> vlm.VLM:
        return loading.load(checkpoint.find(str(folder)), "cpu", dtype)

    return opened


@pytest.fixture
def seen(load, llava: Path):
    """A tiny LLaVA with its speech."""
    model = load(llava)
    return model, conversation.load(model.checkpoint)


@pytest.fixture
def batches(seen):
    model, speech = seen
    """Texts and pairs of a tiny LLaVA, with padding among them."""
    ids = torch.randint(5, tiny.VOCABULARY, (6, 32), generator=torch.Generator().manual_seed(0))
    pairs = [Pair(str(n), tiny.picture(n), TURNS[: 1 + n % 2]) for n in range(4)]
    texts = conversation.text_batches(ids, model.device, 70)
    return [*texts, *conversation.pair_batches(model, speech, pairs, 150)]
