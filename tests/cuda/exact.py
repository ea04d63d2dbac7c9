"""Floats without floats: values as fractions, rounded to a format bit by bit."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple


class Format(NamedTuple):
    """Bits of the exponent and of the fraction; whether the last exponent holds infinity and NaN."""

    exponent: int
    fraction: int

    @property
    def bias(self) -> int:
        return 2 ** (self.exponent - 1) - 1

    @property
    def infinity(self) -> int:
        return (2**self.exponent - 1) << self.fraction

    @property
    def sign(self) -> int:
        return 1 << (self.exponent + self.fraction)


FORMATS = {"f16": Format(5, 10), "bf16": Format(8, 7), "f32": Format(8, 23), "f64": Format(11, 52)}
NANS = {"f16": 0x7FFF, "bf16": 0x7FFF, "f32": 0x7FFFFFFF}  # what operations give, where it is defined


def is_nan(bits: int, name: str) -> bool:
    form = FORMATS[name]
    return bits & (form.sign - 1) > form.infinity


def is_infinite(bits: int, name: str) -> bool:
    form = FORMATS[name]
    return bits & (form.sign - 1) == form.infinity


def value(bits: int, name: str) -> Fraction:
    """Return what finite bits stand for."""
    form = FORMATS[name]
    exponent, fraction = bits >> form.fraction & (2**form.exponent - 1), bits & (2**form.fraction - 1)
    whole = fraction + (2**form.fraction if exponent else 0)
    size = Fraction(whole) * Fraction(2) ** (max(exponent, 1) - form.bias - form.fraction)
    return -size if bits & form.sign else size


def rounded(exact: Fraction, name: str, mode: str = "rn", negative_zero: bool = False) -> int:
    """Return the bits of a fraction rounded to nearest even (rn), to zero (rz), down (rm) or up (rp)."""
    form = FORMATS[name]
    negative = exact < 0 or (exact == 0 and negative_zero)
    size = abs(exact)
    least = 1 - form.bias
    exponent = least
    if size:
        exponent = size.numerator.bit_length() - size.denominator.bit_length()
        if Fraction(2) ** exponent > size:
            exponent -= 1
        exponent = max(exponent, least)
    units = size / Fraction(2) ** (exponent - form.fraction)
    whole, rest = units.numerator // units.denominator, units - units.numerator // units.denominator
    up = {
        "rn": rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2 == 1),
        "rz": False,
        "rm": negative and rest > 0,
        "rp": not negative and rest > 0,
    }[mode]
    whole += up
    bits = whole + ((exponent + form.bias - 1) << form.fraction)  # the carry goes into the exponent by itself
    if bits >= form.infinity:
        inward = mode == "rz" or (mode == "rm" and not negative) or (mode == "rp" and negative)
        bits = form.infinity - 1 if inward else form.infinity
    return bits | (form.sign if negative else 0)


def flushed(bits: int, name: str) -> int:
    """Return bits with a subnormal value as a zero of its sign."""
    form = FORMATS[name]
    return bits & form.sign if not bits & form.infinity else bits
