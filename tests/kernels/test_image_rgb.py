import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio import ops
from pio.device import Device
from pio.errors import TensorError
from pio.tensor import Tensor
from pio.testing.compare import bits
from pio.testing.reference.image_rgb import image_rgb
from pio.testing.strategies import sizes

BYTE = st.integers(0, 255)


def noise(seed, *shape):
    return Tensor.from_buffer(random.Random(seed).randbytes(math.prod(shape)), "uint8", shape)


@given(
    seed=st.integers(0, 999),
    shape=sizes((1, 9), (1, 37)),
    channels=st.sampled_from((1, 3, 4)),
    floats=st.booleans(),
    background=st.tuples(BYTE, BYTE, BYTE),
    threads=st.sampled_from((1, 2, 3)),
)
def test_image_rgb(seed, shape, channels, floats, background, threads):
    image = noise(seed, *shape, channels)
    if floats:
        source = random.Random(seed)
        values = [0.0, 1.0, 0.5, 1 / 510, 1e-40]
        rows = [
            [
                [source.choice((source.random(), source.choice(values))) for _ in range(channels)]
                for _ in range(shape[1])
            ]
            for _ in range(shape[0])
        ]
        image = Tensor.from_list(rows)
    out = Tensor.full((*shape, 3), 7, "uint8")
    image = image.to(Device("cpu", threads))
    assert ops.image_rgb(image, background=background, out=out) is out
    assert out.tolist() == image_rgb(image.tolist(), background, floats=floats)


@pytest.mark.parametrize("channels", [1, 4])
def test_threads_and_floats_change_nothing(channels):
    image = noise(1, 301, 257, channels)
    once = ops.image_rgb(image.to(Device("cpu", 1)))
    assert bits(ops.image_rgb(image.to(Device("cpu", 3)))) == bits(once)
    floats = ops.mul(image.astype("float32"), Tensor.full(image.shape, 1 / 255))
    assert bits(ops.image_rgb(floats.to(Device("cpu", 2)))) == bits(once)


def test_whatever_alpha_is_white_on_white_stays_white_and_none_is_the_background():
    pixels = Tensor.from_buffer(bytes(v for a in range(256) for v in (255, 255, 255, a)), "uint8", (1, 256, 4))
    assert set(bits(ops.image_rgb(pixels))) == {255}
    clear = Tensor.from_buffer(bytes([9, 8, 7, 0, 9, 8, 7, 255]), "uint8", (1, 2, 4))
    assert ops.image_rgb(clear, background=(1, 2, 3)).tolist() == [[[1, 2, 3], [9, 8, 7]]]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.01, 1.01, 255.0])
@pytest.mark.parametrize("place", [0, 199])
def test_floats_beyond_a_picture_are_refused(value, place):
    image = Tensor.full((200, 300, 1), 0.5)
    image[place, 7].fill_(value)
    with pytest.raises(
        TensorError, match=r"^image_rgb: image holds (NaN or infinity|numbers from .* to .*), expected 0"
    ):
        ops.image_rgb(image.to(Device("cpu", 2)))


@pytest.mark.parametrize("shift", [0, 1])
def test_a_result_must_not_lie_in_the_picture(shift):
    both = Tensor.zeros((61,), "uint8")
    with pytest.raises(TensorError, match=r"^image_rgb: out shares memory with image"):
        ops.image_rgb(both[:60].reshape(4, 5, 3), out=both[shift : 60 + shift].reshape(4, 5, 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": Tensor.zeros((4, 5), "uint8")}, r"image has shape \(4, 5\), expected \(any, any, any\)"),
        ({"image": Tensor.zeros((4, 5, 2), "uint8")}, r"image has shape \(4, 5, 2\), expected \(any, any, 1, 3 or 4\)"),
        ({"image": Tensor.zeros((4, 5, 3), "int32")}, "image is int32, expected float32"),
        ({"image": Tensor.zeros((4, 10, 4), "uint8")[:, ::2]}, "strided view"),
        ({"background": (1, 2)}, "background is"),
        ({"background": (1, 2, 256)}, "background is"),
        ({"background": (1, 2, 3.0)}, "background is"),
        ({"out": Tensor.zeros((4, 5, 4), "uint8")}, r"out has shape \(4, 5, 4\), expected \(4, 5, 3\)"),
        ({"out": Tensor.zeros((4, 5, 3))}, "out is float32, expected uint8"),
        ({"out": Tensor.from_buffer(bytes(60), "uint8", (4, 5, 3))}, "out is read-only"),
    ],
)
def test_image_rgb_refuses_what_does_not_fit(change, message):
    given = {"image": Tensor.zeros((4, 5, 4), "uint8")}
    with pytest.raises(TensorError, match=f"^image_rgb: .*{message}"):
        ops.image_rgb(**given | change)
