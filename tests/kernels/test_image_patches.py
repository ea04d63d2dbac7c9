import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio import ops
from pio.device import Device
from pio.errors import TensorError
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits
from pio.testing.reference.image_patches import image_patches
from pio.testing.strategies import sizes

MEAN, STD = (0.5, 0.48, 0.4), (0.5, 0.27, 0.26)


def frames_of(seed, *shape):
    size = shape[0] * shape[1] * shape[2] * 3
    return Tensor.from_buffer(random.Random(seed).randbytes(size), "uint8", (*shape, 3))


@given(
    seed=st.integers(0, 99),
    grid=sizes((1, 5), (1, 4), (1, 3)),
    shape=sizes((1, 5), (1, 3), (1, 2)),
    threads=st.sampled_from((1, 2, 3)),
    data=st.data(),
)
def test_image_patches(seed, grid, shape, threads, data):
    (count, down, across), (patch, temporal, merge) = grid, shape
    frames = frames_of(seed, count, down * merge * patch, across * merge * patch)
    how = {"patch": patch, "temporal": temporal, "merge": merge, "mean": MEAN, "std": STD}
    expected = image_patches(frames.tolist(), **how)
    grid = -(-count // temporal), down * merge, across * merge
    out = Tensor.zeros((len(expected), 3 * temporal * patch * patch)).to(Device("cpu", threads))
    assert ops.image_patches(frames, grid, out=out, **how) is out
    assert_close(out, expected, absolute=1e-6)
    first = data.draw(st.integers(0, len(expected)))
    part = Tensor.zeros((data.draw(st.integers(0, len(expected) - first)), out.shape[1]))
    ops.image_patches(frames, grid, first, out=part, **how)
    assert bits(part) == bits(out[first : first + part.shape[0]]), "where rows begin changes them"


def test_a_picture_is_both_frames_of_its_time_step():
    frames, out = frames_of(1, 1, 2, 2), Tensor.zeros((4, 6))
    ops.image_patches(frames, (1, 2, 2), patch=1, temporal=2, merge=2, mean=MEAN, std=STD, out=out)
    assert all(row[::2] == row[1::2] for row in out.tolist())


def test_a_recorded_step_reads_the_frames_again():
    frames, out = Tensor.zeros((1, 2, 2, 3), "uint8"), Tensor.zeros((4, 6))
    with ops.recording() as step:
        ops.image_patches(frames, (1, 2, 2), patch=1, temporal=2, merge=2, mean=MEAN, std=STD, out=out)
    frames.fill_(255)
    step.run()
    white = [(1 - m) / s for m, s in zip(MEAN, STD, strict=True)]
    assert_close(out, [[w for w in white for _ in range(2)]] * 4, absolute=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": Tensor.zeros((1, 8, 8, 3))}, "frames is float32, expected uint8"),
        ({"frames": Tensor.zeros((1, 8, 8, 4), "uint8")}, r"frames has shape \(1, 8, 8, 4\)"),
        ({"frames": Tensor.zeros((1, 8, 6, 3), "uint8")}, "multiples of patch . merge = 4; resize it first"),
        ({"frames": Tensor.zeros((0, 8, 8, 3), "uint8")}, "expected at least one frame"),
        ({"grid": (1, 4, 2)}, r"grid is \(1, 4, 2\), expected \(1, 4, 4\)"),
        ({"first": 13}, "rows 13 to 17 were asked for, expected rows of 0 to 16"),
        ({"first": -1}, "rows -1 to 3"),
        ({"patch": 0}, "patch is 0"),
        ({"merge": 2.0}, "merge is 2.0"),
        ({"mean": (0.5,)}, "expected three finite numbers each"),
        ({"std": (0.5, 0.0, 0.5)}, "std not 0"),
        ({"out": Tensor.zeros((4, 12))}, r"out has shape \(4, 12\), expected \(any, 24\)"),
        ({"out": Tensor.from_buffer(bytes(384), "float32", (4, 24))}, "out is read-only"),
    ],
)
def test_image_patches_refuses_what_does_not_fit(change, message):
    given = {"frames": Tensor.zeros((1, 8, 8, 3), "uint8"), "grid": (1, 4, 4), "out": Tensor.zeros((4, 24))}
    given |= {"patch": 2, "temporal": 2, "merge": 2, "mean": MEAN, "std": STD}
    with pytest.raises(TensorError, match=f"^image_patches: .*{message}"):
        ops.image_patches(**given | change)
