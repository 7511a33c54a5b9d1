"""Nothing leaves this machine by itself: the telemetry of everything that we import is off.

Each library reads its switch when it is imported, so this runs first, in `slimsearch/__init__.py`.
Whoever has set one of these already keeps their own choice.
"""

import os
import sys
from typing import Any

SWITCHES = {
    "DO_NOT_TRACK": "1",  # whoever honours donottrack.sh, Hugging Face among them
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, transformers, datasets
    "DISABLE_SAFETENSORS_CONVERSION": "1",  # transformers asks the hub to convert pickled weights
    "NM_DISABLE_ANALYTICS": "1",  # deepsparse
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_PROMPT_ENABLED": "0",
}


def silence() -> None:
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)


def import_openvino() -> Any:
    """openvino without its telemetry package, which reports every import and has no switch."""
    had = sys.modules.get("openvino_telemetry")
    sys.modules["openvino_telemetry"] = None  # pyright: ignore[reportArgumentType]  refuses it
    try:
        import openvino
    finally:
        del sys.modules["openvino_telemetry"]
        if had is not None:
            sys.modules["openvino_telemetry"] = had
    return openvino
