"""Quantized weights: packing them, and the operations of layers that have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from pio.dtypes import float32, uint8
from pio.errors import NumericalError, TensorError
from pio.kernels import launcher, sizes
from pio.kernels._formats import BLOCK, FORMATS, GROUP, PAIR, RECORD, START, Format
from pio.kernels.sizes import gpu_own as gpu_own
from pio.ops._check import check, check_float, check_tensor, split
from pio.ops._linears import Matrix, Quantizing, multiply
from pio.ops._overlap import check_apart, check_outs_apart
from pio.ops._tensors import check_writable, result, scratch_rows
from pio.ops.gather import check_indices
from pio.ops.reduce import first_non_finite
from pio.tensor import Tensor

packing = launcher.module("packing")
quantize = launcher.module("quantize")
PRODUCTS = {"vnni": "AVX-512 VNNI", "avx2": "AVX2", "i8mm": "I8MM", "sdot": "DotProd", "neon": "NEON"}
WORK = 8  # of quantizing a number, against that of copying one
ROWS = 512  # rows of a weight that are packed at once: its float32 copy stays small


def product_instructions() -> tuple[str, ...]:
    """Return what kernels multiply quantized numbers with: names of instructions, those for few rows first."""
    usual = PRODUCTS.get(sizes.DOT, "plain ones")
    return (usual, "AMX") if sizes.AMX else (usual,)


class PackedWeight:
    """A matrix quantized by groups of 32 inputs and packed for the processor's vector units.

    Attributes:
        data: uint8 (blocks, pairs, bytes): 16 rows and 64 columns each, as ``pio/kernels/_formats.py`` lays them out.
        form: How numbers are stored.
        shape: (rows, columns) of the matrix.
    """

    __slots__ = ("data", "form", "shape")

    def __init__(self, data: Tensor, form: str, shape: tuple[int, int]) -> None:
        """Describe packed data.

        Raises:
            TensorError: The data have another shape or type than such a matrix has.
        """
        check_tensor("PackedWeight", "data", data)
        if min(shape) < 0:
            raise TensorError(f"PackedWeight: shape is {shape}, expected no negative sizes")
        wanted = packed_shape(shape, form)
        if data.dtype is not uint8 or data.shape != wanted or not data.is_contiguous:
            raise TensorError(
                f"PackedWeight: data is {data.dtype} {data.shape}, expected contiguous uint8 {wanted} for "
                f"{form} {shape}"
            )
        self.data, self.form, self.shape = data, FORMATS[form], shape

    @property
    def nbytes(self) -> int:
        """Bytes of numbers and scales."""
        return self.data.nbytes

    def to(self, device: str) -> PackedWeight:
        """Return this matrix on a device; errors as in ``Tensor.to``."""
        data = self.data.to(device)
        return self if data is self.data else PackedWeight(data, self.form.name, self.shape)

    def first(self, rows: int) -> PackedWeight:
        """Return the first rows, a view.

        Raises:
            TensorError: There are not that many.
        """
        if not 0 <= rows <= self.shape[0]:
            raise TensorError(f"PackedWeight: first({rows}) of {self.shape[0]} rows, expected 0 to {self.shape[0]}")
        return PackedWeight(self.data[: -(-rows // BLOCK)], self.form.name, (rows, self.shape[1]))

    def rows(self, first: int, last: int) -> PackedWeight:
        """Return some rows, a view.

        Raises:
            TensorError: There are none, or they do not begin where a block of 16 begins.
        """
        if not 0 <= first <= last <= self.shape[0] or first % BLOCK or (last % BLOCK and last != self.shape[0]):
            raise TensorError(
                f"PackedWeight: rows({first}, {last}) of {self.shape[0]}, expected ascending multiples of {BLOCK}"
            )
        data = self.data[first // BLOCK : -(-last // BLOCK)]
        return PackedWeight(data, self.form.name, (last - first, self.shape[1]))

    def __reduce__(self) -> NoReturn:
        raise TensorError("a PackedWeight cannot be pickled or copied; load the folder where it is needed")

    def __repr__(self) -> str:
        return f"PackedWeight({self.form.name}, {self.shape})"


def check_format(name: str) -> Format:
    """Return the format of that name.

    Raises:
        TensorError: There is none.
    """
    found = FORMATS.get(name)
    if found is None:
        raise TensorError(f"unknown format {name!r}; known ones are {', '.join(FORMATS)}")
    return found


def form_of(shape: tuple[int, ...]) -> str | None:
    """Return the format that packed bytes of this shape have, or None: each has pairs of another length."""
    return next((f.name for f in FORMATS.values() if len(shape) == 3 and shape[2] == f.pair_bytes), None)


def packed_shape(shape: tuple[int, int], form: str) -> tuple[int, int, int]:
    """Return the shape of the bytes that a matrix of that shape takes."""
    return -(-shape[0] // BLOCK), -(-shape[1] // PAIR), check_format(form).pair_bytes


def record_bytes(columns: int) -> int:
    """Return the bytes of a quantized row of activations of that length."""
    return START + -(-columns // PAIR) * RECORD


def pack(weight: Tensor, form: str, *, out: Tensor | None = None) -> PackedWeight:
    """Quantize a matrix: each group of 32 inputs gets the scale with which it loses least in squares.

    Args:
        weight: float32, float16 or bfloat16 (rows, columns), contiguous.
        form: ``"int8"``, ``"int4"`` (symmetric) or ``"int4_zero_point"`` (with a minimum for each group).
        out: uint8 of ``packed_shape``; made when not given. Must not share memory with weight.

    Returns:
        The matrix, in new memory or in ``out``.

    Raises:
        TensorError: Shapes or dtypes do not fit.
        NumericalError: The weight holds NaN, an infinity, or a number beyond what float16 can hold.
    """
    check_float("pack", "weight", weight, (None, None))
    rows, columns = weight.shape
    shape = packed_shape((rows, columns), form)
    data = Tensor.zeros(shape, uint8, weight.device) if out is None else out
    if out is not None:
        check("pack", "out", out, shape, uint8)
        check_writable("pack", "out", out)
        check_apart("pack", "out", out, weight=weight)
        out.fill_(0)
    bad = first_non_finite(weight)
    if bad is not None:
        raise NumericalError(f"pack: weight holds NaN or infinity at element {bad}")
    parts = weight.device.threads
    scratch = Tensor.zeros((parts, sizes.PACKING_FLOATS), device=weight.device)
    for first in range(0, rows, ROWS):
        chunk = weight[first : first + ROWS].astype(float32)
        at = data.address, chunk.address, scratch.address
        packing.on(weight.device).pack[form](*at, first // BLOCK, chunk.shape[0], columns, parts)
        too_large = [int(row) for row in scratch[:, 2 * GROUP].tolist() if row > 0]
        if too_large:
            raise NumericalError(
                f"pack: row {first + min(too_large) - 1} of weight holds a number beyond "
                f"{sizes.LARGEST_FLOAT16:.0f}, which float16 scales cannot stand for; keep this weight as it is"
            )
    return PackedWeight(data, form, (rows, columns))


def unpack(
    packed: PackedWeight, indices: Tensor | None = None, *, out: Tensor | None = None, trusted: bool = False
) -> Tensor:
    """Return rows of a packed matrix as float32: an embedding, or the whole matrix.

    Args:
        packed: (rows, columns).
        indices: int32 or int64 (n,), which rows; all by default.
        out: float32 (n, columns); made when not given.
        trusted: Whether the caller knows that all indices are in range, as for ``gather``.

    Raises:
        TensorError: Shapes or dtypes do not fit, or an index is out of range.
    """
    _check_packed("unpack", "packed", packed)
    rows, columns = packed.shape
    n, wide, at = rows, 0, 0
    if indices is not None:
        n, wide = check_indices("unpack", indices, rows, trusted=trusted)
        at = indices.address
    out = result("unpack", out, (n, columns), device=packed.data.device)
    check_apart("unpack", "out", out, packed=packed.data, indices=indices)
    device = packed.data.device
    make = packing.on(device).unpack[packed.form.name]
    make(out.address, packed.data.address, at, n, columns, wide, split(n * columns, device))
    return out


def quantized_linear(
    x: Tensor,
    weight: PackedWeight,
    bias: Tensor | None = None,
    *,
    out: Tensor | None = None,
    add: bool = False,
    scratch: Tensor | None = None,
) -> Tensor:
    """Multiply rows by the rows of a packed weight: ``x @ weight.T (+ out if add) (+ bias)``.

    Rows of x are quantized to int8 by groups of 32 inputs.

    Args:
        x: float32 (rows, k).
        weight: (n, k).
        bias: float32 (n,).
        out: float32 (rows, n); made when not given, zero where ``add`` is set. Must not share memory with x.
        add: Add to what ``out`` holds: a residual connection.
        scratch: uint8, at least rows * ``record_bytes(k)``, for the quantized rows; made when not given and needed,
            as for more than a few rows on a GPU. Must not share memory with the others.

    Returns:
        float32 (rows, n). A row's bits do not depend on the other rows or on threads.

    Raises:
        TensorError: Shapes or dtypes do not fit, or ``out`` is read-only.
    """
    op = "quantized_linear"
    _check_packed(op, "weight", weight)
    n, k = weight.shape
    check(op, "x", x, (None, k))
    if out is None:
        out = (Tensor.zeros if add else Tensor.empty)((x.shape[0], n), device=x.device)
    quantizing = Quantizing.of(x.shape[0], x.shape[1], x.device)
    records = _records(op, x, scratch, quantizing)
    matrix = _product(op, x, records, weight, bias, out)
    _quantize_and_multiply(weight.form.name, x, records, [matrix], quantizing, add=add)
    return out


def quantized_linears(
    x: Tensor,
    weights: Sequence[PackedWeight],
    outs: Sequence[Tensor],
    biases: Sequence[Tensor | None] | None = None,
    *,
    scratch: Tensor | None = None,
) -> None:
    """Compute several layers of one input: ``outs[i] = x @ weights[i].T (+ biases[i])``.

    Those of one format quantize the input once and run as one job; the bits are the same.

    Args:
        x: float32 (rows, k).
        weights: (n_i, k).
        outs: float32 (rows, n_i); none shares memory with x or another.
        biases: float32 (n_i,), or None for none.
        scratch: As in ``quantized_linear``.

    Raises:
        TensorError: Shapes or dtypes do not fit, or an output is read-only.
    """
    op = "quantized_linears"
    given = list(biases) if biases is not None else [None] * len(weights)
    for weight in weights:
        _check_packed(op, "weight", weight)
    if not weights:
        return
    form = weights[0].form
    if any(weight.form is not form for weight in weights):
        for weight, out, bias in zip(weights, outs, given, strict=True):
            quantized_linear(x, weight, bias, out=out, scratch=scratch)
        return
    check(op, "x", x, (None, weights[0].shape[1]))
    quantizing = Quantizing.of(x.shape[0], x.shape[1], x.device)
    records = _records(op, x, scratch, quantizing)
    matrices: list[Matrix] = []
    for weight, out, bias in zip(weights, outs, given, strict=True):
        matrices.append(_product(op, x, records, weight, bias, out))
    check_outs_apart(op, outs)
    _quantize_and_multiply(form.name, x, records, matrices, quantizing, add=False)


def _records(op: str, x: Tensor, scratch: Tensor | None, quantizing: Quantizing) -> Tensor:
    """Return the bytes that quantized rows go to; none are made where the kernel that multiplies quantizes them."""
    needed = quantizing.before or scratch is not None
    return scratch_rows(op, x, scratch, record_bytes(x.shape[1]) if needed else 0)


def _quantize_and_multiply(
    form: str, x: Tensor, records: Tensor, matrices: Sequence[Matrix], quantizing: Quantizing, *, add: bool
) -> None:
    rows, k = x.shape
    if quantizing.own:
        multiply(form, x.address, matrices, rows, k, x.device, add=add, own=True)
    if quantizing.before:
        quantize.on(x.device).quantize[form](records.address, x.address, rows, k, split(WORK * x.size, x.device))
        multiply(form, records.address, matrices, rows, k, x.device, add=add)


def _product(op: str, x: Tensor, records: Tensor, weight: PackedWeight, bias: Tensor | None, out: Tensor) -> Matrix:
    """Check one product; return what the kernel takes."""
    n, k = weight.shape
    check(op, "x", x, (None, k))
    check(op, "out", out, (x.shape[0], n))
    check_writable(op, "out", out)
    if bias is not None:
        check(op, "bias", bias, (n,))
    check_apart(op, "out", out, x=x, weight=weight.data, bias=bias, scratch=records)
    check_apart(op, "scratch", records, weight=weight.data, bias=bias)
    return out.address, weight.data.address, 0 if bias is None else bias.address, n


def _check_packed(op: str, name: str, packed: object) -> None:
    if not isinstance(packed, PackedWeight):
        raise TensorError(f"{op}: {name} is a {type(packed).__name__}, expected a PackedWeight; make one with ops.pack")
