"""The types of PTX and how NumPy holds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .errors import UnknownInstruction

UNSIGNED: Final = {1: "u1", 2: "u2", 4: "u4", 8: "u8"}  # bytes to dtype
SIGNED: Final = {1: "i1", 2: "i2", 4: "i4", 8: "i8"}


@dataclass(frozen=True, slots=True)
class Type:
    """A type of PTX.

    kind is "u", "s", "b" (bits), "f" (IEEE), "bf" (bfloat16), "fx2"/"bfx2" (two of them) or "pred"; dtype is what an
    operation computes with, where NumPy has it, else that of the bits.
    """

    name: str
    kind: str
    nbytes: int
    dtype: str

    @property
    def bits(self) -> str:
        """The dtype of the bits alone."""
        return "?" if self.kind == "pred" else UNSIGNED[self.nbytes]

    @property
    def is_signed(self) -> bool:
        return self.kind == "s"

    @property
    def is_half(self) -> bool:
        """Whether it is a float of 16 bits, or two of them."""
        return self.kind in ("bf", "fx2", "bfx2") or self.name == "f16"

    @property
    def is_integer(self) -> bool:
        return self.kind in ("u", "s", "b")


def _types() -> dict[str, Type]:
    found: dict[str, Type] = {"pred": Type("pred", "pred", 1, "?")}
    for nbytes, bits in ((1, 8), (2, 16), (4, 32), (8, 64)):
        for kind in "usb":
            found[f"{kind}{bits}"] = Type(f"{kind}{bits}", kind, nbytes, f"{'i' if kind == 's' else 'u'}{nbytes}")
        if nbytes > 1:
            found[f"f{bits}"] = Type(f"f{bits}", "f", nbytes, f"f{nbytes}")
    found["bf16"] = Type("bf16", "bf", 2, "u2")
    found["f16x2"] = Type("f16x2", "fx2", 4, "u4")
    found["bf16x2"] = Type("bf16x2", "bfx2", 4, "u4")
    found["tf32"] = Type("tf32", "b", 4, "u4")
    for name in ("e4m3x2", "e5m2x2"):
        found[name] = Type(name, "b", 2, "u2")
    return found


TYPES: Final = _types()


def type_of(name: str) -> Type:
    """Return the type of a name without its dot."""
    if name not in TYPES:
        raise UnknownInstruction(f"type .{name}")
    return TYPES[name]
