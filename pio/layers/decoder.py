"""The decoder that all models share: embedding, a stack of layers, norm, output head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from pio import ops
from pio.cache.batch import Batch
from pio.cache.kind import Cache
from pio.layers.embedding import Embedding
from pio.layers.head import OutputHead
from pio.layers.norm import RMSNorm
from pio.layers.rotary import RotaryEmbedding
from pio.layers.workspace import Activations, Workspace
from pio.tensor import Tensor

# Recorded steps that are kept: prompts have as many shapes as lengths. One takes some two kilobytes for each layer.
PROGRAMS: Final = 64


class Mixer(Protocol):
    """Mixes tokens with each other: attention, or a recurrence."""

    def __call__(self, x: Tensor, residual: Tensor, a: Activations, batch: Batch, cache: Cache, /) -> None:
        """Add the mixer's output for x to the residual stream."""
        ...


class FeedForward(Protocol):
    """Works on each token alone."""

    def __call__(self, x: Tensor, residual: Tensor, a: Activations, /) -> None:
        """Add the block's output for x to the residual stream."""
        ...


class DecoderLayer:
    """``h = x + mixer(norm(x)); h + mlp(norm(h))``."""

    def __init__(self, input_layernorm: RMSNorm, mixer: Mixer, post_attention_layernorm: RMSNorm, mlp: FeedForward):
        self.input_layernorm = input_layernorm
        self.mixer = mixer
        self.post_attention_layernorm = post_attention_layernorm
        self.mlp = mlp

    def __call__(self, a: Activations, batch: Batch, cache: Cache) -> None:
        """Advance the residual stream, a.x, by one layer."""
        self.mix(a, batch, cache)
        self.feed(a.x, a)

    def mix(self, a: Activations, batch: Batch, cache: Cache) -> None:
        """Advance the residual stream, a.x, by the layer's first half."""
        self.mixer(self.input_layernorm(a.x, a.normed), a.x, a, batch, cache)

    def feed(self, x: Tensor, a: Activations) -> None:
        """Advance rows of a residual stream by the layer's second half."""
        self.mlp(self.post_attention_layernorm(x, a.normed), x, a)


class Decoder:
    """What the engine runs: flat batches in, logits of the wanted rows out.

    Attributes:
        vocab_size: Length of a row of logits.
        max_positions: Tokens of the context.
        max_batch_tokens: Tokens one forward takes.
        max_batch_sequences: Sequences one forward takes.
        max_batch_outputs: Rows of logits one forward gives.
        buffers: Bytes of what layers compute in between.
    """

    def __init__(
        self,
        *,
        embed_tokens: Embedding,
        rotary: RotaryEmbedding,
        layers: Sequence[DecoderLayer],
        norm: RMSNorm,
        lm_head: OutputHead,
        workspace: Workspace,
        make_cache: Callable[[int], Cache],
        max_positions: int,
        max_batch_sequences: int,
        threads: int,
        rooms: Sequence[int] = (),
    ) -> None:
        self.embed_tokens = embed_tokens
        self.rotary = rotary
        self.layers = list(layers)
        self.norm = norm
        self.lm_head = lm_head
        self.workspace = workspace
        self.threads = threads
        self._make_cache = make_cache
        self._recorded_for: tuple[Batch, Cache] | None = None
        self._programs: dict[tuple[int, int], ops.Program] = {}
        self.vocab_size = lm_head.vocab_size
        self.max_positions = max_positions
        self.max_batch_tokens = workspace.tokens
        self.max_batch_sequences = max_batch_sequences
        self.max_batch_outputs = workspace.logits.shape[0]
        self.buffers = workspace.nbytes + sum(rooms)  # of the workspace, and of what some blocks share besides

    def new_cache(self, tokens: int) -> Cache:
        """Return an empty cache for that many positions of all sequences together."""
        return self._make_cache(tokens)

    def forward(self, batch: Batch, cache: Cache) -> Tensor:
        """Compute the batch's tokens.

        A step is recorded as it runs; later ones of its shape run in one call, without Python between the kernels.

        Returns:
            The logits of the batch's output rows, float32 (R, vocab), valid until the next call.

        Raises:
            RecordingError: A block does what could not run again; nothing is kept of the step.
            TensorError: Shapes do not fit, or numbers that are read as indices are out of range.
        """
        shape = batch.num_tokens, batch.num_outputs  # how many sequences they are of is read when the step runs
        if self._recorded_for != (batch, cache):
            self._recorded_for, self._programs = (batch, cache), {}
        program = self._programs.pop(shape, None)
        if program is not None:
            cache.layer(0)  # raises if the cache was freed meanwhile
            program.run()
            logits = self.workspace.logits[: batch.num_outputs]
        else:
            with ops.recording() as program:
                logits = self._forward(batch, cache)
        if program is not None:
            self._programs[shape] = program  # the last used is the last to go
            if len(self._programs) > PROGRAMS:
                del self._programs[next(iter(self._programs))]
        return logits

    def forget_steps(self) -> None:
        """Let go of recorded steps and of the memory that they hold; the next step of each shape runs as the first."""
        self._recorded_for, self._programs = None, {}

    def _forward(self, batch: Batch, cache: Cache) -> Tensor:
        rows = self.hidden_states(batch, cache)  # (R, hidden)
        logits = self.workspace.logits[: batch.num_outputs]
        if batch.num_outputs:
            self.lm_head(self.norm(rows, rows), logits)
        return logits

    def hidden_states(self, batch: Batch, cache: Cache) -> Tensor:
        """Return the residual stream behind the last layer, float32 (R, hidden), valid until the next call.

        Of a prompt mostly one row is wanted: the others end where the last layer's keys and values are in the cache.
        """
        a, count = self.workspace.activations(batch.num_tokens), batch.num_outputs
        self.embed_tokens(batch.tokens[: batch.num_tokens], a.x)
        self.rotary(batch.rotary_positions[0, : batch.num_tokens], a.cos, a.sin, self.threads)
        *layers, last = self.layers
        for layer in layers:
            layer(a, batch, cache)
        last.mix(a, batch, cache)
        rows = self.workspace.rows[:count]
        if count:
            ops.gather(a.x, batch.output_rows[:count], out=rows, threads=self.threads)
            last.feed(rows, self.workspace.activations(count))
        return rows
