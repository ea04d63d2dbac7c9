"""The header of a safetensors file: names, types, shapes and places of its tensors, every one of them checked."""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn, cast

from pio.errors import CheckpointError
from pio.loading.json_file import more_than, parse_object
from pio.loading.model_file import shown

MAX_BYTES = 100_000_000
MAX_TENSORS = 1 << 18
MAX_DIMENSIONS = 16
_MAX_BITS = (1 << 63) - 1
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
    **{"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6},
}


class Entry(NamedTuple):
    """One tensor: its type as the header names it, its shape, and its bytes, counted from the start of the data."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def parse_header(raw: bytes, data_bytes: int, where: str) -> tuple[dict[str, Entry], dict[str, str]]:
    """Return the tensors by name, in the order of their offsets, and the metadata.

    Args:
        raw: The header's JSON text.
        data_bytes: How many bytes follow the header; the tensors must cover exactly these.
        where: File name, for messages.

    Raises:
        CheckpointError: Any entry is malformed, or the entries overlap, leave a gap or leave the file.
    """
    if not raw.startswith(b"{"):
        _fail(where, f"the header starts with {raw[:1]!r}, expected '{{'")
    # An entry is at least 50 characters long and opens three brackets. Text with more of them is no header, but would
    # grow to many times its size as Python objects.
    if more_than(3 * (len(raw) // 50) + 64, b"[{", raw):
        _fail(where, "the header is nested in a way that no list of tensors is")
    header = parse_object(raw, f"{where}: the header", max_values=MAX_TENSORS * 12)
    metadata = _metadata(header.pop("__metadata__", None), where)
    if len(header) > MAX_TENSORS:
        _fail(where, f"the header lists {len(header)} tensors, at most {MAX_TENSORS} are accepted")
    entries = [(name, _entry(name, value, where)) for name, value in header.items()]
    entries.sort(key=lambda item: (item[1].begin, item[1].end))
    position = 0
    for name, entry in entries:
        if entry.begin != position:
            problem = "overlaps the tensor before it" if entry.begin < position else "leaves a gap before it"
            _fail(where, f"tensor {shown(name)} {problem}: data_offsets begin at {entry.begin}, expected {position}")
        position = entry.end
    if position != data_bytes:
        _fail(where, f"the tensors end at byte {position} of the data, but the file holds {data_bytes} bytes of data")
    return dict(entries), metadata


def _entry(name: str, value: Any, where: str) -> Entry:
    tensor = f"tensor {shown(name)}"
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        _fail(where, f"the name of {tensor} is not valid Unicode")
    if not isinstance(value, dict) or cast("dict[str, Any]", value).keys() != {"dtype", "shape", "data_offsets"}:
        _fail(where, f"{tensor} must be an object with exactly dtype, shape and data_offsets")
    fields = cast("dict[str, Any]", value)
    dtype, shape, offsets = fields["dtype"], _sizes(fields["shape"]), _sizes(fields["data_offsets"])
    if not isinstance(dtype, str) or not 0 < len(dtype) <= 32:
        _fail(where, f"{tensor}: dtype is {shown(dtype)}, expected a name such as 'BF16'")
    if shape is None or len(shape) > MAX_DIMENSIONS:
        _fail(where, f"{tensor}: shape must be a list of at most {MAX_DIMENSIONS} integers from 0 to 2**63-1")
    if offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        _fail(where, f"{tensor}: data_offsets must be two integers [begin, end] with 0 <= begin <= end")
    begin, end = offsets
    bits, stride = _BITS.get(dtype, 0), _BITS.get(dtype, 0) or 1
    for size in shape:
        bits, stride = bits * size, stride * max(size, 1)  # a zero elsewhere must not hide strides that overflow
        if stride > _MAX_BITS:
            _fail(where, f"{tensor}: shape {shown_shape(shape)} of {dtype} overflows 2**63 bits")
    if dtype in _BITS and bits != (end - begin) * 8:
        _fail(
            where,
            f"{tensor}: shape {shown_shape(shape)} of {dtype} needs {-(-bits // 8)} bytes, "
            f"but data_offsets [{begin}, {end}] span {end - begin}",
        )
    return Entry(dtype, shape, begin, end)


def _sizes(value: Any) -> tuple[int, ...] | None:
    if not isinstance(value, list):
        return None
    items = cast("list[Any]", value)
    if any(type(item) is not int or not 0 <= item <= _MAX_BITS for item in items):  # type(): True is no size
        return None
    return tuple(items)


def _metadata(value: Any, where: str) -> dict[str, str]:
    if value is None:
        return {}
    if isinstance(value, dict) and all(isinstance(v, str) for v in cast("dict[str, Any]", value).values()):
        return cast("dict[str, str]", value)
    _fail(where, "__metadata__ must map strings to strings")


def shown_shape(shape: tuple[int, ...]) -> str:
    """Return a shape as messages write it, such as ``[2, 3]``."""
    return f"[{', '.join(map(str, shape))}]"


def _fail(where: str, problem: str) -> NoReturn:
    raise CheckpointError(f"{where}: {problem}; the file is damaged or hostile, download it again")
