"""What loading a model will take, found out by building it without its weights."""

from __future__ import annotations

from pio.dtypes import DType, float32, uint8
from pio.layers.source import Recipe, Shape, Source
from pio.memory.storage import Storage
from pio.ops.head_linear import packed_heads_shape
from pio.ops.quantized import PackedWeight, check_format, packed_shape
from pio.tensor import Tensor


class Rehearsal(Source):
    """A source that counts as any, and gives blanks in the place of what would be made; mapped tensors are as stored.

    So ``inventory`` is what a model will hold with this type and quantization, to the byte, before anything is made.
    """

    __slots__ = ()

    def _placed(self, full: str, stored: Tensor) -> Tensor:
        return stored

    def _converted(self, full: str, tensor: Tensor, dtype: DType) -> Tensor:
        return blank(tensor.shape, dtype)

    def _packed(self, full: str, shape: tuple[int, int], form: str) -> PackedWeight:
        self.weights.take(full, shape)  # checks it
        return _BlankWeight(shape, form)

    def _made(self, stored: Tensor, recipe: Recipe, dtype: DType) -> list[Tensor]:
        return [blank(part, dtype) for part in recipe.parts]

    def _packed_heads(self, full: str, stored: Tensor, recipe: Recipe, form: str) -> list[PackedWeight]:
        return [_BlankWeight(packed_heads_shape(part), form) for part in recipe.parts]


class _BlankWeight(PackedWeight):
    """A packed matrix that takes no memory."""

    __slots__ = ()

    def __init__(self, shape: tuple[int, int], form: str) -> None:
        self.data, self.form, self.shape = blank(packed_shape(shape, form), uint8), check_format(form), shape

    def rows(self, first: int, last: int) -> PackedWeight:
        """Return as many rows, blank too."""
        return _BlankWeight((last - first, self.shape[1]), self.form.name)


def blank(shape: Shape, dtype: DType = float32) -> Tensor:
    """Return a tensor of that shape which is one zero everywhere."""
    storage = Storage.allocate(dtype.itemsize)
    return Tensor(storage, storage.address, dtype, shape, (0,) * len(shape))
