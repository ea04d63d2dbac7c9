"""Sizes that kernels of a GPU do not take are refused before anything is launched; the CPU takes them."""

import pytest

pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

from pio import ops
from pio.errors import TensorError
from pio.kernels.cuda import gated_delta, routing
from pio.kernels.cuda._float_attention import DEPTH, STEPS
from pio.kernels.cuda._float_latent import LATENT_STEPS
from pio.kernels.sizes import GPU_DELTA_DIM, GPU_GROUPS, GPU_HEAD_DIM, GPU_LATENT_ROW
from pio.ops.attention import attention_scratch, cache_layout
from pio.ops.gated_delta import state_shape
from pio.ops.latent_attention import latent_layout, latent_scratch
from pio.ops.routing import Choices
from pio.ops.slices import Slices
from pio.tensor import Tensor


def zeros(*shape, device="cuda", dtype="float32"):
    return Tensor.zeros(shape, dtype, device)


def batch_on(device):
    made = Slices(1, 1, device=zeros(1, device=device).device)
    made.append(1, 0, [0])
    made.send()
    return made


def attend(head_dim, device):
    kind, keys, values = cache_layout("bfloat16", 1, 1, head_dim)
    q, out = zeros(1, 1, head_dim, device=device), zeros(1, 1, head_dim, device=device)
    cache = zeros(*keys, device=device, dtype=kind), zeros(*values, device=device, dtype=kind)
    scratch = attention_scratch(head_dim, q.device)
    return ops.paged_attention(q, *cache, batch_on(device), scratch, out=out)


def attend_latent(rank, rope, device):
    kind, shape = latent_layout("bfloat16", 1, rank, rope)
    q, rotated, out = (zeros(1, 1, width, device=device) for width in (rank, rope, rank))
    cache = zeros(*shape, device=device, dtype=kind)
    scratch = latent_scratch(rank, rope) if device == "cpu" else zeros(4, 16)  # what fits is refused for its width
    return ops.latent_attention(q, rotated, cache, batch_on(device), scratch, out=out, scale=1.0)


def walk(dim, device):
    q, v = zeros(1, 1, dim, device=device), zeros(1, 1, 5, device=device)
    gates = zeros(1, 1, device=device), zeros(1, 1, device=device)
    return ops.gated_delta(q, q.clone(), v, *gates, zeros(*state_shape(1, 1, dim, 5), device=device), batch_on(device))


def choose(groups, device):
    logits = zeros(1, groups, device=device)
    out = Choices.empty(1, 1, groups, logits.device)
    ops.route(logits, out=out, groups=groups)
    return out.weights


CASES = {
    "head_dim": (
        lambda device: attend(GPU_HEAD_DIM + 8, device),
        "attention: head_dim is 520, of which a GPU takes 512",
    ),
    "latents": (
        lambda device: attend_latent(GPU_LATENT_ROW - 32, 40, device),
        "latent_attention: a latent with its key is 1736, of which a GPU takes 1728",
    ),
    "keys": (lambda device: walk(GPU_DELTA_DIM + 1, device), "gated_delta: dim is 257, of which a GPU takes 256"),
    "groups": (lambda device: choose(GPU_GROUPS + 1, device), "route: groups is 2049, of which a GPU takes 2048"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_a_gpu_does_not_take(driver, name):
    act, words = CASES[name]
    assert not any(v != v for v in act("cpu").reshape(-1).tolist())
    driver.calls.clear()
    with pytest.raises(TensorError, match=f"{words}.*cpu"):
        act("cuda")
    assert "launch" not in driver.calls


def test_limits_are_what_kernels_have_room_for():
    assert GPU_HEAD_DIM == STEPS * DEPTH
    assert GPU_LATENT_ROW == LATENT_STEPS * DEPTH
    assert GPU_DELTA_DIM == gated_delta.DIMS
    assert GPU_GROUPS == routing.GROUPS_AT_MOST
