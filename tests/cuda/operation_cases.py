"""A call of each operation, on whatever device: what it returns and what it has changed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from pio import ops
from pio.cache.batch import Batch
from pio.device import Device
from pio.ops import attention
from pio.ops.expert_weights import ExpertWeights
from pio.ops.gated_delta import state_shape
from pio.ops.latent_attention import latent_layout
from pio.ops.pages import Pages
from pio.ops.routing import Choices, route_scratch
from pio.ops.window import Window, desks_shape, window_shapes
from pio.tensor import Tensor

BLOCKS, ROOM = 5, 4  # of a cache, and tokens of a window
Result = Iterable[Any]


def numbers(*shape: int, seed: int = 1, dtype: str = "float32") -> Tensor:
    """Return numbers from -2 to 2 in no order."""
    values = [((i * 7919 + seed * 104729) % 2003 - 1001) / 500 for i in range(math.prod(shape))]
    return Tensor.from_list(values, dtype).reshape(*shape)


def integers(*values: int, dtype: str = "int32") -> Tensor:
    """Return a vector."""
    return Tensor.from_list(list(values), dtype)


def said(value: Any) -> Any:
    """Return what is to be equal on both devices, to the bit: NaN too."""
    if isinstance(value, ops.PackedWeight):
        return value.form.name, value.shape, said(value.data)
    if not isinstance(value, Tensor):
        return value
    here = value.to("cpu").contiguous()
    return here.dtype.name, here.shape, here.memoryview().tobytes()


class There:
    """A device, and tensors on it."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def __call__(self, value: Any) -> Any:
        """Return a tensor or a packed weight there, in memory of its own."""
        return value.clone().to(self.device) if isinstance(value, Tensor) else value.to(self.device)

    def numbers(self, *shape: int, seed: int = 1, dtype: str = "float32") -> Tensor:
        """Return numbers there."""
        return numbers(*shape, seed=seed, dtype=dtype).to(self.device)

    def empty(self, *shape: int, value: float = 7.0) -> Tensor:
        """Return memory to write into."""
        return Tensor.full(shape, value, device=self.device)

    def batch(self, *parts: tuple[int, int, list[int], int, bool]) -> Batch:
        """Return a batch of (tokens, past, blocks, slot, whether tentative)."""
        made = Batch(16, 4, BLOCKS, 16, device=self.device)
        for tokens, past, blocks, slot, tentative in parts:
            made.add([0] * tokens, past, blocks, 1, slot, tentative=tentative)
        made.send()
        return made


def _plain(operation: Callable[..., Any], *arguments: Any, **options: Any) -> Callable[[There], Result]:
    """Return a call of tensors, what has some, and values; it gives back the result and the arguments behind it."""

    def call(there: There) -> Result:
        given = [there(v) if isinstance(v, Tensor | ops.PackedWeight) else v for v in arguments]
        result = operation(*given, **options)
        return [*(result if isinstance(result, tuple) else (result,)), *given]

    return call


def _fused_add(there: There) -> Result:
    rows = there.numbers(3, 140)  # x and the residual stream lie in one memory, apart from each other
    x, residual = rows[:2, :], rows[2:, :].reshape(1, 140)
    ops.fused_add_rms_norm(x[:1], residual, there.numbers(140, seed=3, dtype="bfloat16"), 1e-5)
    return [rows]


def _halves(there: There) -> Result:
    both = there.numbers(3, 14, seed=5)  # columns side by side, of which one half is overwritten
    ops.swiglu(both[:, :7], both[:, 7:], out=both[:, :7])
    return [both]


def _linears(there: There) -> Result:
    x, outs = there.numbers(3, 70), [there.empty(3, 37), there.empty(3, 5)]
    weights = [there.numbers(n, 70, seed=n, dtype="float16") for n in (37, 5)]
    ops.linears(x, weights, outs, [there.numbers(37, seed=2, dtype="float16"), None])
    return outs


def _rounded_linears(there: There) -> Result:
    x, outs = there.numbers(3, 70), [there.empty(3, 37), there.empty(3, 5)]
    ops.bfloat16_linears(x, [there.numbers(n, 70, seed=n, dtype="bfloat16") for n in (37, 5)], outs)
    return outs


def _quantized_linears(there: There) -> Result:
    x, outs = there.numbers(5, 70), [there.empty(5, 37), there.empty(5, 5)]  # more rows than blocks quantize
    ops.quantized_linears(x, [there(ops.pack(numbers(n, 70, seed=n), "int8")) for n in (37, 5)], outs)
    return outs


def _add_linear(there: There) -> Result:
    out = there.numbers(3, 37, seed=8)
    weight = there(ops.pack(numbers(37, 70, seed=5, dtype="bfloat16"), "int4"))
    scratch = Tensor.zeros((600,), "uint8", there.device)
    return [ops.quantized_linear(there.numbers(3, 70), weight, out=out, add=True, scratch=scratch), out]


def _head_linear(there: There) -> Result:
    x, weight = there.numbers(5, 2, 33), numbers(2, 19, 33, seed=4)
    packed = there(ops.pack_heads(weight, "int8"))
    return [ops.head_linear(x, there(weight)), ops.head_linear(x, packed, out=there.empty(5, 2, 19))]


def _paged(format: str) -> Callable[[There], Result]:
    def call(there: There) -> Result:
        kind, *shapes = attention.cache_layout(format, BLOCKS, 2, 20)
        keys, values = (Pages.of(Tensor.zeros(shape, kind, there.device), format) for shape in shapes)
        batch = there.batch((7, 0, [3, 1], 0, False), (2, 16, [2, 4], 1, False))
        scratch, out = ops.attention_scratch(20, there.device), there.empty(9, 4, 20)
        k, v, q = (there.numbers(9, heads, 20, seed=heads) for heads in (2, 2, 4))
        ops.write_cache(keys, values, k, v, batch, scratch)
        ops.paged_attention(q, keys, values, batch, scratch, out=out, window=9)
        return [out, keys, values]

    return call


def _latent(there: There) -> Result:
    kind, shape = latent_layout("float16", BLOCKS, 40, 8)
    cache = Pages.of(Tensor.zeros(shape, kind, there.device), "float16")
    batch = there.batch((7, 0, [3, 1], 0, False), (2, 16, [2, 4], 1, False))
    rows, out = there.numbers(9, 48, seed=3), there.empty(9, 3, 40)
    ops.write_latent_cache(cache, rows[:, :40], rows[:, 40:], batch)
    q = there.numbers(9, 3, 48, seed=4)
    scratch = ops.latent_scratch(40, 8, there.device)
    ops.latent_attention(q[:, :, :40], q[:, :, 40:], cache, batch, scratch, out=out, scale=0.2)
    return [out, cache]


def _recurrence(there: There) -> Result:
    """Two sequences through a convolution and the delta rule, of the second tentative tokens; two of these stand."""
    states = (3, 30), state_shape(1, 4, 9, 17)[1:]
    shapes = window_shapes(ROOM, states, 2)
    made = {name: Tensor.zeros((2, *shape), device=there.device) for name, shape in shapes.items()}
    desks = Tensor.zeros(desks_shape(states, there.device), device=there.device)
    window = Window(desks=desks, **{name: tensor[1] for name, tensor in made.items()})
    batch = there.batch((4, 0, [0], 2, False), (3, 5, [1], 0, True))
    memory, state = there.numbers(3, 3, 30, seed=2), there.numbers(*state_shape(3, 4, 9, 17), seed=3)
    behind = state[:, :, :, :, 17:]  # columns that no value has
    behind.copy_(Tensor.zeros(behind.shape, device=there.device))
    x = there.numbers(7, 34)
    out = ops.causal_conv(x[:, :30], there.numbers(4, 30, seed=4, dtype="bfloat16"), memory, batch, window=window)
    a, b = there.numbers(7, 4, seed=5), there.numbers(7, 4, seed=6)
    beta, decay = ops.delta_gates(b, a, there.numbers(4, seed=7), there.numbers(4, seed=8))
    q, k = (there.numbers(7, 2, 9, seed=seed) for seed in (9, 10))
    v = there.numbers(7, 4, 17, seed=11)
    scratch = there.empty(7, 2, 2)
    seen = ops.gated_delta(q, k, v, decay, beta, state, batch, scratch=scratch, window=window)
    both = Tensor.zeros((2, 3, *state.shape[1:]), device=there.device)
    both[1].copy_(state)
    ops.commit_delta(both[:, 0], made["learned"], made["keys"], made["decay"], 0, 2)
    inputs = Tensor.zeros((2, 3, *memory.shape[1:]), device=there.device)
    ops.commit_inputs(inputs[:, 0], made["inputs"], 0, 2)
    return [out, seen, beta, decay, memory, state, both, inputs, *made.values()]


def _experts(kind: str) -> Callable[[There], Result]:
    def call(there: There) -> Result:
        logits, choices = there.numbers(5, 6), Choices.empty(5, 2, 6, there.device)
        scratch = route_scratch(6, 2, there.device)
        ops.route(logits, out=choices, bias=there.numbers(6, seed=2), groups=2, kept_groups=2, scratch=scratch)
        plain = [numbers(11, 70, seed=e) for e in range(6)]
        matrices = [there(ops.pack(w, kind) if kind == "int8" else w.astype(kind)) for w in plain]
        out, y = there.empty(10, 11), there.numbers(5, 11, seed=3)
        ops.expert_linears(there.numbers(5, 70, seed=4), choices, [ExpertWeights(matrices)], [out], rounds=True)
        ops.add_choices(y, out, choices.places, choices.weights)
        return [logits, choices.ids, choices.weights, choices.order, choices.places, choices.starts, out, y]

    return call


def _rows(operation: Callable[..., Any]) -> Callable[[There], Result]:
    def call(there: There) -> Result:
        out, others = there.numbers(4, 9), there.numbers(2, 9, seed=2)
        where = integers(0, others[1].address, 0, others[0].address, dtype="int64")
        return [operation(out, where.to(there.device)), out]

    return call


def _patches(there: There) -> Result:
    frames = Tensor.from_list([(i * 37) % 256 for i in range(1 * 8 * 12 * 3)], "uint8").reshape(1, 8, 12, 3)
    sizes: dict[str, int] = {"patch": 4, "temporal": 2, "merge": 1}
    out = there.empty(6, 96)
    ops.image_patches(there(frames), (1, 2, 3), mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.4], out=out, **sizes)
    return [out]


X, Y, ROW = numbers(3, 70), numbers(3, 70, seed=2), numbers(70, seed=3)
HEADS, W = numbers(3, 2, 36), numbers(37, 70, seed=5, dtype="bfloat16")
HALF, IDS = numbers(70, seed=4, dtype="float16"), integers(2, 0, 2, 1, dtype="int64")
PICTURE = Tensor.from_list([(i * 37) % 256 for i in range(9 * 11 * 3)], "uint8").reshape(9, 11, 3)

CASES: dict[str, Callable[[There], Result]] = {
    "absorbed_weights": _plain(ops.absorbed_weights, numbers(2 * (4 + 3), 9), 2, 4, 3),
    "add": _plain(ops.add, X, Y),
    "add_choices, expert_linears and route": _experts("bfloat16"),
    "add_grid_embedding": _plain(ops.add_grid_embedding, numbers(8, 6), numbers(9, 6, seed=2), (2, 4), merge=2),
    "add_rows": _rows(ops.add_rows),
    "bfloat16_linear": _plain(ops.bfloat16_linear, X, W, numbers(37, seed=9, dtype="bfloat16")),
    "bfloat16_linears": _rounded_linears,
    "causal_conv, commit_delta, commit_inputs, delta_gates and gated_delta": _recurrence,
    "conv1d": _plain(ops.conv1d, numbers(4, 11), numbers(6, 2, 3, seed=2), numbers(6, seed=3), groups=2, padding=1),
    "conv2d": _plain(ops.conv2d, numbers(3, 7, 9), numbers(4, 3, 3, 2, seed=2), numbers(4, seed=3), stride=2),
    "copy": lambda there: [ops.copy(there.empty(3, 35), there.numbers(3, 70, dtype="bfloat16")[:, ::2])],
    "expert_linears of int8": _experts("int8"),
    "first_non_finite": lambda there: [ops.first_non_finite(there(Tensor.from_list([1.0, math.nan, math.inf])))],
    "fused_add_rms_norm": _fused_add,
    "gated_rms_norm": _plain(ops.gated_rms_norm, X, Y, HALF, 1e-5),
    "gather": _plain(ops.gather, W, IDS),
    "gather_by_value": _plain(ops.gather_by_value, numbers(4, 9), IDS, 2),
    "gelu": _plain(ops.gelu, X),
    "head_linear": _head_linear,
    "image_patches": _patches,
    "image_resize": _plain(ops.image_resize, PICTURE, 5, 7),
    "image_rgb": _plain(ops.image_rgb, PICTURE[:, :, :1].contiguous()),
    "layer_norm": _plain(ops.layer_norm, X, ROW, numbers(70, seed=8), 1e-5),
    "linear": _plain(ops.linear, X, W, numbers(37, seed=9, dtype="bfloat16")),
    "linears": _linears,
    "matmul": _plain(ops.matmul, numbers(2, 3, 5), numbers(2, 5, 7, seed=2)),
    "mul": _plain(ops.mul, X, Y),
    "pack": _plain(ops.pack, W, "int4"),
    "pack_heads": _plain(ops.pack_heads, numbers(2, 5, 33), "int8"),
    "paged_attention and write_cache": _paged("float16"),
    "paged_attention and write_cache of int8": _paged("int8"),
    "place_rows": _rows(ops.place_rows),
    "quantized_linear": _add_linear,
    "quantized_linears": _quantized_linears,
    "add_gated": _plain(ops.add_gated, numbers(3, 36), numbers(3, 36, seed=2), X, numbers(1, 70, seed=3)),
    "qk_norm_rope": _plain(ops.qk_norm_rope, HEADS, HEADS, numbers(3, 9), numbers(3, 9, seed=2)),
    "rms_norm": _plain(ops.rms_norm, X, HALF, 1e-5),
    "rope": _plain(ops.rope, HEADS, numbers(3, 9), numbers(3, 9, seed=2)),
    "rope_table": _plain(ops.rope_table, integers(0, 5, 700), Tensor.from_list([1.0, 0.25, 0.01])),
    "rope_table of two axes": lambda there: [
        *ops.rope_table(
            there(integers(0, 5, 700, 9).reshape(2, 2)),
            there(Tensor.from_list([1.0, 0.25, 0.01])),
            axes=there(integers(0, 1, 1)),
        )
    ],
    "scaled_dot_product_attention": _plain(
        ops.scaled_dot_product_attention, numbers(2, 2, 4), numbers(3, 1, 4, seed=2), numbers(3, 1, 4, seed=3)
    ),
    "scatter_add": _plain(ops.scatter_add, X, IDS, numbers(4, 70, seed=3)),
    "scatter_add_by_index": _plain(ops.scatter_add_by_index, X, IDS, numbers(4, 70, seed=3), numbers(4, seed=4)),
    "sigmoid_gate": _plain(ops.sigmoid_gate, HEADS, numbers(3, 2, 36, seed=7)),
    "silu": _plain(ops.silu, X),
    "softmax": _plain(ops.softmax, X),
    "swiglu": _halves,
    "top_k": _plain(ops.top_k, numbers(3, 150), 5),
    "unpack": _plain(ops.unpack, ops.pack(W, "int8"), IDS),
    "write_latent_cache and latent_attention": _latent,
}
