import json
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def paint(here: Path):
    """Writes a small picture whose colour, and so whose content, follows from its number."""

    def write(name: str, number: int = 0) -> Path:
        file = here / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (number % 256, number // 256, 7)).save(file)
        return file

    return write


def llava(number: int, **changes: object) -> dict:
    said = [
        {"from": "human", "value": f"<image>\nWhat is {number}?"},
        {"from": "gpt", "value": f"It is {number}."},
    ]
    return {"id": f"id{number}", "image": f"{number}.png", "conversations": said} | changes


@pytest.fixture
def records(here: Path, paint):
    """Writes `count` sound LLaVA-style records with their pictures, and others after them."""

    def write(count: int, *others: object) -> str:
        for number in range(count):
            paint(f"images/{number}.png", number)
        items = [*(llava(number) for number in range(count)), *others]
        (here / "pairs.json").write_text(json.dumps(items))
        return "pairs.json"

    return write
