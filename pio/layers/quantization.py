"""Which matrices of a model are quantized."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Literal

from pio.dtypes import uint8
from pio.errors import CheckpointError, NumericalError
from pio.memory.layout import row_major
from pio.memory.storage import Storage
from pio.ops.head_linear import pack_heads
from pio.ops.quantized import PackedWeight, pack, packed_shape
from pio.tensor import Tensor

# A layer's matrix; the embedding or the output head; a matrix of the tower that looks at pictures.
Role = Literal["linear", "table", "tower"]

# Formats of tables and towers, by policy. A table is read a row at a time, or decides between tokens; a tower is small
# beside its decoder, and works on so many patches that fewer bits make it no faster.
POLICIES: dict[str, dict[str, str]] = {
    "balanced": {"int8": "int8", "int4": "int8", "int4_zero_point": "int8"},
    "uniform": {"int8": "int8", "int4": "int4", "int4_zero_point": "int4_zero_point"},
}


@dataclass(frozen=True, slots=True)
class Quantization:
    """What becomes of matrices while a model loads.

    Attributes:
        forms: Format by role; a role that is missing keeps what is stored.
        packed: Called with the name of each matrix before it is packed.
    """

    forms: dict[Role, str] = field(default_factory=dict[Role, str])
    packed: Callable[[str], None] = lambda _: None

    @classmethod
    def of(cls, form: str | None, policy: str, packed: Callable[[str], None] = lambda _: None) -> Quantization:
        """Return what a format and a policy ask for; None keeps every matrix as stored."""
        if form is None:
            return cls({}, packed)
        other = POLICIES[policy][form]
        return cls({"linear": form, "table": other, "tower": other}, packed)

    def pack(self, name: str, weight: Tensor, form: str) -> PackedWeight:
        """Quantize a matrix into memory of its own, on the same device.

        Raises:
            CheckpointError: It holds what is no number, or too large a one.
        """
        self.packed(name)
        rows, columns = weight.shape
        shape = packed_shape((rows, columns), form)
        storage = Storage.allocate(prod(shape), what=f"the weights as {form}", device=weight.device)
        out = Tensor(storage, storage.address, uint8, shape, row_major(shape))
        with _naming(name):
            return pack(weight, form, out=out)

    def pack_heads(self, name: str, weight: Tensor, form: str) -> PackedWeight:
        """Quantize the matrices that heads have, made of the tensor of that name; see ``ops.pack_heads``.

        Raises:
            CheckpointError: One holds what is no number, or too large a one.
        """
        self.packed(name)
        with _naming(name):
            return pack_heads(weight, form)


@contextmanager
def _naming(name: str) -> Generator[None]:
    """Say which tensor cannot be quantized."""
    try:
        yield
    except NumericalError as error:
        raise CheckpointError(
            f"tensor {name!r} cannot be quantized: {error}; the file is damaged or the model diverged in training, "
            "download it again or load it without quantize"
        ) from error
