"""Refusal: what is raised where Python or the system has no memory left."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Final

from pio.errors import OutOfMemoryError
from pio.memory.allocation import allocated_bytes
from pio.memory.sizes import format_bytes
from pio.system import HERE
from pio.threads import require_room

WORK_ROOM: Final = 32 << 20  # bytes for tokenizers and other libraries, beside what is counted


def memory_refused(error: BaseException, doing: str) -> OutOfMemoryError | None:
    """Return the error for memory that Python or the system refused, or None where it was something else.

    Args:
        error: What was raised.
        doing: What was being done, such as ``"loading a model"``.
    """
    if isinstance(error, OutOfMemoryError):
        return error
    if not isinstance(error, MemoryError) and not (isinstance(error, OSError) and HERE.refuses_memory(error)):
        return None
    return OutOfMemoryError(
        f"the system refused memory while {doing} ({str(error) or 'out of memory'}); pio holds "
        f"{format_bytes(allocated_bytes())} now: give the process more ({HERE.memory_remedy}), or ask for less"
    )


@contextlib.contextmanager
def memory_errors(doing: str) -> Generator[None]:
    """Raise an OutOfMemoryError in the place of whatever Python or the system raises where memory is refused.

    Without memory to work in, nothing is begun: libraries in Rust and C++ end the process where they find none.
    """
    try:
        require_room(WORK_ROOM, doing)
        yield
    except (MemoryError, OSError) as error:
        refused = memory_refused(error, doing)
        if refused is None:
            raise
        raise refused from error
