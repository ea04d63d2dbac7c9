"""Rotary embedding of tokens with a position on several axes."""

from __future__ import annotations

import math
from typing import Any

import pytest
from blocks import source

from pio.dtypes import int32
from pio.layers.rotary import MultiAxisRotaryEmbedding, RotaryEmbedding
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits

WIDTH = 20
ROPE: dict[str, Any] = {"rope_type": "default", "rope_theta": 1000.0}
AXES = [0, 1, 2, 0, 1, 2, 0, 1, 0, 0]
POSITIONS = [[0, 5, 5, 5, 9], [0, 5, 6, 6, 9], [0, 7, 5, 6, 9]]


def test_each_pair_turns_by_its_own_axis() -> None:
    at = source()
    rotary = MultiAxisRotaryEmbedding(at, ROPE, WIDTH, AXES, 3)
    assert rotary.axes == 3 and rotary.pair_axes.tolist() == AXES
    rotary(Tensor.from_list(POSITIONS, int32))
    cos, sin = rotary.tables(len(POSITIONS[0]))
    angles = [
        [POSITIONS[axis][t] * 1000.0 ** (-2 * pair / WIDTH) for pair, axis in enumerate(AXES)]
        for t in range(len(POSITIONS[0]))
    ]
    assert_close(cos, [[math.cos(a) for a in row] for row in angles], absolute=1e-6)
    assert_close(sin, [[math.sin(a) for a in row] for row in angles], absolute=1e-6)


@pytest.mark.parametrize("rope", [ROPE, {**ROPE, "rope_type": "linear", "factor": 4.0}], ids=["default", "linear"])
def test_text_turns_as_it_ever_did(rope: dict[str, Any]) -> None:
    positions = [0, 3, 4, 5, 1000, 100_000]
    plain = RotaryEmbedding(source(), rope, WIDTH)
    plain(Tensor.from_list(positions, int32))
    expected = [bits(table) for table in plain.tables(len(positions))]
    several = MultiAxisRotaryEmbedding(source(), rope, WIDTH, AXES, 3)
    several(Tensor.from_list([positions] * 3, int32))
    assert [bits(table) for table in several.tables(len(positions))] == expected
