"""A linear layer that is split into parts which share its weights."""

from __future__ import annotations

import pytest
from blocks import source

from pio.errors import TensorError
from pio.layers.linear import Linear, together
from pio.ops.quantized import PackedWeight
from pio.tensor import Tensor
from pio.testing.compare import bits

ROWS, INSIDE = 5, 37
SIZES = 32, 16, 21


def inputs() -> Tensor:
    return Tensor.from_list([[(7 * i + 5 * j) % 19 / 8 - 1.1 for j in range(INSIDE)] for i in range(ROWS)])


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("options", [{}, {"kind": "bfloat16"}, {"quantize": "int8"}, {"quantize": "int4"}], ids=str)
def test_parts_give_the_bits_of_the_whole(options: dict[str, str], bias: bool) -> None:
    at = source(**options)
    whole = Linear(at / "qkv", sum(SIZES), INSIDE, bias=bias)
    parts = whole.split(*SIZES)
    x, out = inputs(), Tensor.empty((ROWS, sum(SIZES)))
    at.workspace.storage  # noqa: B018 - made here, as loading does it
    whole(x, out)
    first, outs = 0, [Tensor.empty((ROWS, size)) for size in SIZES]
    for part, size, found in zip(parts, SIZES, outs, strict=True):
        part(x, found)
        assert bits(found) == bits(out[:, first : first + size])
        first += size
    again = [Tensor.empty((ROWS, size)) for size in SIZES]
    together(x, parts, again)
    assert [bits(found) for found in again] == [bits(found) for found in outs]


def test_parts_share_the_weights() -> None:
    whole = Linear(source(quantize="int8") / "qkv", sum(SIZES), INSIDE)
    assert isinstance(whole.weight, PackedWeight)
    for part in whole.split(*SIZES):
        assert isinstance(part.weight, PackedWeight)
        assert part.weight.data.storage is whole.weight.data.storage


@pytest.mark.parametrize("sizes", [(8, 61), (32, 33, 4), (32, 48)])
def test_packed_parts_begin_with_a_block(sizes: tuple[int, ...]) -> None:
    whole = Linear(source(quantize="int8") / "qkv", sum(SIZES), INSIDE)
    with pytest.raises(TensorError, match=r"PackedWeight: rows\(.* of 69, expected ascending multiples of 16"):
        whole.split(*sizes)


@pytest.mark.parametrize(("policy", "tower"), [("balanced", "int8"), ("uniform", "int4")])
def test_a_tower_is_quantized_by_the_policy(policy: str, tower: str) -> None:
    at = source(quantize="int4", policy=policy)
    Linear(at / "decoder", 16, INSIDE)
    Linear(at / "visual", 16, INSIDE, role="tower")
    assert at.inventory.formats == {"linear": {"int4"}, "tower": {tower}}
