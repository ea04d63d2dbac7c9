"""The matrices of all experts of a layer, as operations on experts take them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pio.dtypes import int64
from pio.errors import TensorError
from pio.memory import step
from pio.ops._check import FLOATS
from pio.ops._overlap import check_same_device
from pio.ops.quantized import PackedWeight
from pio.tensor import Tensor


class ExpertWeights:
    """The matrices of all experts for one projection, each where the checkpoint has it.

    Attributes:
        matrices: One for each expert, all of one shape and form.
        shape: (n, k) of each.
        form: Name of the packed format or of the element type.
        contiguous: Whether rows lie side by side, as operations want them.
    """

    __slots__ = ("_addresses", "_last_freed", "contiguous", "form", "matrices", "shape")

    def __init__(self, matrices: Sequence[Tensor | PackedWeight]) -> None:
        """Collect matrices.

        Raises:
            TensorError: There is none, or they differ in shape or form.
        """
        if not matrices:
            raise TensorError("ExpertWeights: matrices is empty, expected one for each expert")
        forms = [(_form(matrix), matrix.shape) for matrix in matrices]
        for i, found in enumerate(forms):
            if found != forms[0]:
                raise TensorError(f"ExpertWeights: matrix {i} is {found}, expected {forms[0]} as matrix 0 is")
        self.matrices = tuple(matrices)
        for i, data in enumerate(self._data):
            check_same_device("ExpertWeights", "matrix 0", next(self._data), f"matrix {i}", data)
        self.form = forms[0][0]
        self.shape = matrices[0].shape[0], matrices[0].shape[1]
        self._last_freed = step.last_freed()  # before the addresses are read
        self._addresses = Tensor.from_list([data.address for data in self._data], int64, next(self._data).device)
        self.contiguous = self.packed or all(isinstance(m, Tensor) and m.is_contiguous for m in matrices)

    @property
    def addresses(self) -> Tensor:
        """int64 (experts,), where each matrix begins; a step that is recorded holds all of them.

        Raises:
            TensorError: The memory of one was freed.
        """
        freed = step.last_freed()
        if freed is not self._last_freed:
            for matrix in self._data:
                matrix.storage.check()
            self._last_freed = freed
        step.hold(self)
        return self._addresses

    @property
    def freed(self) -> bool:
        """Whether the memory of a matrix was given back."""
        return any(matrix.storage.freed for matrix in self._data)

    @property
    def _data(self) -> Iterator[Tensor]:
        return (m.data if isinstance(m, PackedWeight) else m for m in self.matrices)

    @property
    def packed(self) -> bool:
        """Whether the matrices are quantized."""
        return isinstance(self.matrices[0], PackedWeight)

    def __len__(self) -> int:
        return len(self.matrices)


def _form(matrix: Tensor | PackedWeight) -> str:
    if isinstance(matrix, PackedWeight):
        return matrix.form.name
    if matrix.dtype.name not in FLOATS or matrix.ndim != 2:
        raise TensorError(
            f"ExpertWeights: a matrix is {matrix.dtype} {matrix.shape}, expected a matrix of "
            f"{', '.join(FLOATS)}, or a PackedWeight"
        )
    return matrix.dtype.name
