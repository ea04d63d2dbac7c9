"""What decoding one token launches, by the layers of a config, and what it holds in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, Final

from pio import dtypes
from pio.benchmarks.gpu.attention_launches import attention, latent_attention, recurrence, write_cache, write_latents
from pio.benchmarks.gpu.launch import Launch
from pio.benchmarks.gpu.linear_launches import experts, head_linears, linears, matrix_bytes
from pio.cache.format import CacheFormat
from pio.config.decoder import DecoderConfig
from pio.config.experts import ExpertsConfig
from pio.errors import ConfigError
from pio.layers.quantization import POLICIES
from pio.plugin import TextModelPlugin, registry
from pio.plugin.manifest import import_object

BLOCK: Final = 256  # threads that share what has no shape of its own
MATRICES: Final = ("_linears.", "experts.", "head_linear.", "add_gated.")  # modules whose kernels read matrices


@dataclass(frozen=True, slots=True)
class Held:
    """How a model's numbers are kept.

    Attributes:
        stored: Element type of what is not quantized.
        layers: Of the matrices of layers.
        tables: Of the embedding and the output head.
        cache: Of keys and values, or latents.
    """

    stored: str
    layers: str
    tables: str
    cache: str

    @classmethod
    def of(cls, stored: str, quantize: str | None, cache: str | None = None) -> Held:
        """Return how a model is held that was quantized as it was loaded, with the default policy.

        Raises:
            ConfigError: There is no such format.
        """
        if quantize is None:
            return cls(stored, stored, stored, cache or ("float32" if stored == "float32" else "float16"))
        tables = POLICIES["balanced"].get(quantize)
        if tables is None:
            raise ConfigError(f"--quantize {quantize!r:.40}: expected {', '.join(POLICIES['balanced'])}")
        return cls(stored, quantize, tables, cache or "int8")


class DecodeStep:
    """The launches of one token behind ``length - 1`` others, of one sequence.

    Attributes:
        config: The model's.
        held: How its numbers are kept.
        launches: Kinds of launches, in the order in which they first come.
    """

    def __init__(self, raw: Mapping[str, Any], held: Held, length: int, multiprocessors: int) -> None:
        """Count them.

        Args:
            raw: What config.json holds.
            held: How the model is kept.
            length: Positions that the token sees, its own included.
            multiprocessors: Of the GPU: how attention is dealt depends on them.

        Raises:
            PioError: As ``pio.load`` for such a config.
        """
        manifest, _ = registry.choose(dict(raw), None)
        plugin: type[TextModelPlugin] = import_object(manifest.plugin)
        self.config: Any = plugin.config_class.from_checkpoint(dict(raw))
        self.held, self._length, self._sms = held, length, multiprocessors
        found: Counter[Launch] = Counter()
        for launch in self._all():
            found[replace(launch, times=1)] += launch.times
        self.launches = [replace(launch, times=times) for launch, times in found.items()]

    @property
    def count(self) -> int:
        """How many launches there are."""
        return sum(launch.times for launch in self.launches)

    @property
    def nbytes(self) -> float:
        """What they read and write of memory, activations aside."""
        return sum(launch.times * launch.nbytes for launch in self.launches)

    def kernels(self) -> Counter[str]:
        """Return how often each kernel is launched."""
        found: Counter[str] = Counter()
        for launch in self.launches:
            found[launch.kernel] += launch.times
        return found

    def weights_bytes(self) -> int:
        """Return what all weights take in memory but for vectors: what is launched reads them, of experts a part."""
        config = self.config
        experts = config.experts / config.num_experts_per_tok if isinstance(config, ExpertsConfig) else 1.0
        count = 0.0
        for launch in self.launches:
            if launch.kernel.startswith(MATRICES):
                count += launch.times * launch.nbytes * (experts if launch.kernel.startswith("experts.") else 1.0)
        if not config.tie_word_embeddings:
            count += matrix_bytes(self.held.tables, config.vocab_size, config.hidden_size)
        return round(count)

    def cache_bytes(self) -> float:
        """Return what the cache of ``length`` positions takes, states of recurrent layers included."""
        config = self.config
        layers = sum(map(config.attends, range(config.num_hidden_layers)))
        states = sum(launch.times * launch.nbytes / 2 for launch in self.launches if "gated_delta" in launch.kernel)
        return layers * self._format().position_bytes * self._length + states

    # What is launched, in order

    def _all(self) -> Iterator[Launch]:
        config, held, hidden = self.config, self.held, self.config.hidden_size
        kernel = "gather.gather" if held.tables == held.stored else "packing.unpack"
        row = matrix_bytes(held.tables, 1 if held.tables == held.stored else 16, hidden)
        yield Launch(f"{kernel}[{held.tables}]", "embedding", ceil(hidden / BLOCK), nbytes=row, far=1, near=3)
        yield Launch("gather.place_rows", "rows that come with a prompt", 1, near=2)
        yield Launch("rope.rope_table", "angles", 1, near=3)
        for i in range(config.num_hidden_layers):
            yield self._norm(hidden)
            yield from self._mixer(i)
            if i == config.num_hidden_layers - 1:
                yield Launch("gather.gather[float32]", "row whose logits are wanted", ceil(hidden / BLOCK), near=3)
            yield self._norm(hidden)
            yield from self._feed(i)
        yield self._norm(hidden)
        yield from linears("output head", held.tables, [config.vocab_size], hidden)
        yield Launch("sampling.sample", "choice of the token", 1, near=8 + ceil(config.vocab_size / 2048))

    def _norm(self, width: int, rows: int = 1, what: str = "norm") -> Launch:
        """A row takes a block of 512 threads, or a warp where it is short."""
        items = rows if width > 512 else ceil(rows / 16)
        return Launch(f"norm.rms_norm[{self.held.stored}]", what, items, near=3)

    def _turn(self, heads: int, *, normed: bool) -> Launch:
        """A head of queries or keys takes one of four warps; what is normalised is read once more behind the sum."""
        kind, what = (self.held.stored, "norms and turns") if normed else ("float32", "turns")
        kernel = f"rope.qk_norm_rope[{kind}]"
        return Launch(kernel, f"{what} of queries and keys", ceil(heads / 4), near=5 if normed else 3)

    def _elements(self, kernel: str, what: str, count: int, near: int = 2) -> Launch:
        return Launch(kernel, what, ceil(count / (4 * BLOCK)), near=near)

    def _format(self) -> CacheFormat:
        config, dtype = self.config, dtypes.dtype(self.held.cache)
        if hasattr(config, "kv_lora_rank"):
            return CacheFormat.latents(dtype, config.kv_lora_rank, config.qk_rope_head_dim)
        return CacheFormat.keys_and_values(dtype, config.num_key_value_heads, config.head_dim)

    def _mixer(self, layer: int) -> Iterator[Launch]:
        config = self.config
        if not config.attends(layer):
            yield from self._recurrent()
        elif hasattr(config, "kv_lora_rank"):
            yield from self._latent()
        else:
            yield from self._grouped(gated=config.model_type == "qwen3_next", window=config.window(layer))

    def _grouped(self, *, gated: bool, window: int | None) -> Iterator[Launch]:
        config, form = self.config, self.held.layers
        heads, pairs, dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        outputs = [heads * dim * (2 if gated else 1), pairs * dim, pairs * dim]
        yield from linears("queries, keys, values", form, outputs, config.hidden_size)
        yield self._turn(heads + pairs, normed=config.qk_norm)
        length = self._length if window is None else min(window, self._length)
        yield write_cache(self._format(), pairs)
        yield attention(self._format(), heads, pairs, dim, length, self._sms)
        if gated:
            yield self._elements("activation.sigmoid_gate", "gate of attention", heads * dim)
        yield from linears("output of attention", form, [config.hidden_size], heads * dim)

    def _latent(self) -> Iterator[Launch]:
        config, form, heads = self.config, self.held.layers, self.config.num_attention_heads
        rank, rope, nope = config.kv_lora_rank, config.qk_rope_head_dim, config.qk_nope_head_dim
        queries, made = heads * (nope + rope), rank + rope
        first = queries if config.q_lora_rank is None else config.q_lora_rank
        yield from linears("latents", form, [first, made], config.hidden_size)
        if config.q_lora_rank is not None:
            yield self._norm(config.q_lora_rank, what="norm of a latent")
            yield from linears("queries", form, [queries], config.q_lora_rank)
        yield self._norm(rank, what="norm of a latent")
        yield self._turn(heads + 1, normed=False)
        yield write_latents(self._format())
        yield from head_linears("queries for latents", form, heads, rank, nope)
        yield latent_attention(self._format(), heads, rank, rope, self._length, self._sms)
        yield from head_linears("values of latents", form, heads, config.v_head_dim, rank)
        yield from linears("output of attention", form, [config.hidden_size], heads * config.v_head_dim)

    def _recurrent(self) -> Iterator[Launch]:
        config, form, stored = self.config, self.held.layers, self.held.stored
        keys = config.linear_num_key_heads * config.linear_key_head_dim
        values = config.linear_num_value_heads * config.linear_value_head_dim
        outputs = 2 * config.linear_num_value_heads
        yield from linears("queries, keys, values, gates", form, [2 * keys + 2 * values], config.hidden_size)
        yield from linears("gates of the recurrence", stored, [outputs], config.hidden_size)
        yield from recurrence(config, stored)
        yield from linears("output of the recurrence", form, [config.hidden_size], values)

    def _feed(self, layer: int) -> Iterator[Launch]:
        config: DecoderConfig = self.config
        if not isinstance(config, ExpertsConfig) or not config.sparse(layer):
            yield from self._swiglu(config.intermediate_size)
            return
        yield from self._experts(config)
        if config.shared_width:
            yield from self._swiglu(config.shared_width, "shared expert")
            if config.model_type == "qwen3_next":
                kernel, hidden = f"add_gated.add_gated[{self.held.stored}]", config.hidden_size
                row = matrix_bytes(self.held.stored, 1, hidden)  # each block reads all of it
                yield Launch(kernel, "gate and sum", ceil(hidden / (4 * BLOCK)), row, row, far=1, near=3)

    def _swiglu(self, width: int, what: str = "feed-forward block") -> Iterator[Launch]:
        form, hidden = self.held.layers, self.config.hidden_size
        yield from linears(f"{what}, gate and up", form, [width, width], hidden)
        yield self._elements("activation.swiglu", what, 4 * width)
        yield from linears(f"{what}, down", form, [hidden], width)

    def _experts(self, config: ExpertsConfig) -> Iterator[Launch]:
        form, hidden, inner = self.held.layers, config.hidden_size, config.moe_intermediate_size
        chosen = config.num_experts_per_tok
        yield from linears("router", self.held.stored, [config.experts], hidden)
        yield Launch("routing.route", "choice of experts", 1, near=10 + chosen)
        yield Launch("routing.group_by_expert", "tokens by expert", config.experts, near=4)
        yield from experts("experts, gate and up", form, inner, hidden, chosen, 2)
        yield self._elements("activation.swiglu", "experts", 4 * chosen * inner)
        yield from experts("experts, down", form, hidden, inner, chosen, 1)
        yield self._elements("experts.add_choices", "experts", 4 * hidden, near=2 + chosen)
