import math
import random

import pytest
from pictures import Image

from pio.errors import MediaError
from pio.media.picture import open_picture
from pio.tensor import Tensor


def noise(*shape):
    size = math.prod(shape)
    return Tensor.from_buffer(random.Random(3).randbytes(size), "uint8", shape)


def test_red_green_and_blue_are_taken_as_they_are():
    x = noise(5, 7, 3)
    assert open_picture(x).pixels.tolist() == x.tolist() and open_picture(x).mode == "RGB"
    turned = noise(3, 7, 5).transpose(1, 2, 0)
    assert open_picture(turned).pixels.tolist() == turned.tolist() and open_picture(turned).pixels.is_contiguous


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1)])
def test_grey(shape):
    x = noise(*shape)
    grey = [[v[0] if isinstance(v, list) else v for v in row] for row in x.tolist()]
    found = open_picture(x)
    assert found.pixels.tolist() == [[[v] * 3 for v in row] for row in grey] and found.mode == "L"


def test_alpha_is_put_on_white_or_on_a_colour():
    x = noise(5, 7, 4)
    picture = Image.frombytes("RGBA", (7, 5), bytes(v for row in x.tolist() for p in row for v in p))
    for background, colour in ((None, (255, 255, 255)), ((1, 2, 3), (1, 2, 3))):
        expected = Image.alpha_composite(Image.new("RGBA", (7, 5), (*colour, 255)), picture).convert("RGB").tobytes()
        found = [v for row in open_picture(x, background=background).pixels.tolist() for p in row for v in p]
        assert all(abs(a - b) <= 1 for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_numbers_from_0_to_1(channels):
    whole = noise(5, 7, channels)
    floats = Tensor.from_list([[[v / 255 for v in p] for p in row] for row in whole.tolist()])
    assert open_picture(floats).pixels.tolist() == open_picture(whole).pixels.tolist()


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (Tensor.zeros((3, 5, 7), "uint8"), r"shape \(3, 5, 7\).*permute the axes"),
        (Tensor.zeros((5,), "uint8"), r"shape \(5,\)"),
        (Tensor.zeros((1, 5, 7, 3), "uint8"), r"shape \(1, 5, 7, 3\)"),
        (Tensor.zeros((5, 7, 2), "uint8"), r"shape \(5, 7, 2\)"),
        (Tensor.zeros((5, 7, 3), "int32"), "is int32, expected uint8"),
        (Tensor.zeros((5, 7, 3), "float16"), "is float16"),
        (Tensor.zeros((0, 7, 3), "uint8"), "7 x 0 pixels"),
        (Tensor.full((5, 7, 3), 255.0), "numbers from 255 to 255, expected 0 to 1; divide those to 255 by 255"),
        (Tensor.full((5, 7, 3), -0.5), "numbers from -0.5 to -0.5"),
        (Tensor.full((5, 7, 3), math.nan), "NaN or infinity"),
        (Tensor.full((5, 7), math.inf), "NaN or infinity"),
    ],
)
def test_what_is_no_picture_is_refused(x, words):
    with pytest.raises(MediaError, match=rf"^image \(a tensor\) .*{words}"):
        open_picture(x)
