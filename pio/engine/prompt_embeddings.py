"""Embeddings that come with a prompt, checked before it is queued."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pio.device import Device
from pio.dtypes import float32
from pio.errors import ConfigError
from pio.memory.arena import Arena
from pio.memory.budget import MemoryBudget
from pio.tensor import Tensor
from pio.text.encoded_prompt import PromptEmbeddings


def checked(
    given: Sequence[PromptEmbeddings], tokens: int, hidden_size: int, levels: int = 0
) -> tuple[PromptEmbeddings, ...]:
    """Return stretches of embeddings as the engine takes them.

    Args:
        given: The stretches, in any order.
        tokens: Of the prompt.
        hidden_size: Width of the model's embeddings; 0 where it takes none.
        levels: How many of the model's first layers have rows added behind them.

    Raises:
        ConfigError: One has another form or width, reaches beyond the prompt, or into another one.
    """
    for index, stretch in enumerate(given):
        _check_form(f"prompt: embeddings[{index}]", stretch, hidden_size, levels)
    end = 0
    found = sorted(enumerate(given), key=lambda item: item[1].first)
    for index, stretch in found:
        name, (count, _) = f"prompt: embeddings[{index}]", stretch.rows.shape
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


def placed(
    given: Sequence[PromptEmbeddings], device: Device, budget: MemoryBudget | None
) -> tuple[PromptEmbeddings, ...]:
    """Return stretches whose rows lie where the model runs: those that do as they are, of others a copy.

    Raises:
        OutOfMemoryError: The budget or the device has no room for the copies, which count as long as the prompt waits
            or is read.
    """
    return tuple(
        PromptEmbeddings(
            stretch.first,
            _placed(stretch.rows, device, budget),
            tuple(_placed(added, device, budget) for added in stretch.additions),
        )
        for stretch in given
    )


def _placed(rows: Tensor, device: Device, budget: MemoryBudget | None) -> Tensor:
    if rows.device == device:
        return rows
    what = "the embeddings of a prompt (fewer for a shorter one)"
    return Arena(rows.nbytes, budget=budget, what=what, device=device).take(rows.shape).copy_(rows)


def _check_form(name: str, stretch: Any, hidden_size: int, levels: int) -> None:
    """Refuse a stretch that is none, or whose rows the model could not take."""
    if not isinstance(stretch, PromptEmbeddings) or type(stretch.first) is not int:
        raise ConfigError(f"{name}: found {stretch!r}, expected pio.PromptEmbeddings(first, rows) with an int first")
    if not hidden_size:
        raise ConfigError(f"{name}: this model looks embeddings up by token id alone; leave embeddings out")
    _check_rows(name, "rows", stretch.rows, hidden_size)
    if len(stretch.additions) not in (0, levels):
        raise ConfigError(
            f"{name}: additions are for {len(stretch.additions)} layers, and this model adds behind {levels}; give one "
            "for each, or none"
        )
    for added in stretch.additions:
        _check_rows(name, "additions", added, hidden_size)
        if added.shape != stretch.rows.shape:
            raise ConfigError(
                f"{name}: additions have {added.shape[0]} rows, expected {stretch.rows.shape[0]}, as rows"
            )


def _check_rows(name: str, field: str, rows: Any, hidden_size: int) -> None:
    if not isinstance(rows, Tensor) or rows.dtype is not float32 or rows.ndim != 2 or not rows.is_contiguous:
        raise ConfigError(f"{name}: {field} are {_described(rows)}, expected contiguous float32 (n, {hidden_size})")
    if rows.storage.freed:
        raise ConfigError(f"{name}: the memory of its {field} was freed; keep it until the answer is there")
    if rows.shape[1] != hidden_size:
        raise ConfigError(
            f"{name}: {field} have {rows.shape[1]} numbers each, and the embeddings of this model have {hidden_size}; "
            "give rows that were made for it"
        )


def _described(rows: Any) -> str:
    if not isinstance(rows, Tensor):
        return f"a {type(rows).__name__}"
    return f"{'' if rows.is_contiguous else 'strided '}{rows.dtype} {rows.shape}"
