"""Kernels that exist once for each element type."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class PerDtype(Generic[T]):
    """One thing for each element type, made when first asked for: ``load["bfloat16"]``."""

    if TYPE_CHECKING:
        # inside a kernel that is made for each type, the name stands for the member of that type
        __call__: T

        def __mul__(self, other: int) -> int: ...
        def __radd__(self, other: int) -> int: ...
        def __rsub__(self, other: int) -> int: ...
        def __rmul__(self, other: int) -> int: ...
        def __index__(self) -> int: ...

    def __init__(self, make: Callable[[str], T]) -> None:
        self._make = make
        self._made: dict[str, T] = {}

    def __getitem__(self, dtype: str) -> T:
        found = self._made.get(dtype)
        if found is None:
            found = self._made.setdefault(dtype, self._make(dtype))  # of two threads that make one, both get the first
        return found


def by_dtype(made: Mapping[str, T]) -> PerDtype[T]:
    """Choose among existing functions by element type."""
    return PerDtype(made.__getitem__)


def specialise(fn: F, dtype: str) -> F:
    """Return fn with its per-dtype globals replaced, and a name that carries the dtype."""
    scope = dict(fn.__globals__)
    for name in fn.__code__.co_names:
        value = scope.get(name)
        if isinstance(value, PerDtype):
            scope[name] = cast("PerDtype[Any]", value)[dtype]
    made = types.FunctionType(fn.__code__, scope, f"{fn.__name__}_{dtype}", fn.__defaults__)
    made.__qualname__ = f"{fn.__qualname__}_{dtype}"
    made.__module__, made.__doc__, made.__annotations__ = fn.__module__, fn.__doc__, fn.__annotations__
    made.__dict__.update(generic=fn.__name__, dtype=dtype)
    return cast("F", made)
