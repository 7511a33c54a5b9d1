"""Opens a picture file, or says which one is missing, damaged, too large or no picture at all."""

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from slimsearch.errors import CalibrationError

MOST_PIXELS = 50_000_000
MOST_STRETCH = 200  # times as long as wide: scaled to a given width it would become endless
MOST_BYTES = 256 << 20  # of the file, whatever follows the picture in it
WIDE = ("I", "F")  # modes of pixels whose darkest and brightest nobody says
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # others may start outside programs


def check_picture(file: Path, origin: str) -> str:
    """Reads the picture from end to end; the hash of its file is its identity."""
    with _refused(file, origin):
        with _opened(file, origin) as picture:
            picture.verify()
        with _opened(file, origin) as picture:  # verify() misses what is cut off
            _rgb(picture)
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


def load_picture(file: Path, origin: str) -> Image.Image:
    """The picture as RGB; `origin` names its record in an error."""
    with _refused(file, origin), _opened(file, origin) as picture:
        return _rgb(picture)


def _rgb(picture: Image.Image) -> Image.Image:
    """As RGB. Of grey in 16 bits Pillow would make white of all above 255."""
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
    return picture.convert("RGB")


def _opened(file: Path, origin: str) -> Image.Image:
    """The picture with only its header read, which is enough to refuse a decompression bomb."""
    if file.stat().st_size > MOST_BYTES:
        raise _too_large(file, origin, f"is larger than {MOST_BYTES >> 20} MiB")
    if not file.is_file():
        raise CalibrationError(
            f"{origin}: {file} is a folder, pipe or device and no picture. Give a picture's file, "
            f"or drop the record."
        )
    picture = Image.open(file, formats=FORMATS)
    size = f"{picture.width} x {picture.height}"
    if picture.width * picture.height > MOST_PIXELS:
        picture.close()
        raise _too_large(
            file, origin, f"has {size}; {MOST_PIXELS // 1_000_000} million pixels are the most"
        )
    if max(picture.size) > MOST_STRETCH * min(picture.size):
        picture.close()
        raise CalibrationError(
            f"{origin}: the picture {file} has {size} pixels: one side is more than "
            f"{MOST_STRETCH} times the other. Cut it or drop the record."
        )
    if picture.mode in WIDE:
        picture.close()
        raise CalibrationError(
            f"{origin}: the picture {file} has pixels of 32 bits (mode {picture.mode}), and no "
            f"word says which of them are white. Save it in 8 or 16 bits or drop the record."
        )
    return picture


@contextmanager
def _refused(file: Path, origin: str) -> Iterator[None]:
    """Turns whatever a decoder throws into an error that names the record and the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata does no harm; size is checked by us
            yield
    except CalibrationError:
        raise
    except FileNotFoundError:
        raise CalibrationError(f"{origin}: there is no picture {file}. Put it there.") from None
    except PermissionError as error:
        raise CalibrationError(
            f"{origin}: the picture {file} cannot be read: {error.strerror}. Give yourself the "
            f"right to it (chmod) or drop the record."
        ) from None
    except Image.DecompressionBombError:
        most = f"{MOST_PIXELS // 1_000_000} million pixels are the most"
        raise _too_large(file, origin, f"is a decompression bomb; {most}") from None
    except Image.UnidentifiedImageError:
        raise CalibrationError(
            f"{origin}: {file} is no picture that can be read ({', '.join(FORMATS)}). "
            f"Convert or replace it, or drop the record."
        ) from None
    except Exception as error:  # a damaged file can make a decoder fail in any way
        raise CalibrationError(
            f"{origin}: the picture {file} is damaged or cut short ({error}). Replace it or drop "
            f"the record."
        ) from None


def _too_large(file: Path, origin: str, found: str) -> CalibrationError:
    return CalibrationError(
        f"{origin}: the picture {file} {found}. Scale it down or drop the record."
    )
