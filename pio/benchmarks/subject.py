"""The model that is measured: what it multiplies, and prompts for it."""

from __future__ import annotations

from itertools import count, islice

from pio.ops.quantized import FORMATS
from pio.plugin import TextModelPlugin


def arithmetic_of(model: TextModelPlugin, part: str = "layers") -> str:
    """Return what most products of a part are of: int8 where weights are quantized, or what inputs are rounded to.

    Args:
        model: A loaded model.
        part: ``"layers"`` or ``"tower"``.
    """
    held = model.loaded.formats[part]
    if held in FORMATS:
        return "int8"
    return model.runtime.activation_dtype if held == "bfloat16" else "float32"


def token_ids(model: TextModelPlugin, tokens: int, shift: int = 0) -> list[int]:
    """Return so many token ids all over the vocabulary; a ``shift`` gives others, and none stands for a picture."""
    media, vocabulary = model.loaded.prompts.media, model.loaded.model.vocab_size
    marks = frozenset(media.mark_ids if media else ())
    ids = (1 + 7919 * (i + shift) % (vocabulary - 1) for i in count())
    return list(islice((token for token in ids if token not in marks), tokens))
