import random
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pio import ops
from pio.device import Device
from pio.errors import TensorError
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits
from pio.testing.reference.image_resize import image_resize
from pio.testing.strategies import sizes, tensors

Image = pytest.importorskip("PIL.Image", reason="Pillow, which pio's extra vision installs")
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
MODES = {1: "L", 3: "RGB", 4: "RGBX"}
THREADS = st.sampled_from((1, 2, 3))


def noise(seed, *shape, kind="uniform"):
    """A picture as bytes: noise, or only black and white, which overshoots most."""
    source, (height, width, channels) = random.Random(seed), shape
    size = height * width * channels
    return source.randbytes(size) if kind == "uniform" else bytes(source.choices((0, 255), k=size))


def by_pillow(data, shape, height, width, filter):
    """What Pillow makes of it, one pass after the other, which fixes their order for every version of Pillow."""
    rows, columns, channels = shape
    picture, how = Image.frombytes(MODES[channels], (columns, rows), data), FILTERS[filter]
    down_first = rows > height and rows - height > 2 * (columns - width)
    picture = picture.resize((columns, height) if down_first else (width, rows), how)
    return picture.resize((width, height), how).tobytes()


@given(
    seed=st.integers(0, 999),
    kind=st.sampled_from(("uniform", "edges")),
    shape=sizes((1, 70), (1, 90), (1, 100), (1, 80)),
    channels=st.sampled_from((3, 3, 1, 4)),
    filter=st.sampled_from(("bicubic", "bilinear")),
    threads=THREADS,
)
@example(seed=0, kind="edges", shape=(1, 3000, 7, 40), channels=3, filter="bicubic", threads=2)
@example(seed=1, kind="edges", shape=(900, 1, 30, 16), channels=3, filter="bicubic", threads=2)
@example(seed=2, kind="uniform", shape=(1, 1, 64, 32), channels=3, filter="bicubic", threads=1)
@example(seed=3, kind="uniform", shape=(33, 31, 32, 32), channels=3, filter="bicubic", threads=3)
def test_bytes_are_pillows(seed, kind, shape, channels, filter, threads):
    rows, columns, height, width = shape
    data = noise(seed, rows, columns, channels, kind=kind)
    image = Tensor.from_buffer(data, "uint8", (rows, columns, channels)).to(Device("cpu", threads))
    out = Tensor.full((height, width, channels), 7, "uint8")
    assert ops.image_resize(image, height, width, filter=filter, out=out) is out
    assert bits(out) == by_pillow(data, image.shape, height, width, filter)


@pytest.mark.skipif(int(Image.__version__.split(".")[0]) < 13, reason="Pillow before 13 resizes rows first")
@pytest.mark.parametrize(
    ("shape", "size"),
    [((40, 30), (20, 20)), ((40, 30), (19, 20)), ((40, 30), (39, 60)), ((40, 30), (60, 20)), ((40, 30), (40, 20))],
)
def test_the_order_of_passes_is_pillows(shape, size):
    data = noise(4, *shape, 3)
    picture = Image.frombytes("RGB", shape[::-1], data).resize(size[::-1], FILTERS["bicubic"])
    assert bits(ops.image_resize(Tensor.from_buffer(data, "uint8", (*shape, 3)), *size)) == picture.tobytes()


@given(
    seed=st.integers(0, 999),
    shape=sizes((1, 13), (1, 20), (1, 17), (1, 23)),
    channels=st.integers(1, 4),
    filter=st.sampled_from(("bicubic", "bilinear")),
    antialias=st.booleans(),
)
def test_bytes_are_the_formulas(seed, shape, channels, filter, antialias):
    rows, columns, height, width = shape
    image = Tensor.from_buffer(noise(seed, rows, columns, channels), "uint8", (rows, columns, channels))
    found = ops.image_resize(image, height, width, filter=filter, antialias=antialias)
    expected = image_resize(image.tolist(), height, width, filter=filter, antialias=antialias, whole=True)
    assert_close(found, expected, absolute=2)  # a half that is rounded otherwise in each pass


@given(
    data=st.data(),
    shape=sizes((1, 13), (1, 20), (1, 17), (1, 40)),
    channels=st.integers(1, 3),
    filter=st.sampled_from(("bicubic", "bilinear")),
    antialias=st.booleans(),
    threads=THREADS,
)
def test_floats(data, shape, channels, filter, antialias, threads):
    rows, columns, height, width = shape
    image = data.draw(tensors((rows, columns, channels)))
    how = {"filter": filter, "antialias": antialias}
    found = ops.image_resize(image.to(Device("cpu", threads)), height, width, **how)
    expected = image_resize(image.tolist(), height, width, **how)
    assert_close(found, expected, absolute=1e-5 * max(1.0, max(map(abs, image.reshape(image.size).tolist()))))
    assert bits(ops.image_resize(image.to(Device("cpu", 1)), height, width, **how)) == bits(found)


def test_a_size_that_stays_changes_nothing():
    for kind, channels in product(("uint8", "float32"), (1, 3)):
        image = Tensor.from_buffer(noise(5, 4, 6, channels), "uint8", (4, 6, channels)).astype(kind)
        found = ops.image_resize(image, 4, 6)
        assert found is not image and bits(found) == bits(image)


def test_one_colour_stays():
    image = Tensor.full((31, 57, 3), 201, "uint8")
    for size in ((8, 16), (64, 100), (31, 5)):
        assert set(bits(ops.image_resize(image, *size))) == {201}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": Tensor.zeros((4, 5), "uint8")}, r"image has shape \(4, 5\), expected \(any, any, any\)"),
        ({"image": Tensor.zeros((4, 5, 3), "int32")}, "image is int32, expected float32"),
        ({"image": Tensor.zeros((4, 0, 3), "uint8")}, r"image has shape \(4, 0, 3\), expected from 1"),
        ({"image": Tensor.zeros((4, 10, 3), "uint8")[:, ::2]}, "strided view"),
        ({"height": 0}, "height has 0, expected from 1"),
        ({"width": 2.0}, "width has 2.0"),
        ({"width": 1 << 30}, "width has 1073741824"),
        ({"filter": "lanczos"}, "filter is 'lanczos', expected one of bicubic, bilinear"),
        ({"out": Tensor.zeros((2, 2, 3), "uint8")}, r"out has shape \(2, 2, 3\), expected \(6, 7, 3\)"),
        ({"out": Tensor.zeros((6, 7, 3))}, "out is float32, expected uint8"),
        ({"out": Tensor.from_buffer(bytes(126), "uint8", (6, 7, 3))}, "out is read-only"),
    ],
)
def test_image_resize_refuses_what_does_not_fit(change, message):
    given = {"image": Tensor.zeros((4, 5, 3), "uint8"), "height": 6, "width": 7}
    with pytest.raises(TensorError, match=f"^image_resize: .*{message}"):
        ops.image_resize(**given | change)
