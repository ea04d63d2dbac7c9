"""Element types: one object each, with its names in safetensors, DLPack and the buffer protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pio.errors import ConfigError


@dataclass(frozen=True, slots=True, eq=False)
class DType:
    """One element type.

    Attributes:
        name: What users write, such as ``"bfloat16"``.
        itemsize: Bytes an element.
        safetensors: The name in a safetensors header, such as ``"BF16"``.
        dlpack: DLPack type code and bits.
        format: Buffer-protocol format; the 16-bit floats, which ``struct`` cannot all name, travel as ``"H"``.
        is_float: Whether elements are floating point.
    """

    name: str
    itemsize: int
    safetensors: str
    dlpack: tuple[int, int]
    format: str
    is_float: bool

    def __repr__(self) -> str:
        return f"pio.{self.name}"

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[object, tuple[str]]:  # one object a type, also after unpickling
        return dtype, (self.name,)


float32: Final = DType("float32", 4, "F32", (2, 32), "f", True)
float16: Final = DType("float16", 2, "F16", (2, 16), "H", True)
bfloat16: Final = DType("bfloat16", 2, "BF16", (4, 16), "H", True)
int8: Final = DType("int8", 1, "I8", (0, 8), "b", False)
uint8: Final = DType("uint8", 1, "U8", (1, 8), "B", False)
int32: Final = DType("int32", 4, "I32", (0, 32), "i", False)
int64: Final = DType("int64", 8, "I64", (0, 64), "q", False)

ALL: Final = (float32, float16, bfloat16, int8, uint8, int32, int64)
_BY_NAME = {d.name: d for d in ALL}
# What other programs call them.
_ALIASES = {
    **dict.fromkeys(("float", "fp32", "f32"), "float32"),
    **dict.fromkeys(("half", "fp16", "f16"), "float16"),
    "bf16": "bfloat16",
}
_BY_SAFETENSORS = {d.safetensors: d for d in ALL}
_BY_DLPACK = {d.dlpack: d for d in ALL}


def full_name(value: str | DType) -> str:
    """Return the name that ``value`` stands for: ``"bfloat16"`` for ``"bf16"``; what is no such name as it is."""
    name = str(value).removeprefix("torch.")
    return _ALIASES.get(name.lower(), name)


def dtype(value: str | DType) -> DType:
    """Return the element type of that name, which may be a short one such as ``"bf16"``.

    Raises:
        ConfigError: There is no such type.
    """
    if isinstance(value, DType):
        return value
    found = _BY_NAME.get(full_name(value))
    if found is None:
        raise ConfigError(f"unknown dtype {value!r}; use one of {', '.join(_BY_NAME)}")
    return found


def from_safetensors(name: str) -> DType | None:
    """Return the type a safetensors header calls ``name``, or None where pio has none."""
    return _BY_SAFETENSORS.get(name)


def from_dlpack(code: int, bits: int) -> DType | None:
    """Return the type of a DLPack code and width, or None where pio has none."""
    return _BY_DLPACK.get((code, bits))
