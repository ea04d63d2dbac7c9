"""What a tensor is to those below it, who cannot import it: elements in memory, and the parts that it is made of."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from pio.dtypes import DType
from pio.memory.layout import Shape
from pio.memory.storage import Storage


class Parts(NamedTuple):
    """What a tensor is made of, in the order in which it takes them.

    Attributes:
        storage: The memory.
        address: Where element 0 is.
        dtype: Element type.
        shape: Lengths.
        strides: Elements from one position to the next along each axis.
    """

    storage: Storage
    address: int
    dtype: DType
    shape: Shape
    strides: Shape


class View(Protocol):
    """A tensor: elements of one type in memory, seen through a shape and strides."""

    storage: Storage
    dtype: DType
    shape: Shape
    strides: Shape

    def __init__(self, storage: Storage, address: int, dtype: DType, shape: Shape, strides: Shape) -> None:
        """See elements that lie inside ``storage``."""
        ...

    @property
    def address(self) -> int:
        """Address of element 0."""
        ...

    @property
    def ndim(self) -> int:
        """Number of axes."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        ...

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie in row-major order without gaps."""
        ...

    @property
    def readonly(self) -> bool:
        """Whether writing is forbidden."""
        ...

    def clone(self) -> View:
        """Return a row-major copy."""
        ...
