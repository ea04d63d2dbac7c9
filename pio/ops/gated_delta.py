"""The gated delta rule on tensors: its gates, and the walk of a batch over the states of its sequences."""

from __future__ import annotations

from collections.abc import Sequence

from pio.errors import TensorError
from pio.kernels import launcher, sizes
from pio.ops._check import check, check_float, check_gpu_limit, check_tensor, split
from pio.ops._overlap import check_apart, check_same_device, check_same_or_apart
from pio.ops._record import record
from pio.ops._tensors import check_writable, head_strides, result, row_stride
from pio.ops.slices import Slices
from pio.ops.window import Window, check_kept
from pio.tensor import Tensor

kernels = launcher.module("gated_delta")
WORK = 16  # of an exponential and a logarithm, against that of copying a number


def state_shape(slots: int, heads: int, dim: int, value_dim: int) -> tuple[int, ...]:
    """Return the shape of the states that ``gated_delta`` keeps: (slots, heads, slices, dim, columns of a slice).

    Column c of the matrix S (dim, value_dim) of a head is column c % columns of its slice c // columns.
    """
    return slots, heads, -(-value_dim // sizes.SLICE), dim, sizes.SLICE


def delta_gates(
    b: Tensor,
    a: Tensor,
    a_log: Tensor,
    dt_bias: Tensor,
    *,
    out_beta: Tensor | None = None,
    out_decay: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute the gates of the delta rule: ``sigmoid(b)`` and ``exp(-exp(a_log) * softplus(a + dt_bias))``.

    Args:
        b: float32 (T, heads); there may be gaps between tokens, as inside a fused projection.
        a: float32 (T, heads), gaps allowed.
        a_log: float32, float16 or bfloat16 (heads,).
        dt_bias: (heads,) of the same type.
        out_beta: float32 (T, heads); made when not given.
        out_decay: float32 (T, heads); made when not given.

    Returns:
        How much each head learns from a token, and what it keeps of its state before that; both from 0 to 1.

    Raises:
        TensorError: Shapes, strides or dtypes do not fit, or a result shares memory with another argument.
    """
    check_tensor("delta_gates", "b", b)
    if len(b.shape) != 2:
        raise TensorError(f"delta_gates: b has shape {b.shape}, expected (tokens, heads)")
    tokens, heads = b.shape
    ldb, lda = row_stride("delta_gates", "b", b), row_stride("delta_gates", "a", a, b.shape)
    check_float("delta_gates", "a_log", a_log, (heads,))
    check("delta_gates", "dt_bias", dt_bias, (heads,), a_log.dtype)
    beta = result("delta_gates", out_beta, b.shape, device=b.device, name="out_beta")
    decay = result("delta_gates", out_decay, b.shape, device=b.device, name="out_decay")
    check_apart("delta_gates", "out_beta", beta, b=b, a=a, a_log=a_log, dt_bias=dt_bias, out_decay=decay)
    check_apart("delta_gates", "out_decay", decay, b=b, a=a, a_log=a_log, dt_bias=dt_bias)
    at = beta.address, decay.address, b.address, a.address, a_log.address, dt_bias.address
    parts = split(WORK * b.size, b.device)
    kernels.on(b.device).delta_gates[a_log.dtype.name](*at, tokens, heads, ldb, lda, parts)
    return beta, decay


def _check_gates(
    op: str, beta: Tensor, decay: Tensor, gates: Sequence[Tensor], read: dict[str, Tensor], written: dict[str, Tensor]
) -> tuple[int, int]:
    """Check gates and what they are made of; return how far tokens of b and a lie apart.

    Args:
        op: In whose launch they are made.
        beta: What is made, and decay.
        decay: See above.
        gates: b, a, a_log and dt_bias.
        read: What else is read there.
        written: What else is written, there or behind it.
    """
    b, a, a_log, dt_bias = gates
    apart = row_stride(op, "b", b, beta.shape), row_stride(op, "a", a, beta.shape)
    check_float(op, "a_log", a_log, beta.shape[1:])
    check(op, "dt_bias", dt_bias, beta.shape[1:], a_log.dtype)
    check_writable(op, "beta", beta)
    check_writable(op, "decay", decay)
    check_apart(op, "beta", beta, decay=decay)
    for name, made in (("beta", beta), ("decay", decay)):
        check_apart(op, name, made, **read)
    for name, made in (("beta", beta), ("decay", decay), *written.items()):
        check_apart(op, name, made, b=b, a=a, a_log=a_log, dt_bias=dt_bias)
    return apart


def gated_delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor,
    beta: Tensor,
    state: Tensor,
    batch: Slices,
    *,
    gates: tuple[Tensor, Tensor, Tensor, Tensor] | None = None,
    eps: float = 1e-6,
    out: Tensor | None = None,
    scratch: Tensor | None = None,
    window: Window | None = None,
) -> Tensor:
    """Let every token of a batch decay, correct and read the state of its sequence, one after another.

    With S the state of a head, for each token: ``S *= decay``, ``S += outer(k, beta * (v - k @ S))``, ``out = q @ S``,
    where q and k are divided by ``sqrt(sum(x²) + eps)``, and q by ``sqrt(dim)``.

    Args:
        q: float32 (T, key_heads, dim); there may be gaps between tokens and between heads.
        k: float32 (T, key_heads, dim), gaps allowed.
        v: float32 (T, heads, value_dim), gaps allowed; heads is a multiple of key_heads, and value head h goes with
            key head h // (heads // key_heads).
        decay: float32 (T, heads), from ``delta_gates``.
        beta: float32 (T, heads), likewise.
        state: float32, as ``state_shape`` says; the slots of the batch's sequences are overwritten.
        batch: Where each token belongs, and in which slot the state of each sequence is.
        gates: b, a, a_log and dt_bias of ``delta_gates``, where decay and beta are still to be made of them: they are
            overwritten then, in the launch that makes other small numbers too.
        eps: Added to the sum of squares.
        out: float32 (T, heads, value_dim), gaps between tokens allowed; made when not given. It may be v itself.
        scratch: float32 (T, key_heads, 2), overwritten; made when not given.
        window: Keeps what ``commit_delta`` needs of tentative sequences, whose states stay as they are; a batch without
            any needs none.

    Returns:
        ``out``. A token's bits do not depend on the rest of the batch, on how its sequence was cut or on threads.

    Raises:
        TensorError: Shapes, strides or dtypes do not fit, a result shares memory with another argument, or on a GPU dim
            is above 256.
    """
    ldq, head_q = head_strides("gated_delta", "q", q)
    if len(q.shape) != 3:
        raise TensorError(f"gated_delta: q has shape {q.shape}, expected (tokens, key_heads, dim)")
    tokens, key_heads, dim = q.shape
    check_gpu_limit("gated_delta", "dim", dim, sizes.GPU_DELTA_DIM, q.device)
    ldk, head_k = head_strides("gated_delta", "k", k, q.shape)
    ldv, head_v = head_strides("gated_delta", "v", v)
    if len(v.shape) != 3 or v.shape[0] != tokens:
        raise TensorError(f"gated_delta: v has shape {v.shape}, expected ({tokens}, heads, value_dim) as q has")
    heads, value_dim = v.shape[1:]
    if not key_heads or heads % key_heads:
        raise TensorError(f"gated_delta: {heads} value heads do not divide among {key_heads} key heads")
    check("gated_delta", "decay", decay, (tokens, heads))
    check("gated_delta", "beta", beta, (tokens, heads))
    check("gated_delta", "state", state, (None, *state_shape(0, heads, dim, value_dim)[1:]))
    check_writable("gated_delta", "state", state)
    if out is None:
        out = Tensor.empty(v.shape, device=q.device)
    check_writable("gated_delta", "out", out)
    ldo = row_stride("gated_delta", "out", out, v.shape)
    scales = result("gated_delta", scratch, (tokens, key_heads, 2), device=q.device, name="scratch")
    check_apart("gated_delta", "state", state, q=q, k=k, v=v, decay=decay, beta=beta)
    check_apart("gated_delta", "scratch", scales, q=q, k=k, v=v, decay=decay, beta=beta, state=state)
    check_apart("gated_delta", "out", out, q=q, k=k, decay=decay, beta=beta, state=state, scratch=scales)
    check_same_or_apart("gated_delta", "out", out, v=v)
    check_same_device("gated_delta", "out", out, "batch", batch.record)
    parts = split(4 * v.size * dim, q.device)  # of its state a token reads and changes all
    kept = _addresses(window, batch, state, key_heads, parts)
    if not v.size:
        return out
    apart = 0, 0
    if gates is not None:
        written = {"scratch": scales, "out": out, "state": state}
        apart = _check_gates("gated_delta", beta, decay, gates, {"q": q, "k": k, "v": v}, written)
    sizes_of = heads, key_heads, dim, value_dim, ldo, ldq, head_q, ldk, head_k, ldv, head_v
    shape = record(*sizes_of, beta.address - decay.address, *kept, *apart, float(eps), device=q.device)
    here, few = kernels.on(q.device), split(2 * q.size, q.device)
    factors = here.delta_factors["float32" if gates is None else gates[2].dtype.name]
    made = (0,) * 5 if gates is None else (decay.address, *(x.address for x in gates))
    factors(scales.address, q.address, k.address, *made, tokens, shape.address, few)
    inputs = q.address, k.address, v.address, decay.address, scales.address
    where = state.address, batch.record.address, shape.address
    here.gated_delta(out.address, *inputs, *where, parts)
    return out


def _addresses(window: Window | None, batch: Slices, state: Tensor, key_heads: int, threads: int) -> tuple[int, ...]:
    """Check what a window keeps of the delta rule, for states like these; return where it lies."""
    tokens = 0 if window is None or len(window.decay.shape) != 2 else window.decay.shape[1]
    check_kept("gated_delta", window, tokens, batch)
    if window is None:
        return 0, 0, 0, 0, 0
    heads, slices, dim, columns = state.shape[1:]
    desks = threads * sizes.SLICE_PARTS if threads > 1 else 1
    for name, x, shape in (
        ("learned", window.learned, (heads, slices, tokens, columns)),
        ("keys", window.keys, (key_heads, tokens, dim)),
        ("decay", window.decay, (heads, tokens)),
        ("desks", window.desks, (None, dim, columns)),
    ):
        check("gated_delta", f"window.{name}", x, shape)
        check_same_device("gated_delta", "state", state, f"window.{name}", x)
        check_writable("gated_delta", f"window.{name}", x)
    if window.desks.shape[0] < desks:
        raise TensorError(f"gated_delta: window.desks has {window.desks.shape[0]} slices, expected at least {desks}")
    return tokens, window.learned.address, window.keys.address, window.decay.address, window.desks.address
