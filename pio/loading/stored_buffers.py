"""Tensors that programs store beside a model's weights and that change no answer: tables, masks, counters, scales."""

from __future__ import annotations

from typing import Final

# By the last part of a name. transformers, too, makes each of these itself or has no use for it, and skips it.
_TABLES: Final = frozenset(("inv_freq", "original_inv_freq", "cos_cached", "sin_cached", "cos_sin_cache"))
_MASKS: Final = frozenset(("bias", "masked_bias", "causal_mask"))
_ATTENTION: Final = frozenset(("attn", "self_attn", "attention"))
_SCALES: Final = "scales of a cache or of attention in float8, which pio does not use"
_ANYWHERE: Final = {
    "position_ids": "numbers of positions",
    "num_batches_tracked": "counters of training",
    **dict.fromkeys(("q_scale", "k_scale", "v_scale", "kv_scale", "prob_scale"), _SCALES),
}


def buffer(name: str, shape: tuple[int, ...]) -> str | None:
    """Return what a tensor is that no model of any architecture takes, or None where it may be a weight.

    Args:
        name: Its name in the checkpoint.
        shape: Its shape; a mask is told from a vector of biases by it.
    """
    before, _, last = name.rpartition(".")
    if last in _TABLES and before.rpartition(".")[2] == "rotary_emb":
        return "tables of rotary embedding, which pio makes from config.json"
    if last in _MASKS and before.rpartition(".")[2] in _ATTENTION and _is_mask(shape):
        return "masks of attention, which pio has no need of"
    return _ANYWHERE.get(last)


def _is_mask(shape: tuple[int, ...]) -> bool:
    """Whether it is a square for each pair of positions, or the one number that stands for minus infinity."""
    return not shape or (len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3])
