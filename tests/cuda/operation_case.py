"""Operations with arguments that can lie on any device, to be called on a GPU beside the CPU."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from gpu_case import relative_error

from pio import ops
from pio.device import on_device
from pio.ops.slices import Slices
from pio.tensor import Tensor


class Sequences(tuple[tuple[int, int, list[int], int, int | None, bool], ...]):
    """What a batch is made of on each device: what ``Slices.append`` takes, the last of it by its place."""


class Case(NamedTuple):
    """An operation and its arguments.

    Attributes:
        act: Calls it. What it writes to is its own: arguments are made anew for each call.
        make: Returns the arguments, on the CPU.
        within: How far results may be from the CPU's, as vectors; integers and bytes are the same.
    """

    act: Callable[..., Any]
    make: Callable[[], Sequence[Any]]
    within: float = 0.0


def numbers(*shape: int, seed: int = 1, dtype: str = "float32") -> Tensor:
    """Return numbers from -2 to 2 in no order."""
    values = [((i * 7919 + seed * 104729) % 2003 - 1001) / 500 for i in range(math.prod(shape))]
    return Tensor.from_list(values, dtype).reshape(*shape)


def integers(*values: int, dtype: str = "int32") -> Tensor:
    """Return a vector."""
    return Tensor.from_list(list(values), dtype)


def placed(value: Any, device: str) -> Any:
    """Return a copy on a device: of tensors, of what has some, of batches; of anything else the thing itself."""
    if isinstance(value, ops.Pages):
        return ops.Pages.of(placed(Tensor.clone(value), device), value.format)
    if isinstance(value, Tensor):
        return value.clone() if device == "cpu" else value.to(device)
    if isinstance(value, ops.PackedWeight):
        return value.to(device)
    if isinstance(value, ops.ExpertWeights):
        return ops.ExpertWeights([placed(matrix, device) for matrix in value.matrices])
    if isinstance(value, Sequences):
        return _batch(value, device)
    if isinstance(value, ops.Choices | ops.Window):
        fields = dataclasses.fields(value)
        return type(value)(*(placed(getattr(value, each.name), device) for each in fields))
    return [placed(each, device) for each in value] if isinstance(value, list) else value


def _batch(sequences: Sequences, device: str) -> Slices:
    made = Slices(len(sequences), max(len(blocks) for _, _, blocks, *_ in sequences), device=on_device(device))
    for tokens, past, blocks, slot, source, tentative in sequences:
        made.append(tokens, past, blocks, slot, source, tentative=tentative)
    made.send()
    return made


def lies_anywhere(value: Any) -> bool:
    """Return whether an argument is memory of a device."""
    if isinstance(value, list):
        return any(map(lies_anywhere, value))
    kinds = Tensor, ops.PackedWeight, ops.ExpertWeights, ops.Choices, ops.Window, Sequences
    return isinstance(value, kinds)


def check_close(found: Any, wanted: Any, within: float) -> None:
    """Raise unless the results of both devices agree; several where an operation has several."""
    if wanted is None or isinstance(wanted, int):
        assert found == wanted
    elif not isinstance(wanted, Tensor):
        for one, other in zip(found, wanted, strict=True):
            check_close(one, other, within)
    else:
        assert found.device == "cuda:0" and found.shape == wanted.shape and found.dtype is wanted.dtype
        if within and wanted.dtype.is_float:
            assert relative_error(found.to("cpu"), wanted.reshape(-1).tolist()) <= within
        else:
            assert str(found.tolist()) == str(wanted.tolist())
