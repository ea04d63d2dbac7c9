import base64
import io
import pathlib
import struct
import sys
import threading
import urllib.parse
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import FORMATS, Image, file_of, gradient, opened

from pio.errors import ConfigError, MediaError
from pio.media import decoding
from pio.media.picture import Picture, open_picture
from pio.media.source import open_source
from pio.tensor import Tensor
from pio.testing.compare import bits

MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F")


def pixels(picture):
    height, width, _ = picture.pixels.shape
    assert picture.pixels.dtype.name == "uint8" and picture.pixels.is_contiguous
    return Image.frombytes("RGB", (width, height), bits(picture.pixels))


def same(picture, expected):
    assert pixels(picture).size == expected.size
    assert pixels(picture).tobytes() == expected.tobytes()


@pytest.mark.parametrize("format", FORMATS)
def test_formats(format):
    data = file_of(gradient(), format)
    found = open_picture(data)
    same(found, opened(data))
    assert found.pixels.shape == (23, 37, 3)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("strip", [100, 1 << 20])
def test_modes_are_those_of_a_picture_that_is_given_by_its_path(mode, strip, monkeypatch):
    monkeypatch.setattr(decoding, "_STRIP", strip)
    format = {"CMYK": "TIFF", "F": "TIFF", "I": "TIFF"}.get(mode, "PNG")
    source = gradient(mode="L").convert(mode) if mode not in ("LA", "RGBA", "CMYK") else gradient(mode=mode)
    if mode == "I;16":
        source = Image.frombytes("I;16", (37, 23), b"".join(struct.pack("<H", 3 * i) for i in range(37 * 23)))
    data = file_of(source, format)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        expected = opened(data)
    found = open_picture(data)
    same(found, expected)
    assert found.mode == Image.open(io.BytesIO(data)).mode


def test_grey_of_sixteen_bits_is_cut():
    data = file_of(Image.frombytes("I;16", (3, 1), struct.pack("<3H", 5, 300, 65535)), "PNG")
    assert open_picture(data).pixels.tolist() == [[[5] * 3, [255] * 3, [255] * 3]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("strip", [1, 100, 1 << 20])
def test_orientation_is_done(orientation, format, strip, monkeypatch):
    monkeypatch.setattr(decoding, "_STRIP", strip)  # pixels that are converted at once: a row or three, or all
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = file_of(gradient(), format, exif=exif)
    same(open_picture(data), opened(data))
    assert open_picture(data).pixels.shape[:2] == ((37, 23) if orientation > 4 else (23, 37))


def test_a_damaged_exif_block_turns_nothing():
    data = file_of(gradient(), "JPEG")
    block = b"Exif\0\0MM\0\x2a\xff\xff\xff\xff"
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Pillow's, of the block
        assert open_picture(data).pixels.shape == (23, 37, 3)


def alpha():
    picture = gradient(mode="RGBA")
    picture.putpixel((0, 0), (10, 20, 30, 0))
    return picture


def test_transparency_of_a_file_is_dropped_or_put_on_a_colour():
    data = file_of(alpha(), "PNG")
    same(open_picture(data), opened(data))
    assert open_picture(data).pixels[0, 0].tolist() == [10, 20, 30]
    under = Image.new("RGBA", (37, 23), (1, 2, 3, 255))
    same(open_picture(data, background=(1, 2, 3)), Image.alpha_composite(under, alpha()).convert("RGB"))
    same(open_picture(file_of(gradient(), "PNG"), background=(1, 2, 3)), gradient())


@pytest.mark.parametrize(("format", "transparency"), [("PNG", 3), ("PNG", bytes(range(16))), ("GIF", 3)])
@pytest.mark.parametrize("strip", [100, 1 << 20])
def test_transparent_colours_of_a_palette(format, transparency, strip, monkeypatch):
    monkeypatch.setattr(decoding, "_STRIP", strip)
    source = gradient().quantize(16)
    data = file_of(source, format, transparency=transparency)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what Pillow thinks of this
        expected = opened(data)
    if isinstance(transparency, int):  # one clear colour stays so in RGB, and is put on white
        white = Image.new("RGBA", expected.size, (255, 255, 255, 255))
        expected = Image.alpha_composite(white, expected.convert("RGBA")).convert("RGB")
    same(open_picture(data), expected)
    on_red = open_picture(data, background=(255, 0, 0))
    assert bits(on_red.pixels) != expected.tobytes()


def test_a_picture_of_pillow_with_alpha_is_put_on_white_and_its_exif_is_not_looked_at():
    for picture in (alpha(), gradient(mode="LA"), gradient().convert("PA")):
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        same(open_picture(picture), Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB"))
    assert open_picture(alpha(), background=(9, 8, 7)).pixels[0, 0].tolist() == [9, 8, 7]
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.open(io.BytesIO(file_of(gradient(), "PNG", exif=exif)))
    same(open_picture(turned), gradient())
    for mode in ("L", "CMYK", "P", "1", "YCbCr"):
        same(open_picture(gradient().convert(mode)), gradient().convert(mode).convert("RGB"))


def test_a_picture_of_pillow_is_not_changed():
    picture = alpha()
    picture.info["transparency"] = (1, 2, 3)
    before = picture.tobytes(), picture.mode, dict(picture.info)
    open_picture(picture)
    assert (picture.tobytes(), picture.mode, dict(picture.info)) == before


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame(format):
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    data = file_of(frames[0], format, save_all=True, append_images=frames[1:], duration=100, lossless=True)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    red, green, blue = open_picture(data).pixels[5, 5].tolist()
    assert red > 250 and green < 5 and blue < 5


# Where it may lie


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes(kind):
    same(open_picture(kind(file_of(gradient(), "PNG"))), gradient())


@pytest.mark.parametrize("name", ["a b.png", "ü %20.png", "http_picture.png"])
def test_paths(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(file_of(gradient(), "PNG"))
    for source in (path, str(path), path.as_uri()):
        same(open_picture(source), gradient())
    with pytest.raises(MediaError, match="names the machine 'other'"):
        open_picture(path.as_uri().replace("file://", "file://other"))


def test_paths_are_objects_with_a_path(tmp_path):
    class Other:
        def __fspath__(self):
            return str(tmp_path / "x.png")

    (tmp_path / "x.png").write_bytes(file_of(gradient(), "PNG"))
    same(open_picture(Other()), gradient())
    same(open_picture(pathlib.PurePath(Other())), gradient())


def test_data_uris():
    data = file_of(gradient(), "PNG")
    code = base64.b64encode(data).decode()
    lines = "\n".join(code[i : i + 76] for i in range(0, len(code), 76))
    for uri in (
        f"data:image/png;base64,{code}",
        f"DATA:image/png;BASE64,{code.rstrip('=')}",
        f"data:;base64,{lines}",
        f"data:image/png;base64,{urllib.parse.quote(code)}",
        f"data:image/png,{urllib.parse.quote(data)}",
    ):
        same(open_picture(uri), gradient())


@pytest.mark.parametrize("size", range(1, 10))
def test_base64_of_every_length(size):
    data = bytes(range(251, 251 - 7 * size, -7))
    code, whole = base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode()
    for written in (code, code.rstrip("="), whole, whole.rstrip("="), f"\n {code[:2]}\r\n\t{code[2:]} ", f"{code}\n"):
        with open_source(f"data:image/png;base64,{written}", "image", 1 << 20)[0] as stream:
            assert stream.read() == data, written


def test_an_open_picture_stays_what_it_is():
    picture = Picture(Tensor.zeros((4, 5, 3), "uint8"))
    assert open_picture(picture) is picture
    for shape, dtype in (((4, 5), "uint8"), ((4, 5, 4), "uint8"), ((4, 0, 3), "uint8"), ((4, 5, 3), "float32")):
        with pytest.raises(MediaError, match=r"expected contiguous uint8 \(height, width, 3\)"):
            Picture(Tensor.zeros(shape, dtype))
    with pytest.raises(MediaError, match="expected contiguous"):
        Picture(Tensor.zeros((4, 10, 3), "uint8")[:, ::2])


@pytest.mark.parametrize("source", [None, 3, ["a.png"], {"url": "a.png"}, io.BytesIO(), object()])
def test_what_is_no_picture_is_named(source):
    with pytest.raises(ConfigError, match=r"^messages\[2\] is a .*expected a path, bytes, a data: URI"):
        open_picture(source, name="messages[2]")


@pytest.mark.parametrize("background", ["white", (1, 2), (1, 2, 256), (1.0, 2, 3), 7, (True, 0, 0)])
def test_backgrounds_are_checked(background):
    with pytest.raises(ConfigError, match="background is"):
        open_picture(gradient(), background=background)


def test_many_threads_open_pictures_at_once():
    files = [file_of(gradient(30 + i, 20 + i), format) for i in range(4) for format in ("PNG", "BMP", "PPM", "TIFF")]
    errors = []

    def work():
        try:
            for i, data in enumerate(files):
                side = i // 4
                same(open_picture(data), gradient(30 + side, 20 + side))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_nothing_of_pillow_is_changed():
    from PIL import ImageFile

    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)
    open_picture(file_of(gradient(), "PNG"), decode_limit=2000)
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == before


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ConfigError, match=r"pictures need Pillow .*: pip install pillow$"):
        open_picture(b"anything")
    x = Tensor.zeros((3, 4, 3), "uint8")
    assert open_picture(x).pixels.shape == (3, 4, 3)


@given(data=st.data(), format=st.sampled_from(FORMATS))
def test_whatever_is_damaged_gives_a_picture_or_one_error(data, format):
    file = bytearray(file_of(gradient(), format))
    for _ in range(data.draw(st.integers(1, 6))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    del file[data.draw(st.integers(0, len(file))) :]
    try:
        found = open_picture(bytes(file), decode_limit=1 << 22)
    except MediaError as error:
        assert str(error).startswith("image (bytes) ")
    else:
        assert found.pixels.shape[2] == 3
