"""Operations on a GPU that has no kernel for them: they run on the CPU, over copies, and write back what they write.

A kernel is missing where it is switched off, where it cannot be made for the GPU, and where there is none yet. Whoever
calls the operation sees no difference but in time; a recorded step does the same again each time it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, wraps
from inspect import BoundArguments, Signature, isfunction, signature
from sys import modules
from typing import Any, Final

from pio.kernels import jobs
from pio.kernels._missing import MissingKernel
from pio.memory import step
from pio.ops._tensors import noted
from pio.ops._twins import Twins, place
from pio.ops.program import host_call

_BY_ADDRESS: Final = ("place_rows", "add_rows")  # their rows are addresses of others


def cover(package: dict[str, Any], names: Iterable[str]) -> None:
    """Have the functions of those names find the way to the CPU, in the package and in the modules that they are from.

    Args:
        package: Names and values of the package.
        names: Of its operations; classes, and functions of steps, are left as they are.
    """
    for name in names:
        found = package[name]
        if isfunction(found) and found.__module__ != host_call.__module__:
            package[name] = covered = _covered(found)
            setattr(modules[found.__module__], name, covered)


def _covered(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except MissingKernel as missing:
            arguments = _signature(function).bind(*args, **kwargs)
            if not Twins(arguments.arguments):
                raise
            missing.__traceback__ = None  # it holds what the operation made before
        return _on_cpu(function, arguments)

    return run


@cache
def _signature(function: Callable[..., Any]) -> Signature:
    return signature(function)


def _on_cpu(function: Callable[..., Any], given: BoundArguments) -> Any:
    """Do an operation there, and in every later run of the step that is recorded, if any."""
    results, made = list[Any](), False

    def again() -> None:
        nonlocal made
        twins = Twins(given.arguments)
        result = _call(function, given.signature, twins, filled=True)
        results[:], made = [twins.original(result)], twins.moved

    if jobs.is_listing():  # the CPU's kernels are to be listed then
        twins = Twins(given.arguments)
        with step.paused(), jobs.paused():
            results.append(twins.original(_call(function, given.signature, twins, filled=False)))
        made = twins.moved
    else:
        host_call(again)
    if made:
        step.refuse("makes its result", step.ALLOCATES)
    return results.pop()


def _call(function: Callable[..., Any], parameters: Signature, twins: Twins, *, filled: bool) -> Any:
    """Do an operation on copies, and write back what it has written."""
    values = twins.make(filled=filled)
    before, noted.written = noted.written, []
    try:
        if filled and function.__name__ in _BY_ADDRESS:
            values["rows"], _kept = place(values["rows"], 4 * values["out"].shape[1], twins.device)
        call = parameters.bind_partial()
        call.arguments.update(values)
        result = function(*call.args, **call.kwargs)
        if filled:
            twins.write_back(noted.written)
    finally:
        noted.written = before
    return result
