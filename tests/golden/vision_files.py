"""Writes the small picture files whose formats matter: each is 29 × 23, or 23 × 29 where a camera was turned."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from PIL import Image
from vision_pictures import picture, pixels

WIDTH, HEIGHT = 29, 23
ORIENTATION = 0x0112


def write_files(folder: Path) -> None:
    """Write all of them. JPEGs keep every pixel's colour but one, so that decoders agree about them."""
    folder.mkdir()
    rgb = picture("RGB", WIDTH, HEIGHT, 1)
    _write_jpegs(folder, rgb)
    _write_transparent(folder, rgb)
    _write_deep(folder)
    _write_animations(folder, rgb)
    picture("1", WIDTH, HEIGHT, 6).save(folder / "bilevel.png")
    picture("P", WIDTH, HEIGHT, 5).save(folder / "palette.png", optimize=True)
    rgb.save(folder / "plain.bmp")
    rgb.save(folder / "lossless.webp", lossless=True)
    picture("CMYK", WIDTH, HEIGHT, 8).save(folder / "cmyk.tif", compression="tiff_adobe_deflate")


def _write_jpegs(folder: Path, rgb: Image.Image) -> None:
    exif = Image.Exif()
    for orientation in range(2, 9):
        exif[ORIENTATION] = orientation
        rgb.save(folder / f"turned{orientation}.jpg", quality=90, subsampling=0, exif=exif)
    exif[ORIENTATION] = 6
    rgb.save(folder / "turned6.png", exif=exif, optimize=True)
    rgb.save(folder / "progressive.jpg", quality=90, subsampling=0, progressive=True)
    rgb.save(folder / "subsampled.jpg", quality=90, subsampling=2)
    picture("L", WIDTH, HEIGHT, 2).save(folder / "grey.jpg", quality=90)
    picture("CMYK", WIDTH, HEIGHT, 3).save(folder / "cmyk.jpg", quality=90)


def _write_transparent(folder: Path, rgb: Image.Image) -> None:
    picture("RGBA", WIDTH, HEIGHT, 1).save(folder / "rgba.png", optimize=True)
    picture("LA", WIDTH, HEIGHT, 4).save(folder / "la.png", optimize=True)
    palette = picture("P", WIDTH, HEIGHT, 5)
    palette.save(folder / "palette_alpha.png", transparency=bytes(range(255, -1, -1)), optimize=True)
    palette.save(folder / "palette_one_clear.gif", transparency=palette.getpixel((3, 3)))
    rgb.save(folder / "rgb_one_clear.png", transparency=rgb.getpixel((4, 4)), optimize=True)
    grey = picture("L", WIDTH, HEIGHT, 7)
    grey.save(folder / "grey_one_clear.png", transparency=grey.getpixel((5, 5)), optimize=True)


def _write_deep(folder: Path) -> None:
    """16 bits, 32 bits and floating point."""
    sixteen = picture("I;16", WIDTH, HEIGHT, 3)
    sixteen.save(folder / "grey16.png")
    sixteen.save(folder / "grey16.tif")
    whole = [2 * v - 90 for v in pixels(WIDTH, HEIGHT, 1, 2)]
    for mode, name in (("I", "grey32.tif"), ("F", "float.tif")):
        deep = Image.new(mode, (WIDTH, HEIGHT))
        deep.putdata([v + (0.75 if mode == "F" else 0) for v in whole])
        deep.save(folder / name)
    (folder / "rgb16.png").write_bytes(_png_rgb16(pixels(WIDTH, HEIGHT, 3, 9)))


def _png_rgb16(levels: bytes) -> bytes:
    """A PNG of 16 bits a channel, which Pillow cannot write: each level, and a low byte that is to be dropped."""
    row = 3 * WIDTH
    rows = (levels[i : i + row] for i in range(0, len(levels), row))
    body = b"".join(b"\0" + b"".join(bytes((v, 255 - v)) for v in line) for line in rows)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(body, 9)), (b"IEND", b""))
    packed = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def _write_animations(folder: Path, rgb: Image.Image) -> None:
    second = picture("RGB", WIDTH, HEIGHT, 10)
    picture("P", WIDTH, HEIGHT, 5).save(
        folder / "animated.gif", save_all=True, append_images=[picture("P", WIDTH, HEIGHT, 9)], duration=100
    )
    rgb.save(folder / "animated.png", save_all=True, append_images=[second], duration=100)
    rgb.save(folder / "animated.webp", save_all=True, append_images=[second], duration=100, lossless=True)
