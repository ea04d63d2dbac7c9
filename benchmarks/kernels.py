"""Operations at the shapes of Qwen3-0.6B: one token of a decode, and a chunk of a prompt."""

from __future__ import annotations

import random

from pio import ops
from pio.cache.batch import Batch
from pio.cache.format import CacheFormat
from pio.cache.paged import PagedCache
from pio.dtypes import dtype, int32
from pio.ops.bans import Bans
from pio.ops.gated_delta import state_shape
from pio.ops.penalties import Penalties
from pio.ops.sampling import Choice, Sampler
from pio.tensor import Tensor

HIDDEN, INTERMEDIATE, VOCAB = 1024, 3072, 151_936
HEADS, KV_HEADS, HEAD_DIM = 16, 8, 128
DECODE, PREFILL = 1, 128  # rows


def random_tensor(*shape: int, kind: str = "float32", seed: int = 0) -> Tensor:
    """Numbers around zero; a block of them repeats, which no kernel notices and which is quick to make."""
    count = 1
    for n in shape:
        count *= n
    source = random.Random(seed)
    block = [source.gauss(0.0, 1.0) for _ in range(min(count, 4099))]
    out = Tensor.empty((count,), dtype(kind))
    pattern = Tensor.from_list(block, kind)
    for at in range(0, count, len(block)):
        part = out[at : at + len(block)]
        part.copy_(pattern[: part.shape[0]])
    return out.reshape(*shape)


class Linear:
    params = (["float32", "float16", "bfloat16"], [DECODE, PREFILL])
    param_names = ("weights", "rows")

    def setup(self, kind: str, rows: int) -> None:
        self.x = random_tensor(rows, HIDDEN)
        self.weight = random_tensor(INTERMEDIATE, HIDDEN, kind=kind, seed=1)
        self.out = Tensor.empty((rows, INTERMEDIATE))
        self.time_linear(kind, rows)

    def time_linear(self, kind: str, rows: int) -> None:
        ops.linear(self.x, self.weight, out=self.out)


class Linears(Linear):
    """Gate and up in one job."""

    def setup(self, kind: str, rows: int) -> None:
        self.up = random_tensor(INTERMEDIATE, HIDDEN, kind=kind, seed=2)
        self.up_out = Tensor.empty((rows, INTERMEDIATE))
        super().setup(kind, rows)

    def time_linear(self, kind: str, rows: int) -> None:
        ops.linears(self.x, (self.weight, self.up), (self.out, self.up_out))


class Bfloat16Linear:
    params = (DECODE, PREFILL)
    param_names = ("rows",)

    def setup(self, rows: int) -> None:
        self.x = random_tensor(rows, HIDDEN)
        self.weight, self.up = (random_tensor(INTERMEDIATE, HIDDEN, kind="bfloat16", seed=s) for s in (1, 2))
        self.out, self.up_out = Tensor.empty((rows, INTERMEDIATE)), Tensor.empty((rows, INTERMEDIATE))
        self.time_bfloat16_linear(rows)
        self.time_bfloat16_linears(rows)

    def time_bfloat16_linear(self, rows: int) -> None:
        ops.bfloat16_linear(self.x, self.weight, out=self.out)

    def time_bfloat16_linears(self, rows: int) -> None:
        """Gate and up in one job."""
        ops.bfloat16_linears(self.x, (self.weight, self.up), (self.out, self.up_out))


class QuantizedLinear:
    params = (["int8", "int4", "int4_zero_point"], [DECODE, PREFILL])
    param_names = ("format", "rows")

    def setup(self, form: str, rows: int) -> None:
        self.x = random_tensor(rows, HIDDEN)
        self.weight, self.up = (ops.pack(random_tensor(INTERMEDIATE, HIDDEN, seed=s), form) for s in (1, 2))
        self.out, self.up_out = Tensor.empty((rows, INTERMEDIATE)), Tensor.empty((rows, INTERMEDIATE))
        self.time_quantized_linear(form, rows)
        self.time_quantized_linears(form, rows)

    def time_quantized_linear(self, form: str, rows: int) -> None:
        ops.quantized_linear(self.x, self.weight, out=self.out)

    def time_quantized_linears(self, form: str, rows: int) -> None:
        """Gate and up in one job."""
        ops.quantized_linears(self.x, (self.weight, self.up), (self.out, self.up_out))


class Experts:
    """A token, and a chunk of a prompt, through four of thirty-two experts."""

    params = (["int4", "bfloat16"], [DECODE, PREFILL])
    param_names = ("weights", "rows")

    def setup(self, form: str, rows: int) -> None:
        count, k, inner = 32, 4, INTERMEDIATE // 8
        self.x, self.scores = random_tensor(rows, HIDDEN), random_tensor(rows, count, seed=1)
        self.logits, self.choices = Tensor.empty((rows, count)), ops.Choices.empty(rows, k, count)
        made = [random_tensor(inner, HIDDEN, kind="bfloat16", seed=seed) for seed in range(count)]
        self.weights = ops.ExpertWeights([ops.pack(m, form) for m in made] if form == "int4" else made)
        self.gate, self.up = Tensor.empty((rows * k, inner)), Tensor.empty((rows * k, inner))
        self.sums = Tensor.zeros((rows, inner))
        self.time_route(form, rows)
        self.time_expert_linears(form, rows)
        self.time_add_choices(form, rows)

    def time_route(self, form: str, rows: int) -> None:
        ops.route(self.logits.copy_(self.scores), out=self.choices)

    def time_expert_linears(self, form: str, rows: int) -> None:
        """Gate and up in one job."""
        ops.expert_linears(self.x, self.choices, (self.weights, self.weights), (self.gate, self.up))

    def time_add_choices(self, form: str, rows: int) -> None:
        ops.add_choices(self.sums, self.gate, self.choices.places, self.choices.weights)


class Packing:
    params = ("int8", "int4", "int4_zero_point")
    param_names = ("format",)

    def setup(self, form: str) -> None:
        self.weight = random_tensor(INTERMEDIATE, HIDDEN, kind="bfloat16")
        self.packed = ops.pack(self.weight, form)
        self.data, self.out = self.packed.data.clone(), Tensor.empty((PREFILL, HIDDEN))
        self.rows = Tensor.from_list([i * 37 % INTERMEDIATE for i in range(PREFILL)], int32)
        self.time_unpack(form)

    def time_pack(self, form: str) -> None:
        ops.pack(self.weight, form, out=self.data)

    def time_unpack(self, form: str) -> None:
        """Rows of an embedding."""
        ops.unpack(self.packed, self.rows, out=self.out)


class Attention:
    params = ([(1, 1024), (1, 8000), (PREFILL, 512), (PREFILL, 8000)], ["float32", "float16", "int8"])
    param_names = ("tokens, past", "cache")

    def setup(self, shape: tuple[int, int], kind: str) -> None:
        tokens, past = shape
        self.cache = PagedCache(1, tokens + past, CacheFormat.keys_and_values(dtype(kind), KV_HEADS, HEAD_DIM))
        self.batch = Batch(tokens, 1, self.cache.num_blocks, 1)
        self.batch.add([0] * tokens, past, list(range(self.cache.num_blocks)), 0)
        self.scratch = ops.attention_scratch(HEAD_DIM)
        self.keys, self.values = self.cache.layer(0)
        self.q, self.out = random_tensor(tokens, HEADS, HEAD_DIM), Tensor.empty((tokens, HEADS, HEAD_DIM))
        self.k, self.v = (random_tensor(tokens, KV_HEADS, HEAD_DIM, seed=s) for s in (1, 2))
        whole = Batch(past + tokens, 1, self.cache.num_blocks, 1)
        whole.add([0] * (past + tokens), 0, list(range(self.cache.num_blocks)), 0)
        k, v = (random_tensor(past + tokens, KV_HEADS, HEAD_DIM, seed=s) for s in (3, 4))
        ops.write_cache(self.keys, self.values, k, v, whole, self.scratch)
        self.time_write_cache(shape, kind)
        self.time_paged_attention(shape, kind)

    def time_write_cache(self, shape: tuple[int, int], kind: str) -> None:
        ops.write_cache(self.keys, self.values, self.k, self.v, self.batch, self.scratch)

    def time_paged_attention(self, shape: tuple[int, int], kind: str) -> None:
        ops.paged_attention(self.q, self.keys, self.values, self.batch, self.scratch, out=self.out)


class DenseAttention:
    def setup(self) -> None:
        self.q, self.k, self.v = (
            random_tensor(256, heads, HEAD_DIM, seed=heads) for heads in (HEADS, KV_HEADS, KV_HEADS)
        )
        self.time_scaled_dot_product_attention()

    def time_scaled_dot_product_attention(self) -> None:
        ops.scaled_dot_product_attention(self.q, self.k, self.v)


class LatentAttention:
    """At the shape of GLM-4.7-Flash: 20 heads, a latent of 512, a shared key of 64."""

    params = ([(1, 1024), (1, 8192), (PREFILL, 512)], ["float32", "float16", "int8"])
    param_names = ("tokens, past", "cache")

    def setup(self, shape: tuple[int, int], kind: str) -> None:
        tokens, past = shape
        heads, rank, rope = 20, 512, 64
        cache = PagedCache(1, tokens + past, CacheFormat.latents(dtype(kind), rank, rope))
        self.cache, blocks = cache.layer(0), list(range(cache.num_blocks))
        self.batch, whole = Batch(tokens, 1, cache.num_blocks, 1), Batch(tokens + past, 1, cache.num_blocks, 1)
        self.batch.add([0] * tokens, past, blocks, 0)
        whole.add([0] * (tokens + past), 0, blocks, 0)
        self.latent, self.key = random_tensor(tokens + past, rank), random_tensor(tokens + past, rope, seed=1)
        ops.write_latent_cache(self.cache, self.latent, self.key, whole)
        self.q, self.q_rope = random_tensor(tokens, heads, rank, seed=2), random_tensor(tokens, heads, rope, seed=3)
        self.scratch, self.out = ops.latent_scratch(rank, rope), Tensor.empty((tokens, heads, rank))
        self.latent, self.key = self.latent[past:], self.key[past:]
        self.time_write_latent_cache(shape, kind)
        self.time_latent_attention(shape, kind)

    def time_write_latent_cache(self, shape: tuple[int, int], kind: str) -> None:
        ops.write_latent_cache(self.cache, self.latent, self.key, self.batch)

    def time_latent_attention(self, shape: tuple[int, int], kind: str) -> None:
        ops.latent_attention(self.q, self.q_rope, self.cache, self.batch, self.scratch, out=self.out, scale=1 / 16)


class HeadLinear:
    """What queries of latent attention are multiplied by: 20 matrices of 512 x 192."""

    params = (["bfloat16", "int8", "int4"], [DECODE, PREFILL])
    param_names = ("weights", "rows")

    def setup(self, form: str, rows: int) -> None:
        keys = random_tensor(20, 512, 192, kind="bfloat16")
        self.weight = keys if form == "bfloat16" else ops.pack_heads(keys, form)
        self.x, self.out = random_tensor(rows, 20, 256)[:, :, :192], Tensor.empty((rows, 20, 512))
        self.time_head_linear(form, rows)

    def time_head_linear(self, form: str, rows: int) -> None:
        ops.head_linear(self.x, self.weight, out=self.out)


class AbsorbedWeights:
    """What a projection of keys and values becomes as a model loads: 20 heads of 192 and 256, from latents of 512."""

    def setup(self) -> None:
        self.weight = random_tensor(20 * (192 + 256), 512, kind="bfloat16")
        self.time_absorbed_weights()

    def time_absorbed_weights(self) -> None:
        ops.absorbed_weights(self.weight, 20, 192, 256)


class Norm:
    params = (DECODE, PREFILL)
    param_names = ("rows",)

    def setup(self, rows: int) -> None:
        self.x, self.residual = random_tensor(rows, HIDDEN), random_tensor(rows, HIDDEN, seed=1)
        self.weight, self.out = random_tensor(HIDDEN, kind="bfloat16"), Tensor.empty((rows, HIDDEN))
        self.time_rms_norm(rows)
        self.time_layer_norm(rows)
        self.time_fused_add_rms_norm(rows)
        self.time_gated_rms_norm(rows)

    def time_rms_norm(self, rows: int) -> None:
        ops.rms_norm(self.x, self.weight, 1e-6, out=self.out)

    def time_layer_norm(self, rows: int) -> None:
        ops.layer_norm(self.x, self.weight, self.weight, 1e-6, out=self.out)

    def time_fused_add_rms_norm(self, rows: int) -> None:
        ops.fused_add_rms_norm(self.x, self.residual, self.weight, 1e-6, out=self.out)

    def time_gated_rms_norm(self, rows: int) -> None:
        ops.gated_rms_norm(self.x, self.residual, self.weight, 1e-6, out=self.out)


class Activation:
    def setup(self) -> None:
        self.gate, self.up = (random_tensor(PREFILL, INTERMEDIATE, seed=s) for s in (0, 1))
        self.out = Tensor.empty((PREFILL, INTERMEDIATE))
        self.time_silu()
        self.time_gelu()
        self.time_swiglu()
        self.time_sigmoid_gate()

    def time_silu(self) -> None:
        ops.silu(self.gate, out=self.out)

    def time_gelu(self) -> None:
        ops.gelu(self.gate, out=self.out)

    def time_swiglu(self) -> None:
        ops.swiglu(self.gate, self.up, out=self.out)

    def time_sigmoid_gate(self) -> None:
        ops.sigmoid_gate(self.up, self.gate, out=self.out)


class GatedDelta:
    """A recurrent layer at the shapes of Qwen3-Coder-Next, past its first token."""

    params = (DECODE, PREFILL)
    param_names = ("rows",)
    key_heads, heads, dim, width = 16, 32, 128, 4

    def setup(self, rows: int) -> None:
        channels = (2 * self.key_heads + self.heads) * self.dim
        self.batch = Batch(rows, 1, 1, 1)
        self.batch.add([0] * rows, 1, [0], 0)
        self.x, self.mixed = random_tensor(rows, channels), Tensor.empty((rows, channels))
        self.weight = random_tensor(self.width, channels, kind="bfloat16", seed=1)
        self.inputs = Tensor.zeros((1, self.width - 1, channels))
        self.b, self.a = (random_tensor(rows, self.heads, seed=seed) for seed in (2, 3))
        self.a_log, self.dt_bias = (random_tensor(self.heads, seed=seed) for seed in (4, 5))
        self.beta, self.decay = Tensor.empty(self.b.shape), Tensor.empty(self.b.shape)
        self.q, self.k = (random_tensor(rows, self.key_heads, self.dim, seed=seed) for seed in (6, 7))
        self.v, self.out = random_tensor(rows, self.heads, self.dim, seed=8), Tensor.empty((rows, self.heads, self.dim))
        self.state = Tensor.zeros(state_shape(1, self.heads, self.dim, self.dim))
        self.scratch = Tensor.empty((rows, self.key_heads, 2))
        self.time_causal_conv(rows)
        self.time_delta_gates(rows)
        self.time_gated_delta(rows)

    def time_causal_conv(self, rows: int) -> None:
        ops.causal_conv(self.x, self.weight, self.inputs, self.batch, out=self.mixed)

    def time_delta_gates(self, rows: int) -> None:
        ops.delta_gates(self.b, self.a, self.a_log, self.dt_bias, out_beta=self.beta, out_decay=self.decay)

    def time_gated_delta(self, rows: int) -> None:
        args = self.q, self.k, self.v, self.decay, self.beta, self.state, self.batch
        ops.gated_delta(*args, out=self.out, scratch=self.scratch)


class Commit:
    """All recurrent layers of Qwen3-Coder-Next take in the drafts of a step that stand."""

    params = (1, 8)
    param_names = ("tokens",)
    layers, key_heads, heads, dim, width, room = 36, 16, 32, 128, 4, 8

    def setup(self, tokens: int) -> None:
        channels = (2 * self.key_heads + self.heads) * self.dim
        self.inputs = Tensor.zeros((self.layers, self.width - 1, channels))
        self.state = Tensor.zeros(state_shape(self.layers, self.heads, self.dim, self.dim))
        slices = self.state.shape[2]
        self.window = random_tensor(self.layers, self.width - 1 + self.room, channels)
        self.learned = random_tensor(self.layers, self.heads, slices, self.room, self.dim // slices, seed=1)
        self.keys = random_tensor(self.layers, self.key_heads, self.room, self.dim, seed=2)
        self.decay = Tensor.full((self.layers, self.heads, self.room), 0.9)
        self.time_commit_delta(tokens)
        self.time_commit_inputs(tokens)

    def time_commit_delta(self, tokens: int) -> None:
        ops.commit_delta(self.state, self.learned, self.keys, self.decay, 0, tokens)

    def time_commit_inputs(self, tokens: int) -> None:
        ops.commit_inputs(self.inputs, self.window, 0, tokens)


class Rope:
    def setup(self) -> None:
        self.positions = Tensor.from_list(list(range(PREFILL)), int32)
        self.frequencies = Tensor.from_list([1e6 ** (-i / 64) for i in range(HEAD_DIM // 2)])
        self.x, self.k = random_tensor(PREFILL, HEADS, HEAD_DIM), random_tensor(PREFILL, HEADS // 2, HEAD_DIM)
        self.norms = tuple(random_tensor(HEAD_DIM, kind="bfloat16", seed=seed) for seed in (1, 2))
        self.cos, self.sin = ops.rope_table(self.positions, self.frequencies)
        self.time_rope()
        self.time_qk_norm_rope()

    def time_rope_table(self) -> None:
        ops.rope_table(self.positions, self.frequencies, out_cos=self.cos, out_sin=self.sin)

    def time_rope(self) -> None:
        ops.rope(self.x, self.cos, self.sin)

    def time_qk_norm_rope(self) -> None:
        ops.qk_norm_rope(self.x, self.k, self.cos, self.sin, norms=self.norms)


class AddGated:
    params = (DECODE, PREFILL)

    def setup(self, rows: int) -> None:
        self.out, self.y, self.x = (random_tensor(rows, HIDDEN, seed=seed) for seed in (1, 2, 3))
        self.weight = random_tensor(1, HIDDEN, kind="bfloat16")
        self.scratch = Tensor.empty((rows,))
        self.time_add_gated(rows)

    def time_add_gated(self, rows: int) -> None:
        ops.add_gated(self.out, self.y, self.x, self.weight, scratch=self.scratch)


class Softmax:
    def setup(self) -> None:
        self.x = random_tensor(8, VOCAB)
        self.out = Tensor.empty(self.x.shape)
        self.time_softmax()

    def time_softmax(self) -> None:
        ops.softmax(self.x, out=self.out)


class Matmul:
    def setup(self) -> None:
        self.a, self.b = random_tensor(192, 256), random_tensor(256, 320, seed=1)
        self.time_matmul()

    def time_matmul(self) -> None:
        ops.matmul(self.a, self.b)


class Gather:
    def setup(self) -> None:
        self.table = random_tensor(4096, HIDDEN, kind="bfloat16")
        self.rows = Tensor.from_list([i * 37 % 4096 for i in range(PREFILL)], int32)
        self.x, self.sum = random_tensor(PREFILL, HIDDEN), Tensor.zeros((4096, HIDDEN))
        self.keys = Tensor.from_list([i * 7 % 8 for i in range(PREFILL)], int32)
        self.picked = ops.gather_by_value(self.x, self.keys, 3)
        self.time_gather()
        self.time_scatter_add()
        self.time_scatter_add_by_index()

    def time_gather(self) -> None:
        ops.gather(self.table, self.rows)

    def time_scatter_add(self) -> None:
        ops.scatter_add(self.sum, self.rows, self.x)

    def time_gather_by_value(self) -> None:
        ops.gather_by_value(self.x, self.keys, 3)

    def time_scatter_add_by_index(self) -> None:
        ops.scatter_add_by_index(self.sum, self.rows, self.x)


class Elementwise:
    def setup(self) -> None:
        self.x, self.y = (random_tensor(PREFILL, HIDDEN, seed=s) for s in (0, 1))
        self.out = Tensor.empty(self.x.shape)
        self.half = Tensor.empty((HIDDEN, PREFILL), "float16")
        self.time_add()
        self.time_mul()
        self.time_copy_transposed_to_float16()
        self.time_first_non_finite()

    def time_add(self) -> None:
        ops.add(self.x, self.y, out=self.out)

    def time_mul(self) -> None:
        ops.mul(self.x, self.y, out=self.out)

    def time_copy_transposed_to_float16(self) -> None:
        ops.copy(self.half, self.x.T)

    def time_first_non_finite(self) -> None:
        ops.first_non_finite(self.x)


class PlaceRows:
    """What every step asks: whether rows come from elsewhere, or are added to; of the second half they do."""

    params = ([DECODE, PREFILL],)
    param_names = ("rows",)

    def setup(self, rows: int) -> None:
        self.out, self.others = random_tensor(rows, HIDDEN), random_tensor(rows, HIDDEN, seed=1)
        half = range(rows // 2, rows)
        places = [0] * (rows // 2) + [self.others[i].address for i in half]
        self.places = Tensor.from_list(places, "int64")
        self.time_place_rows(rows)
        self.time_add_rows(rows)

    def time_place_rows(self, rows: int) -> None:
        ops.place_rows(self.out, self.places)

    def time_add_rows(self, rows: int) -> None:
        ops.add_rows(self.out, self.places)


class Sampling:
    def setup(self) -> None:
        self.logits = random_tensor(1, VOCAB)
        self.sampler = Sampler(VOCAB)
        penalties = Penalties([1, 2, 3], 64, VOCAB, repetition=1.1)
        bans = Penalties([], 64, VOCAB, bans=Bans(range(512), VOCAB, always=[7], ngram=3))
        self.greedy, self.draw, self.top_p = Choice(), Choice(0.8), Choice(0.8, top_p=0.9)
        self.top_k, self.banned = Choice(0.8, 20, penalties=penalties), Choice(penalties=bans)
        self.eight = [Choice(0.8, 20) for _ in range(8)]
        for choice in (self.greedy, self.draw, self.top_p, self.top_k, self.banned, *self.eight):
            choice.aim(0, 0.37)
        self.time_greedy()
        self.time_top_k()

    def time_greedy(self) -> None:
        self.sampler.sample(self.logits, [self.greedy])

    def time_draw(self) -> None:
        self.sampler.sample(self.logits, [self.draw])

    def time_draw_top_p(self) -> None:
        self.sampler.sample(self.logits, [self.top_p])

    def time_draw_top_k_with_penalties(self) -> None:
        self.sampler.sample(self.logits, [self.top_k])

    def time_draw_eight_top_k(self) -> None:
        self.sampler.sample(self.logits, self.eight)

    def time_greedy_with_bans(self) -> None:
        self.sampler.sample(self.logits, [self.banned])

    def time_top_k(self) -> None:
        ops.top_k(self.logits, 50)


class Pictures:
    """What a photograph of twelve million pixels costs before a vision tower sees it."""

    def setup(self) -> None:
        self.photograph = random_tensor(3000, 4000, 3).astype("uint8")
        self.frames = Tensor.zeros((1, 1024, 1024, 3), "uint8")
        self.rows = Tensor.empty((4096, 1536))
        self.x, self.table = random_tensor(4096, HIDDEN), random_tensor(48 * 48, HIDDEN, seed=1)
        self.clear = random_tensor(2000, 2000, 4).astype("uint8")
        self.time_image_resize()
        self.time_image_patches()
        self.time_image_rgb()
        self.time_add_grid_embedding()

    def time_image_resize(self) -> None:
        ops.image_resize(self.photograph, 1024, 1024, out=self.frames[0])

    def time_image_rgb(self) -> None:
        ops.image_rgb(self.clear)

    def time_image_patches(self) -> None:
        half = (0.5, 0.5, 0.5)
        ops.image_patches(self.frames, (1, 64, 64), patch=16, temporal=2, merge=2, mean=half, std=half, out=self.rows)

    def time_add_grid_embedding(self) -> None:
        ops.add_grid_embedding(self.x, self.table, (64, 64), merge=2)


class Conv:
    def setup(self) -> None:
        self.picture, self.kernel = random_tensor(64, 56, 56), random_tensor(64, 64, 3, 3, seed=1)
        self.sound, self.line = random_tensor(80, 3000), random_tensor(384, 80, 3, seed=1)
        self.time_conv2d()
        self.time_conv1d()

    def time_conv2d(self) -> None:
        ops.conv2d(self.picture, self.kernel, padding=1)

    def time_conv1d(self) -> None:
        ops.conv1d(self.sound, self.line, padding=1)


class Step:
    """Small operations that run again in one call: what a recorded step costs, and each return to Python in it."""

    params = ([0, 1, 16],)
    param_names = ("host_calls",)

    def setup(self, host_calls: int) -> None:
        x = random_tensor(1, 16)
        with ops.recording() as self.step:
            for i in range(64):
                ops.add(x, x, out=x)
                if i < host_calls:
                    ops.host_call(int)

    def time_step(self, host_calls: int) -> None:
        self.step.run()
