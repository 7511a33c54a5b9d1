"""Imported once by the server that forks the victims: everything slow to import or to read.

Nothing here runs a gradient: torch cannot go on with those in a fork.
"""

import os
import tempfile
from pathlib import Path

for _name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
    os.environ[_name] = "1"

import tiny  # noqa: E402
import torch  # noqa: E402

from slimsearch.api import inputs, runs  # noqa: E402, F401
from slimsearch.model import checkpoint, loading  # noqa: E402
from slimsearch.strategies import genetic  # noqa: E402, F401

torch.set_num_threads(1)

with tempfile.TemporaryDirectory() as _folder:
    _place = Path(_folder)
    _model = tiny.llava(_place / "model")
    _settings = tiny.settings(_model, tiny.pairs(_place / "pairs"), tiny.text(_place / "a.txt"))
    inputs.gather(_settings)
    loading.load(checkpoint.find(str(_model)), "cpu", "auto")
