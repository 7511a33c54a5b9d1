"""README's blocks, run in order in one folder as a reader would; only searches are made small."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from slimsearch.guest import host

REPO = Path(__file__).parents[1]
SMALL = "--rounds 1 --candidates 3 --finalists 1 --segments 8 --pair-count 16 --final-steps 2"


def blocks() -> list[tuple[str, str]]:
    """(language, content) of every fenced block."""
    return re.findall(r"```(\w+)\n(.*?)```", (REPO / "README.md").read_text("utf-8"), re.DOTALL)


def small(content: str) -> str:
    """Adds flags to what searches or prunes, so that the test takes seconds."""
    return re.sub(r"^(slimsearch (?:run|plan|prune) .*)$", rf"\1 {SMALL}", content, flags=re.M)


def runnable() -> list[tuple[str, str]]:
    """Blocks that a reader would run: not make, which would run this test again, and DeepSparse
    only where there is one."""
    return [
        (language, content)
        for language, content in blocks()
        if language in ("sh", "python")
        and not content.startswith("make ")
        and not ("deepsparse" in content and host.missing())
    ]


def test_readme_has_blocks_of_both_kinds() -> None:
    languages = [language for language, _ in runnable()]
    assert languages.count("sh") >= 3
    assert "python" in languages


def test_make_targets_that_the_readme_names_exist() -> None:
    named = {word for _, block in blocks() for word in re.findall(r"^make (\S+)", block, re.M)}
    named |= set(re.findall(r"`make (\S+)`", (REPO / "README.md").read_text("utf-8")))
    assert {"run", "test"} <= named
    makefile = (REPO / "Makefile").read_text("utf-8")
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.M), target


@pytest.mark.timeout(560)
def test_every_block_runs(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "HF_HUB_OFFLINE": "1"}
    for language, content in runnable():
        script = small(content)
        command = ["bash", "-euo", "pipefail", "-c", script]
        if language == "python":
            smaller = "segments=8, pair_count=16, final_steps=2,\n)"
            command = [sys.executable, "-c", script.replace("\n)", f"\n    {smaller}", 1)]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "exported" / "model.safetensors").is_file()
    assert (tmp_path / "exported-cpu" / "onnx" / "decoder_model_merged.onnx").is_file()
    assert (tmp_path / "pruned" / "slimsearch.json").is_file()
