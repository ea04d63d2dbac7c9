"""The blocks of a cache: memory, and in which format positions are stored in it."""

from __future__ import annotations

from typing import Final

from pio.dtypes import DType, bfloat16, float16, float32, uint8
from pio.errors import TensorError
from pio.memory.layout import Shape
from pio.memory.storage import Storage
from pio.ops._check import check_tensor
from pio.tensor import Tensor

# Formats that attention reads and writes, and the type of their elements in memory: int8 has scales among its numbers.
STORED: Final[dict[str, DType]] = {"float32": float32, "float16": float16, "bfloat16": bfloat16, "int8": uint8}


class Pages(Tensor):
    """A tensor that says in which format positions are stored in it; what a cache hands to the layers.

    Its views and copies (``to``, ``clone``, ``astype``) are tensors as any other, which say nothing of it.

    Attributes:
        format: How positions are stored; by default as the elements are.
    """

    __slots__ = ("format",)

    def __init__(
        self, storage: Storage, address: int, dtype: DType, shape: Shape, strides: Shape, format: str | None = None
    ) -> None:
        """Describe blocks that lie inside ``storage``; operations check whether they are of that format."""
        super().__init__(storage, address, dtype, shape, strides)
        self.format = dtype.name if format is None else format

    @classmethod
    def of(cls, tensor: Tensor, format: str) -> Pages:
        """Return the same memory, with the format of what is stored there."""
        return cls(tensor.storage, tensor.address, tensor.dtype, tensor.shape, tensor.strides, format)


def stored_type(what: str, format: DType | str) -> DType:
    """Return the type of a format's elements in memory.

    Raises:
        TensorError: There is no such format.
    """
    found = STORED.get(str(format))
    if found is None:
        raise TensorError(f"a cache of {what} cannot be {format}, expected one of {', '.join(STORED)}")
    return found


def check_pages(op: str, name: str, x: Tensor) -> str:
    """Return in which format positions are stored there; a tensor that does not say it stores them as its elements are.

    Raises:
        TensorError: There is no such format, or its elements are of another type.
    """
    check_tensor(op, name, x)
    format = x.format if isinstance(x, Pages) else x.dtype.name
    if format not in STORED:
        raise TensorError(
            f"{op}: {name} is a cache of {format}, expected one of {', '.join(STORED)}; give what the cache's layer() "
            "returns as it is, for views and what to(), clone() and astype() make have no format any more; or say with "
            "ops.Pages.of(tensor, format) how positions are stored there"
        )
    if x.dtype is not STORED[format]:
        raise TensorError(f"{op}: {name} is {x.dtype}, expected {STORED[format]} for a cache of {format}")
    return format
