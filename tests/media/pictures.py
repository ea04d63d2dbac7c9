"""Pictures that tests make: files of each format, and files that are damaged on purpose."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import pytest

Image = pytest.importorskip("PIL.Image", reason="Pillow, which pio's extra vision installs")

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")


def gradient(width: int = 37, height: int = 23, mode: str = "RGB") -> Any:
    """A picture in which no two rows and no two columns are alike."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    data = bytes(
        (7 * x * (b + 1) + 11 * y + x * y) % 256 for y in range(height) for x in range(width) for b in range(bands)
    )
    return Image.frombytes(mode, (width, height), data)


def file_of(picture: Any, format: str, **how: Any) -> bytes:
    """The bytes of a file."""
    out = io.BytesIO()
    picture.save(out, format, **how)
    return out.getvalue()


def opened(data: bytes) -> Any:
    """What transformers makes of a picture that is given by its path."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")


def chunk(kind: bytes, data: bytes, checksum: int | None = None) -> bytes:
    """One chunk of a PNG."""
    check = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def png(width: int, height: int, *more: bytes, bits: int = 8, color: int = 0, rows: bytes | None = None) -> bytes:
    """A PNG that says this size; its pixels are what they are."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0))
    data = bytes((width + 1) * height) if rows is None else rows
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
