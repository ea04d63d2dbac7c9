"""The scales of packed weights: the only part that can hold what is no number."""

from __future__ import annotations

from pio.dtypes import float16
from pio.ops.quantized import PackedWeight
from pio.ops.reduce import first_non_finite
from pio.tensor import Tensor

_CHUNK = 1 << 24  # bytes whose scales are looked at together


def bad_scale(packed: PackedWeight) -> tuple[int, int] | None:
    """Return row and first column of a group whose scale or minimum is NaN or infinite, or None where there is none."""
    (blocks, pairs, pair_bytes), form = packed.data.shape, packed.form
    width = form.header_bytes // float16.itemsize
    strides = pairs * pair_bytes // float16.itemsize, pair_bytes // float16.itemsize, 1
    step = max(1, _CHUNK // (pairs * pair_bytes)) if pairs else blocks
    for first in range(0, blocks, step):
        count = min(step, blocks - first)
        at = packed.data.address + first * pairs * pair_bytes
        scales = Tensor(packed.data.storage, at, float16, (count, pairs, width), strides).contiguous()
        found = first_non_finite(scales)
        if found is not None:
            block, rest = divmod(found, pairs * width)
            pair, item = divmod(rest, width)
            group, row = divmod(item % 32, 16)  # scales (2, 16), then minima (2, 16)
            return (first + block) * 16 + row, pair * 64 + group * 32
    return None
