"""Norms as layers: which tensors they take, and what they compute of them."""

from __future__ import annotations

import math

import pytest
from blocks import source

from pio.layers.norm import LayerNorm
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits

WIDTH, EPS = 21, 1e-5


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
def test_layer_norm(kind: str) -> None:
    at = source(kind=kind)
    norm = LayerNorm(at / "norm1", WIDTH, EPS)
    assert set(at.inventory.nbytes) == {"norm1.weight", "norm1.bias"}
    rows = [[(5 * i + 3 * j) % 17 / 3 - 2.5 for j in range(WIDTH)] for i in range(4)]
    x = Tensor.from_list(rows)
    out = norm(x, Tensor.empty(x.shape))
    weight, bias = norm.weight.astype("float32").tolist(), norm.bias.astype("float32").tolist()
    expected: list[list[float]] = []
    for row in rows:
        mean = math.fsum(row) / WIDTH
        deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in row) / WIDTH + EPS)
        expected.append([(v - mean) / deviation * w + b for v, w, b in zip(row, weight, bias, strict=True)])
    assert_close(out, expected, relative=1e-5, absolute=1e-5)
    norm(x, x)
    assert bits(x) == bits(out)


def test_layer_norm_of_patches_one_by_one() -> None:
    norm = LayerNorm(source() / "norm", WIDTH, EPS)
    x = Tensor.from_list([[[(3 * i + 7 * j + k) % 11 / 4 for k in range(WIDTH)] for j in range(3)] for i in range(2)])
    out = norm(x, Tensor.empty(x.shape))
    for i in range(2):
        assert bits(out[i]) == bits(norm(x[i], Tensor.empty(x[i].shape)))
