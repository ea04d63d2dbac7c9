"""The step that a thread records: it holds the memory that it works on, and what could not run again is refused.

A recorded step runs again without Python and knows addresses only. So whatever takes an address while it is recorded
says whose memory it is, and whatever a second run would leave out, or would do to memory that is somebody else's by
then, is an error that names it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final, Protocol

from pio.errors import RecordingError

# Code of these modules works for whoever calls it; an error names who that was.
_BASE: Final = ("pio.ops.", "pio.memory.", "pio.tensor")
_AROUND: Final = ("contextlib", "pio.ops._elsewhere")  # functions of these are around others, and name nothing

ALLOCATES: Final = (
    "a step that runs again would write into memory that is somebody else's by then; give out= (and scratch=) with "
    "memory that is asked for when the block is built, by workspace.rooms; an operation that takes no out= cannot be "
    "part of a step"
)
READS: Final = (
    "a step that runs again leaves out Python, so what follows from the numbers of the first run would hold for ever; "
    "compute it by operations of pio.ops, or read it before or behind the step, or in a function for ops.host_call"
)
WRITES: Final = (
    "a step that runs again leaves out Python, so nothing would be written then; write it when the block is built, and "
    "copy it by ops.copy or copy_ from there, or write it in a function for ops.host_call"
)
FREES: Final = "a step that runs again would work on memory that is gone; free it behind the step"


class Holdable(Protocol):
    """What has memory whose address a step knows."""

    @property
    def freed(self) -> bool:
        """Whether any of it was given back, so that the step cannot run again."""
        ...


class Step:
    """A step that is being recorded."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[int, Holdable] = {}

    def hold(self, owner: Holdable) -> None:
        """Keep a storage, or an object with the memory of many, for as long as the step can run again."""
        self._held[id(owner)] = owner

    @property
    def held(self) -> tuple[Holdable, ...]:
        """What the step holds."""
        return tuple(self._held.values())


_last_freed = object()


def last_freed() -> object:
    """Return what is another object whenever memory was freed meanwhile, so that steps look only then."""
    return _last_freed


def note_freed() -> None:
    """Tell steps that memory was freed; called behind whatever says so."""
    global _last_freed
    _last_freed = object()


class _Local(threading.local):
    step: Step | None = None  # what this thread records


local: Final = _Local()


def hold(owner: Holdable) -> None:
    """Let the step that this thread records, if there is one, hold an object."""
    if local.step is not None:
        local.step.hold(owner)


def refuse(does: str, because: str) -> None:
    """Raise an error where this thread records a step.

    Args:
        does: What is done, as a verb with its object, such as ``"reads numbers"``.
        because: Why it could not run again, and the remedy.

    Raises:
        RecordingError: This thread records a step; the message names the operation and the line that called it.
    """
    if local.step is not None:
        name, line = _caller(sys._getframe(1))  # pyright: ignore[reportPrivateUsage]  documented, and only for errors
        raise RecordingError(f"{name} {does} in a step that is recorded ({line}): {because}")


@contextmanager
def recorded() -> Generator[Step]:
    """Record a step in this thread.

    Raises:
        RecordingError: This thread records one already.
    """
    refuse("records a step", "steps do not nest; record the inner one before or behind it")
    local.step = Step()
    try:
        yield local.step
    finally:
        local.step = None


@contextmanager
def paused() -> Generator[None]:
    """Do something beside the step that this thread records, such as reading what an error names."""
    step, local.step = local.step, None
    try:
        yield
    finally:
        local.step = step


def _caller(frame: FrameType | None) -> tuple[str, str]:
    """Return the operation or method that was called from outside of the modules below, and the line that did."""
    name = "pio"
    while frame is not None:
        module, code = str(frame.f_globals.get("__name__", "")), frame.f_code
        if not f"{module}.".startswith(_BASE) and module not in _AROUND:
            file = "/".join(Path(code.co_filename).parts[-2:])
            return name, f"{file}:{frame.f_lineno}, {code.co_qualname}"
        if module not in _AROUND:
            name = f"ops.{code.co_name}" if module.startswith("pio.ops.") else code.co_qualname
        frame = frame.f_back
    return name, "no caller"
