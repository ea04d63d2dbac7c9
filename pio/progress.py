"""Progress bars for what takes longer than a second: loading, and the first compilation of kernels."""

from __future__ import annotations

from types import TracebackType


class Progress:
    """Shows what is going on, on a terminal, once it takes longer than a second."""

    def __init__(self, wanted: bool | None, title: str) -> None:
        self.wanted = wanted
        self.title = title

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None
