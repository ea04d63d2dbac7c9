"""Python's operators on tensors: all but ``@`` are functions of ``pio.ops``, and say which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NoReturn

from pio.errors import TensorError

_NUMBER: Final = "a number is a tensor too: Tensor.full(v.shape, number)"
_ADD: Final = f"call pio.ops.add(v, w) with two tensors of one shape; {_NUMBER}"
_SUBTRACT: Final = f"call pio.ops.add(v, pio.ops.mul(w, Tensor.full(w.shape, -1.0))); {_NUMBER}"
_MULTIPLY: Final = f"call pio.ops.mul(v, w) with two tensors of one shape; {_NUMBER}"
_DIVIDE: Final = f"call pio.ops.mul(v, w) where w holds the inverse numbers; {_NUMBER}"
_NEGATE: Final = "call pio.ops.mul(v, Tensor.full(v.shape, -1.0))"
_COMPARE: Final = "compare numbers: v.tolist(), v[i].item(); pio.ops.top_k finds the largest"
_NONE: Final = "pio.ops has no such operation; compute it on numbers, v.tolist(), or by a kernel"
_WRITE: Final = "write v[i].fill_(number) or v[i].copy_(tensor)"

_BINARY: Final = {
    "add": ("+", _ADD),
    "sub": ("-", _SUBTRACT),
    "mul": ("*", _MULTIPLY),
    "truediv": ("/", _DIVIDE),
    "floordiv": ("//", _NONE),
    "mod": ("%", _NONE),
    "pow": ("**", _NONE),
    "matmul": ("@", "call pio.ops.matmul(v, w) with two tensors"),
}
_COMPARISONS: Final = {"lt": ("<", _COMPARE), "le": ("<=", _COMPARE), "gt": (">", _COMPARE), "ge": (">=", _COMPARE)}
_UNARY: Final = {"neg": ("-v", _NEGATE), "abs": ("abs(v)", _NONE), "invert": ("~v", _NONE)}


def _between(symbol: str, remedy: str) -> Callable[[Any, Any], Any]:
    def operator(self: Any, other: object, /) -> Any:
        # an object of another library may know what to do with a tensor
        if isinstance(other, (type(self), int, float, complex, list, tuple)):
            raise TensorError(f"a tensor has no operator {symbol} for a {type(other).__name__}: {remedy}")
        return NotImplemented

    return operator


def _of_one(symbol: str, remedy: str) -> Callable[[Any], NoReturn]:
    def operator(self: Any, /) -> NoReturn:
        raise TensorError(f"a tensor has no operator {symbol}: {remedy}")

    return operator


def _assign(self: Any, key: object, value: object, /) -> NoReturn:
    raise TensorError(f"elements of a tensor are not assigned to: {_WRITE}")


def add_refusals(cls: type) -> None:
    """Give a class, where it lacks them, methods that raise a TensorError which names the operation to call."""
    for name, refusal in _refusals().items():
        if name not in vars(cls):
            setattr(cls, name, refusal)


def _refusals() -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {"__setitem__": _assign}
    for name, (symbol, remedy) in (_BINARY | _COMPARISONS).items():
        found[f"__{name}__"] = _between(symbol, remedy)
        if name in _BINARY:
            found[f"__r{name}__"] = _between(symbol, remedy)
    found.update({f"__{name}__": _of_one(symbol, remedy) for name, (symbol, remedy) in _UNARY.items()})
    return found
