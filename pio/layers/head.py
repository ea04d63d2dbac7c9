"""The output head: a matrix of its own, or the embedding's."""

from __future__ import annotations

from pio.layers.embedding import Embedding
from pio.layers.linear import project
from pio.layers.source import Source
from pio.ops.quantized import PackedWeight
from pio.tensor import Tensor

NAME = "lm_head.weight"


class OutputHead:
    """Logits of hidden states.

    Some checkpoints with tied embeddings store ``lm_head.weight`` all the same. An equal one is skipped, so that the
    table is read once; one that differs is what the model was saved with, and is used, as transformers does.

    Attributes:
        weight: (vocab, hidden); the embedding's own where they are tied.
    """

    def __init__(self, source: Source, embedding: Embedding, *, tied: bool) -> None:
        own = source / "lm_head"
        shape = embedding.weight.shape
        self.weight: Tensor | PackedWeight = embedding.weight
        if not tied or (NAME in source.weights and not source.weights.same(NAME, embedding.name)):
            self.weight = own.matrix("weight", shape[0], shape[1], "table")
        self._workspace = source.workspace

    @property
    def vocab_size(self) -> int:
        """Length of a row of logits."""
        return self.weight.shape[0]

    def __call__(self, x: Tensor, out: Tensor) -> Tensor:
        """Compute logits.

        Shapes: x float32 (R, hidden), out float32 (R, vocab).
        """
        return project(x, self.weight, None, out, self._workspace)

    def first(self, x: Tensor) -> Tensor:
        """Compute the first logit of each row alone, which reads nearly nothing of the weight.

        Shapes: x float32 (R, hidden); returns float32 (R, 1).
        """
        weight = self.weight.first(1) if isinstance(self.weight, PackedWeight) else self.weight[:1]
        return project(x, weight, None, Tensor.empty((x.shape[0], 1), device=x.device), self._workspace)
