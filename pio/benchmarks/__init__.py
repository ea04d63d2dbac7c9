"""How fast models are: what is measured, on which model, and how it is reported."""

from __future__ import annotations

from typing import Final

# Of a prompt or an answer that is measured: more than any context. It stands here, where no pydantic is, for the help
# of the command line.
MAX_TOKENS: Final = 1 << 24
