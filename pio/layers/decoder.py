"""The decoder that all models share: embedding, a stack of layers, norm, output head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from pio import ops
from pio.cache.batch import Batch
from pio.cache.protocol import Cache, begin_step
from pio.dtypes import DType
from pio.layers.decoder_layer import DecoderLayer, FeedForward, Mixer
from pio.layers.embedding import Embedding
from pio.layers.encoder import Encoder
from pio.layers.head import OutputHead
from pio.layers.norm import RMSNorm
from pio.layers.rotary import RotaryEmbedding
from pio.layers.source import Source
from pio.layers.workspace import Workspace
from pio.tensor import Tensor

# Recorded steps that are kept: prompts have as many shapes as lengths. One takes some two kilobytes for each layer.
PROGRAMS: Final = 64


class DecoderSizes(Protocol):
    """What a decoder has to know of a model's config, whatever its blocks are (``pio.config.decoder``)."""

    @property
    def vocab_size(self) -> int:
        """Length of a row of logits."""
        ...

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""
        ...

    @property
    def num_hidden_layers(self) -> int:
        """How many layers there are."""
        ...

    @property
    def rms_norm_eps(self) -> float:
        """Of the norms."""
        ...

    @property
    def tie_word_embeddings(self) -> bool:
        """Whether the output head is the embedding's table."""
        ...

    @property
    def max_positions(self) -> int:
        """Tokens of the context."""
        ...


class DecoderOptions(Protocol):
    """How a decoder is to run (``pio.config.runtime``)."""

    @property
    def max_batch_sequences(self) -> int:
        """Sequences one forward takes."""
        ...

    @property
    def batch_outputs(self) -> int:
        """Rows of logits one forward gives."""
        ...

    def cache_dtype(self, weights: DType, /, *, packed: bool) -> DType:
        """Return the element type of the cache."""
        ...


class Decoder:
    """What the engine runs: flat batches in, logits of the wanted rows out.

    Attributes:
        vocab_size: Length of a row of logits.
        hidden_size: Width of the residual stream.
        max_positions: Tokens of the context.
        max_batch_tokens: Tokens one forward takes.
        max_batch_sequences: Sequences one forward takes.
        max_batch_outputs: Rows of logits one forward gives.
        workspace: What all blocks compute in.
        device: Where they compute.
        levels: How many of the first layers have rows added behind them where a prompt brings embeddings.
        encoder: What makes embeddings of pictures; None for text alone.
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
        max_batch_outputs: int,
        levels: int = 0,
    ) -> None:
        self.encoder: Encoder | None = None
        self.levels = levels
        self.embed_tokens = embed_tokens
        self.rotary = rotary
        self.layers = list(layers)
        self.norm = norm
        self.lm_head = lm_head
        self.workspace = workspace
        self.device = workspace.device
        self._make_cache = make_cache
        self._recorded_for: tuple[Batch, Cache] | None = None
        self._programs: dict[tuple[int, int], ops.Program] = {}
        self.vocab_size, hidden = lm_head.weight.shape
        self.hidden_size = hidden
        self.max_positions = max_positions
        self.max_batch_tokens = workspace.tokens
        self.max_batch_sequences = max_batch_sequences
        self.max_batch_outputs = max_batch_outputs
        self._stream = workspace.rooms("residual stream", {"x": (hidden,), "normed": (hidden,)}, _stream)
        outputs = {"rows": (max_batch_outputs, hidden), "logits": (max_batch_outputs, self.vocab_size)}
        self._outputs = workspace.rooms("outputs", {}, _outputs, fixed=outputs)

    @classmethod
    def assemble(
        cls,
        config: DecoderSizes,
        source: Source,
        options: DecoderOptions,
        *,
        rotary: RotaryEmbedding,
        mixer: Callable[[Source, int], Mixer],
        feed_forward: Callable[[Source, int], FeedForward],
        make_cache: Callable[[int, DType], Cache],
        zero_centred: bool = False,
        below: str = "model",
        levels: int = 0,
    ) -> Decoder:
        """Put a model together whose tensors have the names that most checkpoints give them.

        Args:
            config: Sizes that all decoders have.
            source: Weights of the model.
            options: How it is to run.
            rotary: Turns queries and keys.
            mixer: Makes what mixes tokens in the layer of that number, from that layer's weights.
            feed_forward: Makes its feed-forward block, from the weights below ``mlp``.
            make_cache: Makes a cache for that many positions, of that element type.
            zero_centred: Whether norms store how far their weights are from one.
            below: The prefix of all names but the output head's.
            levels: How many of the first layers have rows added behind them where a prompt brings embeddings.
        """
        model, hidden, eps = source / below, config.hidden_size, config.rms_norm_eps
        embed_tokens = Embedding(model / "embed_tokens", config.vocab_size, hidden)
        norm = RMSNorm(model / "norm", hidden, eps, zero_centred=zero_centred)

        def layer(at: Source, i: int) -> DecoderLayer:
            return DecoderLayer(
                RMSNorm(at / "input_layernorm", hidden, eps, zero_centred=zero_centred),
                mixer(at, i),
                RMSNorm(at / "post_attention_layernorm", hidden, eps, zero_centred=zero_centred),
                feed_forward(at / "mlp", i),
            )

        layers = [layer(model / "layers" / i, i) for i in range(config.num_hidden_layers)]
        lm_head = OutputHead(source, embed_tokens, tied=config.tie_word_embeddings)

        def new_cache(tokens: int) -> Cache:
            return make_cache(tokens, options.cache_dtype(norm.weight.dtype, packed=source.inventory.packed))

        return cls(
            embed_tokens=embed_tokens,
            rotary=rotary,
            layers=layers,
            norm=norm,
            lm_head=lm_head,
            workspace=source.workspace,
            make_cache=new_cache,
            max_positions=config.max_positions,
            max_batch_sequences=options.max_batch_sequences,
            max_batch_outputs=options.batch_outputs,
            levels=levels,
        )

    def new_cache(self, tokens: int) -> Cache:
        """Return an empty cache for that many positions of all sequences together."""
        return self._make_cache(tokens)

    @property
    def axes(self) -> int:
        """How many numbers place a token for rotary embedding."""
        return self.rotary.axes

    def new_batch(self, tokens: int, sequences: int, blocks: int, outputs: int) -> Batch:
        """Return an empty batch for so many tokens, sequences, cache blocks of each and rows of logits."""
        return Batch(tokens, sequences, blocks, outputs, axes=self.axes, levels=self.levels, device=self.device)

    def forward(self, batch: Batch, cache: Cache) -> Tensor:
        """Compute the batch's tokens.

        A step is recorded as it runs; later ones of its shape run in one call, without Python between the kernels.

        Returns:
            The logits of the batch's output rows, float32 (R, vocab), valid until the next call.

        Raises:
            CapacityError: More tokens are tentative than the cache allows.
            RecordingError: A block does what could not run again; nothing is kept of the step.
            TensorError: Shapes do not fit, or numbers that are read as indices are out of range.
        """
        batch.check_tokens(self.vocab_size)
        begin_step(cache, batch)
        batch.send()
        shape = batch.num_tokens, batch.num_outputs  # how many sequences they are of is read when the step runs
        if self._recorded_for != (batch, cache):
            self._recorded_for, self._programs = (batch, cache), {}
        program = self._programs.pop(shape, None)
        if program is not None:
            program.run()
            logits = self._outputs(0)[1][: batch.num_outputs]
        else:
            with ops.recording() as program:
                logits = self._forward(batch, cache)
        self._programs[shape] = program  # the last used is the last to go
        if len(self._programs) > PROGRAMS:
            del self._programs[next(iter(self._programs))]
        return logits

    def forget_steps(self) -> None:
        """Let go of recorded steps and of the memory that they hold; the next step of each shape runs as the first."""
        self._recorded_for, self._programs = None, {}

    def _forward(self, batch: Batch, cache: Cache) -> Tensor:
        rows = self.hidden_states(batch, cache)  # (R, hidden)
        logits = self._outputs(0)[1][: batch.num_outputs]
        if batch.num_outputs:
            self.lm_head(self.norm(rows, rows), logits)
        return logits

    def embed(self, batch: Batch) -> Tensor:
        """Return the batch's tokens as they enter the first layer, float32 (T, hidden), valid until the next call.

        Rows of the table, and over them the embeddings that come with prompts; a subclass with ``hidden_states`` of its
        own begins with this.
        """
        tokens = batch.num_tokens
        x, _ = self._stream(tokens)
        self.embed_tokens(batch.tokens[:tokens], x, trusted=True)  # ``forward`` has looked at them
        return ops.place_rows(x, batch.embeddings[:tokens])

    def hidden_states(self, batch: Batch, cache: Cache) -> Tensor:
        """Return the residual stream behind the last layer, float32 (R, hidden), valid until the next call.

        Of a prompt mostly one row is wanted: the others end where the last layer's keys and values are in the cache.
        """
        tokens, count = batch.num_tokens, batch.num_outputs
        x, normed = self.embed(batch), self._stream(tokens)[1]
        positions = batch.rotary_positions[:, :tokens]
        self.rotary(positions if self.rotary.axes > 1 else positions[0])
        *layers, last = self.layers
        for i, layer in enumerate(layers):
            layer(x, normed, batch, cache)
            if i < self.levels:
                ops.add_rows(x, batch.additions[i, :tokens])
        last.mix(x, normed, batch, cache)
        rows = self._outputs(0)[0][:count]
        if count:
            ops.gather(x, batch.output_rows[:count], out=rows, trusted=True)  # by ``Batch.add``
            last.feed(rows, self._stream(count)[1])
        return rows


def _stream(made: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    return made["x"], made["normed"]


def _outputs(made: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    return made["rows"], made["logits"]
