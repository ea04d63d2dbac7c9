"""Where chat templates lay before they moved to ``pio.text``: programs that import them from here go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pio.text.chat_template import ChatTemplate

__all__ = ["ChatTemplate"]


def __getattr__(name: str) -> Any:
    from pio.text import chat_template  # here, for what moved is above this folder

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(chat_template, name)
