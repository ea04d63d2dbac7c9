"""Locks that are free in a forked child, whatever other threads of its parent were doing."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, ExitStack
from typing import Any


def free_in_children(*locks: AbstractContextManager[Any]) -> None:
    """Have the thread that forks hold these locks meanwhile: the child has no other thread that could release one.

    Those that are named in later calls are taken before.

    Args:
        locks: In the order in which threads take them.
    """
    held = ExitStack()

    def take() -> None:
        for lock in locks:
            held.enter_context(lock)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=take, after_in_parent=held.close, after_in_child=held.close)
