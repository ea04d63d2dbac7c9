"""A picture in memory, and opening one from whatever callers have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from pio.dtypes import uint8
from pio.errors import ConfigError, MediaError
from pio.media.decoding import decode, is_pil, of_pil
from pio.media.pixels import of_tensor
from pio.media.source import is_source, open_source
from pio.tensor import Tensor

# Pixels: the largest sensors of telephones, 108 million, still fit, and decoding takes no more than 7 bytes each, 1 GB.
DECODE_LIMIT: Final = 1 << 27
MAX_BYTES: Final = 1 << 28


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that is decoded.

    Attributes:
        pixels: uint8 (height, width, 3), contiguous; red, green, blue. It may be read-only.
        mode: What it was before, such as ``"RGB"``, ``"L"`` or ``"CMYK"``, as Pillow names it.
    """

    pixels: Tensor
    mode: str = "RGB"

    def __post_init__(self) -> None:
        """Raise a MediaError where the pixels are none."""
        x = self.pixels
        if x.dtype is not uint8 or x.ndim != 3 or x.shape[2] != 3 or not x.size or not x.is_contiguous:
            raise MediaError(
                f"a picture's pixels are {x.dtype} of shape {x.shape}, expected contiguous uint8 (height, width, 3); "
                "pio.media.picture.open_picture makes a picture of other tensors"
            )


def open_picture(
    source: Any,
    *,
    name: str = "image",
    decode_limit: int = DECODE_LIMIT,
    max_bytes: int = MAX_BYTES,
    background: tuple[int, int, int] | None = None,
    allow_remote: Sequence[str] = (),
) -> Picture:
    """Open a picture: PNG, JPEG, WebP, GIF, BMP, TIFF or binary PPM, of an animation the first frame.

    What a camera's EXIF block says of its orientation is done. Transparency is dropped, as transformers does with a
    picture that is given by its path; a picture of Pillow or a tensor with alpha is put on white, as it does with
    those. Grey of 16 bits is cut at 255.

    Args:
        source: A path, ``file://`` or ``data:`` URI, the bytes of a file, a picture of Pillow, a uint8 tensor or
            float32 tensor from 0 to 1 of shape (height, width) or (height, width, 1, 3 or 4), an open ``Picture``, or
            an address that ``allow_remote`` covers.
        name: What messages call it.
        decode_limit: The largest width * height; looked at before anything is decoded. How large a model sees the
            picture is another limit, ``max_pixels``.
        max_bytes: The largest file.
        background: The colour to put a picture with transparency on, red, green and blue from 0 to 255.
        allow_remote: Addresses on the network that may be asked, by what they begin with:
            ``["https://example.com/pictures/"]``. Others are not, nor where one of these leads to another.

    Raises:
        MediaError: There is no such picture, it is damaged, too large, of another format, or may not be read.
        ConfigError: The source is of no known kind, or an argument cannot be used.
        OutOfMemoryError: Memory is refused.
    """
    _check_background(background, name)
    if isinstance(source, Picture):
        return source
    if isinstance(source, Tensor):
        return Picture(*of_tensor(source, name, decode_limit, background))
    if is_pil(source):
        return Picture(*of_pil(source, name, decode_limit, background))
    if not is_source(source):
        raise ConfigError(
            f"{name} is a {type(source).__name__}, expected a path, bytes, a data: URI, a PIL.Image.Image or a "
            "pio.Tensor; make one of an array with pio.Tensor.from_buffer"
        )
    stream, where = open_source(source, name, max_bytes, allow_remote)
    with stream:
        return Picture(*decode(stream, where, decode_limit, background))


def _check_background(background: object, name: str) -> None:
    if background is None:
        return
    numbers = cast("Sequence[object]", background) if isinstance(background, (tuple, list)) else ()
    if len(numbers) != 3 or not all(type(v) is int and 0 <= v <= 255 for v in numbers):
        raise ConfigError(f"{name}: background is {background!r}, expected three numbers from 0 to 255")
