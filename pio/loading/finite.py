"""Weights that are no numbers, NaN or infinite, are refused, and the error says where the first one is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pio.errors import CheckpointError
from pio.loading.model_file import shown
from pio.loading.safetensors_header import shown_shape

if TYPE_CHECKING:
    from pio.ops.quantized import PackedWeight
    from pio.tensor import Tensor


def check_numbers(path: Path, name: str, tensor: Tensor) -> None:
    """Read a whole tensor of a file and check that it holds numbers; one of integers does.

    Raises:
        CheckpointError: It holds NaN or an infinity.
    """
    from pio.ops import first_non_finite  # compiles a kernel, which reading a header must not pay for

    index = first_non_finite(tensor) if tensor.dtype.is_float else None
    if index is None:
        return
    at: list[int] = []
    for size in reversed(tensor.shape):
        index, inner = divmod(index, size)
        at.insert(0, inner)
    raise CheckpointError(
        f"{path}: tensor {shown(name)} holds NaN or infinity, first at {shown_shape(tuple(at))}; "
        "the file is damaged or the model diverged in training, download it again or choose another"
    )


def check_scales(path: Path, name: str, packed: PackedWeight) -> None:
    """Read the scales of a packed matrix of a file and check that they are numbers; all else in it is.

    Raises:
        CheckpointError: One is NaN or infinite.
    """
    from pio.loading.packed_scales import bad_scale  # only such folders need it

    place = bad_scale(packed)
    if place is not None:
        raise CheckpointError(
            f"{path}: tensor {shown(name)} has a scale that is NaN or infinite, first for the group at "
            f"{shown_shape(place)}; the file is damaged, quantize the original folder again with pio quantize"
        )
