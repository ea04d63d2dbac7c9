"""Embeddings that come with a prompt, checked before it is queued."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from pio.dtypes import float32
from pio.errors import ConfigError
from pio.tensor import Tensor
from pio.text.encoded_prompt import PromptEmbeddings


def checked(given: Sequence[PromptEmbeddings], tokens: int, hidden_size: int) -> tuple[PromptEmbeddings, ...]:
    """Return stretches of embeddings as the engine takes them.

    Args:
        given: The stretches, in any order.
        tokens: Of the prompt.
        hidden_size: Width of the model's embeddings; 0 where it takes none.

    Raises:
        ConfigError: One has another form or width, reaches beyond the prompt, or into another one.
    """
    end = 0
    found = sorted(enumerate(given), key=lambda item: item[1].first)
    for index, stretch in found:
        name, rows = f"prompt: embeddings[{index}]", cast(Any, stretch.rows)
        if not isinstance(rows, Tensor) or rows.dtype is not float32 or rows.ndim != 2 or not rows.is_contiguous:
            raise ConfigError(f"{name}: rows are {_described(rows)}, expected contiguous float32 (n, {hidden_size})")
        count, width = rows.shape
        if width != hidden_size:
            raise ConfigError(
                f"{name}: rows have {width} numbers each, and the embeddings of this model have {hidden_size}; give "
                "rows that were made for it"
            )
        last = stretch.first + count
        if stretch.first < 0 or last > tokens:
            raise ConfigError(
                f"{name}: its {count} rows are for the tokens {stretch.first} to {last - 1}, and the prompt has "
                f"{tokens}; give as many token ids, any will do, as there are rows"
            )
        if stretch.first < end:
            raise ConfigError(f"{name}: token {stretch.first} has embeddings from another stretch; give each once")
        end = last
    return tuple(stretch for _, stretch in found)


def _described(rows: Any) -> str:
    if not isinstance(rows, Tensor):
        return f"a {type(rows).__name__}"
    return f"{'' if rows.is_contiguous else 'strided '}{rows.dtype} {rows.shape}"
