"""Which key on disk holds which parameter, as transformers itself reads a checkpoint.

Several families were renamed since their checkpoints were written. What is saved bears the
checkpoint's names, so the renaming is looked up and turned round, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def on_disk(model: Any, keys: Iterable[str]) -> dict[str, str]:
    """Parameter -> key, for every key that is one parameter as it stands."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    changes = get_model_conversion_mapping(model)
    renamings = [change for change in changes if isinstance(change, WeightRenaming)]
    converters = [change for change in changes if isinstance(change, WeightConverter)]
    parameters, prefix = model.state_dict(), model.base_model_prefix
    found: dict[str, str] = {}
    for key in keys:
        name, fused = rename_source_key(key, renamings, converters, prefix, parameters)
        if name not in parameters and key in parameters:
            name, fused = rename_source_key(key, [], [], prefix, parameters)
        if fused is None and name in parameters:
            found[name] = key
    return found
