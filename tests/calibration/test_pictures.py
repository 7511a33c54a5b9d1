import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slimsearch.calibration.pictures import check_picture, load_picture
from slimsearch.errors import CalibrationError

ORIGIN = "pairs.json, record 3 (id x)"


def noise(size: int = 64) -> Image.Image:
    return Image.effect_noise((size, size), 90)


def bomb(file: Path, side: int) -> None:
    """A PNG of a few bytes whose header promises side x side pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b""))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif"])
def test_pictures_of_every_kind_become_rgb(here: Path, suffix: str):
    noise().save(here / f"a.{suffix}")
    assert len(check_picture(here / f"a.{suffix}", ORIGIN)) == 64
    assert load_picture(here / f"a.{suffix}", ORIGIN).mode == "RGB"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_pictures_of_every_mode_become_rgb(here: Path, mode: str):
    Image.new(mode, (4, 4)).save(here / "a.png")
    check_picture(here / "a.png", ORIGIN)
    assert load_picture(here / "a.png", ORIGIN).mode == "RGB"


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits_of_grey_keep_their_shades(here: Path, suffix: str):
    shades = np.arange(256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(shades * 257).save(here / f"a.{suffix}")
    check_picture(here / f"a.{suffix}", ORIGIN)
    shown = np.asarray(load_picture(here / f"a.{suffix}", ORIGIN))
    assert (shown == shades[..., None]).all()


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_pixels_of_unknown_brightness_are_refused(here: Path, kind: type):
    Image.fromarray(np.ones((4, 4), kind)).save(here / "a.tiff")
    for opens in (check_picture, load_picture):
        with pytest.raises(CalibrationError, match=r"record 3 .*a\.tiff has pixels of 32 bits"):
            opens(here / "a.tiff", ORIGIN)


def test_odd_transparency_is_no_matter(here: Path):
    Image.new("P", (4, 4)).save(here / "a.png", transparency=b"\x00\x80")
    check_picture(here / "a.png", ORIGIN)
    assert load_picture(here / "a.png", ORIGIN).mode == "RGB"


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_picture_cut_short_is_refused(here: Path, suffix: str, share: float):
    file = here / f"a.{suffix}"
    noise(256).save(file)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CalibrationError, match=r"damaged or cut short|no picture that") as refusal:
        check_picture(file, ORIGIN)
    assert str(refusal.value).startswith(ORIGIN)
    assert str(file) in str(refusal.value)


@pytest.mark.parametrize("content", [b"", b"words", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_what_is_no_picture_is_refused(here: Path, content: bytes):
    (here / "a.png").write_bytes(content)
    with pytest.raises(CalibrationError, match=r"record 3 \(id x\): .*a\.png is no picture"):
        check_picture(here / "a.png", ORIGIN)


@pytest.mark.parametrize("side", [7_100, 10_000, 50_000])
def test_a_decompression_bomb_is_refused(here: Path, side: int):
    bomb(here / "a.png", side)
    with pytest.raises(CalibrationError, match=r"record 3 .*50 million pixels are the most"):
        check_picture(here / "a.png", ORIGIN)


def test_a_folder_and_a_pipe_are_refused_unopened(here: Path):
    (here / "a.png").mkdir()
    os.mkfifo(here / "b.png")
    for name in ("a.png", "b.png"):
        with pytest.raises(CalibrationError, match=rf"{name} is a folder, pipe or device"):
            load_picture(here / name, ORIGIN)


def test_a_missing_picture_is_refused(here: Path):
    with pytest.raises(CalibrationError, match="there is no picture"):
        load_picture(here / "a.png", ORIGIN)
