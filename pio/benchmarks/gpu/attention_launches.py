"""Launches of attention for one token: over keys and values, over latents, and of layers with a state instead."""

from __future__ import annotations

from math import ceil
from typing import Any, Final

from pio.benchmarks.gpu.launch import Launch
from pio.cache.format import CacheFormat

STRETCH: Final = 256  # positions that a block takes at once, each of its four warps a quarter
RUNS: Final = ((32, 1), (64, 2), (128, 4))  # up to which stretch a run has so many; behind the last one eight
LONG: Final = 8
WARPS: Final = 4
QUERIES: Final = 8  # of a tile of tensor cores
FLIGHT: Final = 4 << 10  # bytes that a warp asks for before it waits
SEARCH: Final = 9  # waits until a block knows what it works on: the batch's record, where it begins, its table
JOIN: Final = 6  # waits until a run is written, counted, and joined with the others by the last block
COLUMNS: Final = 32  # of a recurrent state that a block has


def attention(form: CacheFormat, heads: int, kv_heads: int, head_dim: int, length: int, sms: int) -> Launch:
    """Return the launch that attends for one token to ``length`` positions of a paged cache."""
    group, most = heads // kv_heads, QUERIES * (2 if ceil(head_dim / 16) <= 16 else 1)
    pieces, rows = ceil(group / most) * kv_heads, min(most, group)
    each = form.position_bytes / kv_heads
    return _attention("attention.attention", form, (pieces, rows, head_dim), each, length, sms)


def latent_attention(form: CacheFormat, heads: int, rank: int, rope: int, length: int, sms: int) -> Launch:
    """Return the launch that attends for one token to ``length`` latents."""
    del rope  # it is among the bytes of a position
    rows = min(heads, 3 * QUERIES)
    pieces, kernel = ceil(heads / rows), "latent_attention.latent_attention"
    return _attention(kernel, form, (pieces, rows, rank), form.position_bytes, length, sms)


def runs_of(stretches: int) -> tuple[int, int]:
    """Return into how many runs so many stretches are cut, and of how many the longest of them is."""
    count, before, longest = 0, 0, 0
    for end, each in (*RUNS, (stretches, LONG)):
        here = min(end, stretches) - before
        if here > 0:
            count, longest, before = count + ceil(here / each), max(longest, min(each, here)), before + here
    return count, longest


def _attention(
    kernel: str, form: CacheFormat, shape: tuple[int, int, int], position: float, length: int, sms: int
) -> Launch:
    """Deal pieces to blocks, or runs of their stretches where there are few pieces, as ``find_piece`` does."""
    pieces, rows, width = shape
    stretches = ceil(length / STRETCH)
    runs, longest = runs_of(stretches)
    split = runs > 1 and pieces < 4 * sms
    walked = longest if split else stretches
    items, nbytes = pieces * runs if split else pieces, pieces * length * position
    waits = ceil(STRETCH * position / WARPS / FLIGHT)  # keys come from memory; values, asked for meanwhile, are near
    return Launch(
        f"{kernel}[{form.dtype.name}]",
        f"attention to {length} positions",
        items=items,
        item_bytes=nbytes / items,
        nbytes=nbytes,
        far=walked * max(1, ceil(waits / 2)),
        near=SEARCH + (JOIN if split else 2) + walked * (6 + ceil(waits / 2)),
        flight=FLIGHT,
        products=2 * 2 * QUERIES * ceil(rows / QUERIES) * pieces * length * width,
    )


def write_cache(form: CacheFormat, kv_heads: int) -> Launch:
    """Return the launch that stores a token's keys and values."""
    return Launch(f"attention.write_cache[{form.dtype.name}]", "keys and values", ceil(kv_heads / 8), near=8)


def write_latents(form: CacheFormat) -> Launch:
    """Return the launch that stores a token's latent."""
    return Launch(f"latent_attention.write_latents[{form.dtype.name}]", "latent", 1, near=8)


def recurrence(config: Any, stored: str) -> list[Launch]:
    """Return the launches between the projections of a layer with the gated delta rule."""
    keys, values = config.linear_num_key_heads, config.linear_num_value_heads
    dim, value_dim = config.linear_key_head_dim, config.linear_value_head_dim
    channels = 2 * keys * dim + values * value_dim
    slices, state = values * ceil(value_dim / COLUMNS), 2 * 4 * COLUMNS * dim  # read and written
    width = config.linear_conv_kernel_dim
    conv = channels * (2 * 4 * (width - 1) + 2 * width)
    groups = ceil(channels / 128)
    return [
        Launch(
            f"causal_conv.causal_conv[{stored}]", "convolution", groups, conv / groups, conv, far=2, near=11, flight=128
        ),
        Launch("gated_delta.delta_factors[float32]", "gates, lengths of queries and keys", 1 + ceil(keys / 8), near=6),
        Launch(
            "gated_delta.gated_delta",
            "recurrence",
            slices,
            state,
            slices * state,
            far=1,
            near=SEARCH + 8,
            flight=16 * 128,
        ),
        Launch(f"norm.gated_rms_norm[{stored}]", "norm of the recurrence", values, near=5),
    ]
