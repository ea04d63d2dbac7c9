"""The output head's weight: its own, or the embedding's."""

from __future__ import annotations

from pio.layers.source import Source
from pio.tensor import Tensor


def output_head(source: Source, embedding: Tensor, *, tied: bool) -> Tensor:
    """Return the weight of the output head, (vocab, hidden).

    Some checkpoints with tied embeddings store ``lm_head.weight`` all the same. An equal one is skipped, so that the
    table is read once; one that differs is what the model was saved with, and is used, as transformers does.
    """
    name = "lm_head.weight"
    if not tied:
        return (source / "lm_head").take("weight", *embedding.shape)
    if name not in source.weights:
        return embedding
    stored = (source / "lm_head").take("weight", *embedding.shape)
    same = stored.dtype is embedding.dtype and stored.memoryview() == embedding.memoryview()
    return embedding if same else stored
