"""Naive convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def conv2d(
    x: Any,
    weight: Any,
    bias: Sequence[float] | None = None,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> list[list[list[float]]]:
    """Return ``bias[o] + sum weight[o, c, i, j] * x[c, y * stride - padding + i * dilation, ...]``, zeros outside."""
    height, width = len(x[0]), len(x[0][0])
    tall, wide = len(weight[0][0]), len(weight[0][0][0])
    depth, outputs = len(weight[0]), len(weight)
    out_height = (height + 2 * padding[0] - dilation[0] * (tall - 1) - 1) // stride[0] + 1
    out_width = (width + 2 * padding[1] - dilation[1] * (wide - 1) - 1) // stride[1] + 1

    def value(c: int, y: int, z: int) -> float:
        return x[c][y][z] if 0 <= y < height and 0 <= z < width else 0.0

    def output(o: int, y: int, z: int) -> float:
        first = o // (outputs // groups) * depth
        total = bias[o] if bias is not None else 0.0
        for c in range(depth):
            for i in range(tall):
                for j in range(wide):
                    row = y * stride[0] - padding[0] + i * dilation[0]
                    column = z * stride[1] - padding[1] + j * dilation[1]
                    total += weight[o][c][i][j] * value(first + c, row, column)
        return total

    return [[[output(o, y, z) for z in range(out_width)] for y in range(out_height)] for o in range(outputs)]


def conv1d(
    x: Any,
    weight: Any,
    bias: Sequence[float] | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> list[list[float]]:
    """Return the convolution of rows."""
    rows = [[row] for row in x]
    kernels = [[[line] for line in output] for output in weight]
    steps = {"stride": (1, stride), "padding": (0, padding), "dilation": (1, dilation)}
    return [output[0] for output in conv2d(rows, kernels, bias, groups=groups, **steps)]
