"""Literals of PTX: whole numbers, floats as bits or in decimals."""

from __future__ import annotations

import re
import struct

from .operands import Immediate

_INTEGER = re.compile(r"([+-]?)(0[xX][0-9a-fA-F]+|0[bB][01]+|\d+)U?$")
_BITS = re.compile(r"([+-]?)0([fFdD])([0-9a-fA-F]+)$")
_DECIMAL = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?$")


def integer(text: str) -> int | None:
    """Return a whole number, or None where the text is none."""
    found = _INTEGER.match(text)
    if not found:
        return None
    sign, digits = found.groups()
    octal = len(digits) > 1 and digits[0] == "0" and digits[1] in "01234567"
    value = int(digits, 8) if octal else int(digits, 0)
    return -value if sign == "-" else value


def literal(text: str) -> Immediate | None:
    """Return a literal, or None where the text is none."""
    found = _BITS.match(text)
    if found and len(found[3]) == (8 if found[2] in "fF" else 16):
        sign, letter, digits = found.groups()
        kind = "f32" if letter in "fF" else "f64"
        bits = int(digits, 16) ^ ((1 << 4 * len(digits) - 1) if sign == "-" else 0)
        if kind == "f32":
            return Immediate(bits, kind)  # kept as bits: a NaN keeps its payload
        return Immediate(struct.unpack("<d", struct.pack("<Q", bits))[0], kind)
    value = integer(text)
    if value is not None:
        return Immediate(value)
    if text == "WARP_SZ":
        return Immediate(32)
    if _DECIMAL.match(text):
        return Immediate(float(text), "f64")
    return None
