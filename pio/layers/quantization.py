"""Which matrices of a model are quantized, and as what activations meet a matrix."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Literal

from pio.device import Device
from pio.dtypes import bfloat16, uint8
from pio.errors import CheckpointError, NumericalError
from pio.memory import step
from pio.memory.budget import MemoryBudget
from pio.memory.layout import row_major
from pio.memory.storage import Storage
from pio.ops.bfloat16 import rounded_bytes
from pio.ops.head_linear import pack_heads
from pio.ops.quantized import PackedWeight, pack, packed_shape, record_bytes
from pio.tensor import Tensor

RECORDS = "quantized or rounded activations (fewer with prefill_chunk)"
Role = Literal["linear", "table"]  # a layer's matrix; the embedding or the output head

# Formats of layers and of tables, by policy. A table is read a row at a time, or decides between tokens.
POLICIES: dict[str, dict[str, str]] = {
    "balanced": {"int8": "int8", "int4": "int8", "int4_zero_point": "int8"},
    "uniform": {"int8": "int8", "int4": "int4", "int4_zero_point": "int4_zero_point"},
}


class Records:
    """Memory for quantized or rounded activations: one step's rows of the widest layer, shared by all layers.

    Args:
        rows: Most rows of a step.
        budget: Counts the memory.
        round_inputs: Whether inputs of layers with bfloat16 weights are rounded to bfloat16.
        device: Where it lies.
    """

    def __init__(
        self,
        rows: int,
        budget: MemoryBudget | None = None,
        *,
        round_inputs: bool = False,
        device: Device | None = None,
    ) -> None:
        self._rows = rows
        self._budget = budget
        self._device = device
        self._round_inputs = round_inputs
        self._row_bytes = 0
        self._buffer: Tensor | None = None

    @property
    def rounds_inputs(self) -> bool:
        """Whether inputs are rounded where weights are bfloat16."""
        return self._round_inputs

    def rounds(self, weight: Tensor | PackedWeight) -> bool:
        """Return whether inputs are rounded before they are multiplied by this matrix."""
        return self._round_inputs and isinstance(weight, Tensor) and weight.dtype is bfloat16

    def expect(self, weight: Tensor | PackedWeight) -> None:
        """Note that there is a layer with this matrix."""
        columns = weight.shape[1]
        if isinstance(weight, PackedWeight):
            self._row_bytes = max(self._row_bytes, record_bytes(columns))
        elif self.rounds(weight):
            self._row_bytes = max(self._row_bytes, rounded_bytes(columns))

    def expect_heads(self, heads: int, weight: PackedWeight) -> None:
        """Note that there is a layer whose heads have a packed matrix each, side by side in this weight."""
        self._row_bytes = max(self._row_bytes, heads * record_bytes(weight.shape[1]))

    @property
    def buffer(self) -> Tensor:
        """uint8, made when it is first asked for; its address stays."""
        if self._buffer is None:
            nbytes = self._rows * self._row_bytes
            with step.paused():  # no memory of the step's: it is kept here
                storage = Storage.allocate(nbytes, budget=self._budget, what=RECORDS, device=self._device)
            self._buffer = Tensor(storage, storage.address, uint8, (nbytes,), (1,))
        return self._buffer

    @property
    def nbytes(self) -> int:
        """Bytes that are or will be taken."""
        return self._rows * self._row_bytes


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
        forms: dict[Role, str] = {} if form is None else {"linear": form, "table": POLICIES[policy][form]}
        return cls(forms, packed)

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
