"""Decoding by Pillow: only formats of a list, limits before anything is decoded, one typed error for all that fails.

Pillow's own ``Image.open`` is not called: it knows formats that start other programs, and one limit for the process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple, TypeGuard

from pio.errors import ConfigError, MediaError, PioError
from pio.media.pixels import check_pixels
from pio.memory.refusal import memory_refused
from pio.tensor import Tensor

if TYPE_CHECKING:
    from PIL import Image as PilImage

Background = tuple[int, int, int]

_MODULES: Final = {
    "PNG": "PngImagePlugin",
    "JPEG": "JpegImagePlugin",
    "WEBP": "WebPImagePlugin",
    "GIF": "GifImagePlugin",
    "BMP": "BmpImagePlugin",
    "TIFF": "TiffImagePlugin",
    "PPM": "PpmImagePlugin",
}
_READABLE: Final = "PNG, JPEG, WebP, GIF, BMP, TIFF and binary PPM are read; convert it to one of these"
_LARGE: Final = 1 << 24  # pixels: a file that has more of them must have
_PER_BYTE: Final = 10_000  # fewer for each of its bytes, as every PNG, JPEG and GIF has
_HEAD: Final = 64  # bytes by which formats are told apart
_ORIENTATION: Final = 0x0112  # tag of EXIF
_STRIP: Final = 1 << 20  # pixels that are converted at once


class _Turn(NamedTuple):
    """What turns a picture upright.

    Attributes:
        name: As Pillow calls it.
        sideways: Whether columns become rows.
        from_end: Whether the last row or column becomes the first row.
    """

    name: str
    sideways: bool
    from_end: bool


# By the number in the EXIF block.
_TURNS: Final = {
    2: _Turn("FLIP_LEFT_RIGHT", False, False),
    3: _Turn("ROTATE_180", False, True),
    4: _Turn("FLIP_TOP_BOTTOM", False, True),
    5: _Turn("TRANSPOSE", True, False),
    6: _Turn("ROTATE_270", True, False),
    7: _Turn("TRANSVERSE", True, True),
    8: _Turn("ROTATE_90", True, True),
}


def is_pil(source: object) -> TypeGuard[PilImage.Image]:
    """Return whether this is a picture of Pillow; where it is, Pillow has been imported."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(source, module.Image)


def decode(stream: BinaryIO, where: str, decode_limit: int, background: Background | None) -> tuple[Tensor, str]:
    """Decode the first frame of a file, upright.

    Args:
        stream: The file, which can be sought in.
        where: What messages call it.
        decode_limit: The largest width * height.
        background: The colour to put it on where it has transparency, which is dropped where None.

    Returns:
        Pixels uint8 (height, width, 3), and the mode of Pillow in which they were stored.

    Raises:
        MediaError: Another format, more pixels, or damage.
        ConfigError: Pillow is not installed.
        OutOfMemoryError: Memory is refused.
    """
    with _decoding(where), _open(stream, where) as image:
        mode = image.mode
        check_pixels(where, image.height, image.width, decode_limit)
        _check_density(where, image.height * image.width, stream)
        image.load()
        turn = _TURNS.get(_orientation(image))
        if background is not None:
            return _pixels(image, lambda strip: _flatten(strip, background), turn), mode
        return _pixels(image, _without_alpha, turn), mode


def of_pil(
    image: PilImage.Image, name: str, decode_limit: int, background: Background | None = None
) -> tuple[Tensor, str]:
    """Return what a picture of Pillow shows, put on white where it has alpha; arguments and errors as in ``decode``."""
    where = f"{name} (a picture of Pillow)"
    check_pixels(where, image.height, image.width, decode_limit)
    under = background or (255, 255, 255)
    with _decoding(where):
        return _pixels(image, lambda strip: _flatten(strip, under)), image.mode


def _pillow() -> Any:
    """Return the module PIL.Image."""
    try:
        return import_module("PIL.Image")
    except ImportError as error:
        raise ConfigError(f"pictures need Pillow ({error}): pip install pillow") from error


@contextmanager
def _decoding(where: str) -> Generator[None]:
    """Raise a MediaError in the place of whatever Pillow raises of a damaged picture."""
    try:
        yield
    except PioError:
        raise
    except Exception as error:
        refused = memory_refused(error, f"decoding {where}")
        if refused is not None:
            raise refused from error
        reason = f"{type(error).__name__}: {error}"[:160]
        raise MediaError(f"{where} cannot be decoded ({reason}); it is damaged, get or save it again") from error


def _open(stream: BinaryIO, where: str) -> PilImage.Image:
    """Read a file's header."""
    image = _pillow()
    head = stream.read(_HEAD)
    for name, module in _MODULES.items():
        import_module(f"PIL.{module}")
        factory, accept = image.OPEN[name]
        plain = name == "PPM" and head[1:2] not in (b"4", b"5", b"6")  # numbers as text, which take minutes
        if accept is None or accept(head[:16]) is not True or plain:
            continue
        stream.seek(0)
        return factory(stream, "")
    raise MediaError(f"{where} is {_guess(head)}: {_READABLE}")


def _check_density(where: str, pixels: int, stream: BinaryIO) -> None:
    """Refuse few bytes that say they are millions of pixels: decoders take seconds and gigabytes to find out."""
    place = stream.tell()
    size = stream.seek(0, os.SEEK_END)
    stream.seek(place)
    if pixels > max(_LARGE, _PER_BYTE * size):
        raise MediaError(f"{where} has {pixels} pixels in {size} bytes: it is damaged or a decompression bomb")


def _guess(head: bytes) -> str:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<svg", b"<?xml")):
        return "a drawing in SVG, or other XML"
    if start.startswith((b"<!doc", b"<html")):
        return "a web page"
    for begin, what in ((b"%pdf", "a PDF"), (b"%!ps", "PostScript"), (b"pk\x03\x04", "a ZIP archive")):
        if start.startswith(begin):
            return what
    if head[4:8] == b"ftyp":
        return "HEIC, AVIF or a video"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return "text"
    return "no picture of a format that is read"


def _orientation(image: PilImage.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1  # a damaged EXIF block beside whole pixels


def _without_alpha(image: PilImage.Image) -> PilImage.Image:
    """Drop the transparency of a picture; one colour that is clear is put on white, as transformers does."""
    if isinstance(image.info.get("transparency"), bytes):
        image.info.pop("transparency")  # which Pillow would warn of
    flat = _red_green_blue(image)
    clear = flat.info.get("transparency") is not None
    return _flatten(flat, (255, 255, 255)) if clear else flat


def _flatten(image: PilImage.Image, background: Background) -> PilImage.Image:
    """Put a picture on a colour, where it has transparency."""
    if "A" not in image.getbands() and image.info.get("transparency") is None:
        return _red_green_blue(image)
    pillow = _pillow()
    under = pillow.new("RGBA", image.size, (*background, 255))
    return pillow.alpha_composite(under, image.convert("RGBA")).convert("RGB")


def _red_green_blue(image: PilImage.Image) -> PilImage.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


def _pixels(
    image: PilImage.Image, flat: Callable[[PilImage.Image], PilImage.Image], turn: _Turn | None = None
) -> Tensor:
    """Return the pixels of a picture, upright, each strip made red, green and blue alone: no copy of it all exists."""
    width, height = image.size
    rows, columns = (width, height) if turn and turn.sideways else (height, width)
    out = Tensor.empty((rows, columns, 3), "uint8")
    to, tall = out.memoryview().cast("B"), max(1, _STRIP // columns)
    for first in range(0, rows, tall):
        last = min(rows, first + tall)
        begin, end = (rows - last, rows - first) if turn and turn.from_end else (first, last)
        box = (begin, 0, end, height) if turn and turn.sideways else (0, begin, width, end)
        strip = flat(image.crop(box))
        if turn is not None:
            strip = strip.transpose(_pillow().Transpose[turn.name])
        to[3 * columns * first : 3 * columns * last] = strip.tobytes()
    return out
