"""Files that are no pictures, or only half of one: one error each, at once, that names the file and says what to do."""

import os
import struct
import subprocess
import sys
import zlib

import pytest
from needs import needs_fifos, needs_modes, needs_symlinks
from pictures import Image, chunk, file_of, gradient, png

from pio.errors import MediaError, PioError
from pio.media.picture import open_picture
from pio.system import HERE
from pio.tensor import Tensor


def gif(width, height):
    return (
        b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0)
    )


def bmp(width, height):
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(head), 0, 0, 54) + head


def tiff(width, height):
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 5000),
    ]
    entries += [(278, 4, 1, height), (279, 4, 1, 1)]
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + struct.pack("<I", 0)


def webp(width, height):
    canvas = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + canvas
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def jpeg(width, height):
    data = file_of(gradient(), "JPEG")
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


TEXT_BOMB = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50_000_000)))
CASES = {
    "nothing": (b"", "holds 0 bytes"),
    "one byte": (b"\x89", "no picture of a format"),
    "text": (b"This is a picture, believe me.", "is text"),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "SVG"),
    "SVG with a prologue": (b'\xef\xbb\xbf<?xml version="1.0"?><svg/>', "SVG"),
    "a web page": (b"<!DOCTYPE html><html>", "web page"),
    "PDF": (b"%PDF-1.7", "a PDF"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
    "an icon": (b"\0\0\x01\0\x01\0" + bytes(60), "no picture of a format"),
    "numbers as text": (b"P3 2 2 255 1 2 3 4 5 6 7 8 9 10 11 12", "is text"),
    "PNG of 50,000 x 50,000": (png(50_000, 50_000, rows=b""), "50000 x 50000 pixels, at most 134217728"),
    "PNG of no width": (png(0, 9), "0 x 9 pixels|cannot be decoded"),
    "GIF of 65,535 x 65,535": (gif(65_535, 65_535), "65535 x 65535 pixels|cannot be decoded"),
    "BMP of 100,000 x 100,000": (bmp(100_000, 100_000), "100000 x 100000 pixels"),
    "TIFF of 100,000 x 100,000": (tiff(100_000, 100_000), "100000 x 100000 pixels"),
    "JPEG of 65,000 x 65,000": (jpeg(65_000, 65_000), "65000 x 65000 pixels"),
    "WebP of 16,000 x 16,000": (webp(16_000, 16_000), "cannot be decoded|16000 x 16000 pixels"),
    "PPM of 99,999 x 99,999": (b"P6 99999 99999 255\n", "99999 x 99999 pixels"),
    "GIF of 12,000 x 12,000 in 23 bytes": (gif(12_000, 12_000), "pixels in 23 bytes|cannot be decoded"),
    "JPEG of 10,000 x 10,000": (jpeg(10_000, 10_000), r"100000000 pixels in \d+ bytes: it is damaged or a decomp"),
    "BMP of 10,000 x 10,000": (bmp(10_000, 10_000), r"100000000 pixels in \d+ bytes"),
    "PNG with a comment of 50 MB": (png(9, 9, TEXT_BOMB), "cannot be decoded"),
    "PNG with a wrong checksum": (png(9, 9, chunk(b"gAMA", b"\0\0\0\1", 7)), "cannot be decoded"),
    "PNG without pixels": (png(9, 9, rows=b""), "cannot be decoded"),
    "PNG of damaged pixels": (png(9, 9).replace(b"IDAT", b"IDAT\xff\xff", 1), "cannot be decoded"),
    "PNG header alone": (png(9, 9)[:33], "cannot be decoded"),
    "PNG header cut": (png(9, 9)[:20], "cannot be decoded"),
    "BMP header alone": (bmp(9, 9), "cannot be decoded"),
    "TIFF without strips": (tiff(9, 9), "cannot be decoded"),
    "PPM without pixels": (b"P6 9 9 255\n", "cannot be decoded"),
}


@pytest.mark.parametrize("case", CASES)
def test_hostile_files(case, tmp_path):
    data, words = CASES[case]
    path = tmp_path / "hostile.png"
    path.write_bytes(data)
    before = HERE.peak_memory()
    with pytest.raises(MediaError, match=rf"^image .*hostile\.png'.*({words})"):
        open_picture(path)
    with pytest.raises(MediaError, match=rf"^image \(bytes\).*({words})"):
        open_picture(data)
    if before is not None:
        assert HERE.peak_memory() - before < 150 << 20


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "GIF"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_half_a_picture_is_none(format, share):
    whole = file_of(gradient(200, 150), format)
    with pytest.raises(MediaError, match=r"cannot be decoded|is "):
        open_picture(whole[: int(len(whole) * share)])


@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_is_not_half_grey(progressive):
    whole = file_of(gradient(200, 150), "JPEG", progressive=progressive)
    for cut in range(len(whole) // 2, len(whole) - 200, 200):
        with pytest.raises(MediaError, match=r"cannot be decoded.*truncated"):
            open_picture(whole[:cut])


def test_limits_are_the_callers():
    data = file_of(gradient(40, 30), "PNG")
    assert open_picture(data, decode_limit=1200, max_bytes=len(data)).pixels.shape == (30, 40, 3)
    with pytest.raises(MediaError, match="40 x 30 pixels, at most 1199 are accepted; make it smaller"):
        open_picture(data, decode_limit=1199)
    with pytest.raises(
        MediaError, match=f"holds {len(data)} bytes, at most {len(data) - 1} are accepted; make it smaller$"
    ):
        open_picture(data, max_bytes=len(data) - 1)
    for source in (gradient(40, 30), Tensor.zeros((30, 40, 3), "uint8")):
        with pytest.raises(MediaError, match="40 x 30 pixels, at most 1199"):
            open_picture(source, decode_limit=1199)


def test_decoding_makes_no_copy_of_all_pixels(tmp_path):
    # grey, as which it is decoded, and the result: 16 + 48 MB; red, green and blue of it all would be 64 MB more
    program = """if True:
        import sys
        from pio.media.picture import open_picture
        from pio.system import HERE
        open_picture(sys.argv[1])
        before = HERE.peak_memory() or 0
        open_picture(sys.argv[2])
        print((HERE.peak_memory() or 0) - before)"""
    paths = [tmp_path / name for name in ("small.png", "large.png")]
    paths[0].write_bytes(png(9, 9))
    paths[1].write_bytes(png(4000, 4000, bits=1, rows=bytes(501 * 4000)))
    done = subprocess.run([sys.executable, "-c", program, *map(str, paths)], check=True, capture_output=True)
    assert int(done.stdout) < 100 << 20


def test_a_large_picture_is_no_bomb_where_the_caller_wants_it():
    data = png(20_000, 10_000, bits=1, rows=bytes(2501 * 10_000))
    with pytest.raises(MediaError, match="20000 x 10000 pixels"):
        open_picture(data)
    with pytest.raises(MediaError, match="20000 x 10000 pixels, at most 1000"):
        open_picture(data, decode_limit=1000)


def test_a_file_longer_than_the_limit_is_not_read(tmp_path):
    path = tmp_path / "long.png"
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(MediaError, match="holds 1099511627776 bytes, at most 268435456"):
        open_picture(path)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(MediaError, match=r"there is no such file; correct the path"):
        open_picture(tmp_path / "missing.png")
    with pytest.raises(MediaError, match="folder"):
        open_picture(tmp_path)
    with pytest.raises(MediaError, match="not a usable file name"):
        open_picture("a\0b.png")
    with pytest.raises(MediaError, match="cannot be read") as caught:
        open_picture("iVBORw0KGgo" * 5000)
    assert len(str(caught.value)) < 600


@needs_fifos
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(MediaError, match="not a regular file"):
        open_picture(tmp_path / "pipe.png")


@needs_symlinks
def test_a_link_that_leads_to_itself(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "a.png")
    with pytest.raises(MediaError, match="cannot be read"):
        open_picture(tmp_path / "a.png")


@needs_modes
def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = tmp_path / "secret.png"
    path.write_bytes(png(3, 3))
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads it all the same
        refusal = PermissionError(13, "Permission denied")
        monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(refusal))
    with pytest.raises(MediaError, match=r"secret\.png.*this user may not; give read permission"):
        open_picture(path)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("data:image/png;base64", "has no comma"),
        ("data:image/png;base64,", "holds 0 bytes"),
        ("data:image/png;base64,!!!!", "is no base64"),
        ("data:image/png;base64,ÄÖÜ", "is no base64"),
        ("data:image/png;base64,QUJDR", "is no base64"),
        ("data:image/png;base64,QUJD", "is text"),
        ("data:image/png;base64,AAAA", "no picture of a format"),
        ("ftp://example.com/a.png", "addresses of ftp are not read"),
        ("s3://bucket/a.png", "addresses of s3 are not read"),
    ],
)
def test_uris_that_lead_nowhere(uri, words):
    with pytest.raises(MediaError, match=words):
        open_picture(uri)


def test_a_view_that_was_released_or_is_full_of_gaps():
    view = memoryview(png(3, 3))
    view.release()
    with pytest.raises(
        MediaError, match=r"^image \(bytes\) cannot be read \(.*released.*\); give the bytes themselves"
    ):
        open_picture(view)
    with pytest.raises(MediaError, match=r"^image \(bytes\) "):
        open_picture(memoryview(png(3, 3))[::2])


def test_a_data_uri_that_is_too_long():
    with pytest.raises(MediaError, match="at most 100 are accepted"):
        open_picture("data:image/png;base64," + "A" * 1000, max_bytes=100)


def test_a_picture_of_pillow_whose_file_is_damaged():
    import io

    lazy = Image.open(io.BytesIO(file_of(gradient(200, 150), "JPEG")[:2000]))
    with pytest.raises(MediaError, match="a picture of Pillow"):
        open_picture(lazy)


def test_memory_that_is_refused_is_no_damage(monkeypatch):
    def refuse(*_):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "tobytes", refuse)
    with pytest.raises(PioError, match="refused memory while decoding image"):
        open_picture(file_of(gradient(), "PNG"))
