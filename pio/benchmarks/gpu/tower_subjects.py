"""What a tower does with the patches of a picture, as subjects."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from pio import ops
from pio.benchmarks.gpu.check_shapes import Shapes, Tower
from pio.benchmarks.gpu.linear_subjects import WITHIN
from pio.benchmarks.gpu.mixer_subjects import ATTENTION, FLOATS
from pio.benchmarks.gpu.numbers import Numbers
from pio.benchmarks.gpu.subject import Subject, Work
from pio.ops.attention import cache_layout
from pio.tensor import Tensor


def tower(shapes: Shapes) -> Iterator[Subject]:
    """Return patches of pixels, their places, attention among all of a picture, and layers with a bias."""
    t = shapes.tower
    of = f"{t.rows} patches of {t.grid[0]} x {t.grid[1]}"
    yield Subject(f"image_patches, {of}", partial(_patches, t), 0.0)
    yield Subject(f"grid embedding, {of}, {t.hidden} wide", partial(_places, t), 1e-5)
    for form in shapes.caches:
        name = f"attention of a tower {form}, {of}, {t.heads[0]} heads x {t.heads[1]}"
        yield Subject(name, partial(_attention, t, form), ATTENTION.get(form, FLOATS))
    for form in ("bfloat16", "float16", "float32"):
        if form in shapes.forms:
            name = f"linear with a bias {form}, {t.rows} x {t.hidden} to {3 * t.hidden}, added"
            yield Subject(name, partial(_linear, t, form), WITHIN[form])


def _patches(t: Tower, numbers: Numbers) -> Work:
    height, width = (count * t.patch for count in t.grid)
    pixels = bytearray(i * 7919 % 251 for i in range(height * width * 3))
    frames = Tensor.from_buffer(pixels, "uint8").reshape(1, height, width, 3).to(numbers.device)
    out, grid = numbers.empty(t.rows, 3 * 2 * t.patch**2), (1, *t.grid)
    mean, std = (0.5, 0.25, 0.4), (0.5, 0.3, 0.2)

    def run() -> None:
        ops.image_patches(frames, grid, _first(t), patch=t.patch, temporal=2, merge=2, mean=mean, std=std, out=out)

    return Work([run], [out])


def _places(t: Tower, numbers: Numbers) -> Work:
    x, before = numbers.empty(t.rows, t.hidden), numbers.floats(t.rows, t.hidden)
    table = numbers.floats(t.side**2, t.hidden, seed=2, dtype="bfloat16")
    run = partial(ops.add_grid_embedding, x, table, t.grid, first=_first(t), merge=2)
    return Work([run], [x], reset=lambda: x.copy_(before))


def _attention(t: Tower, form: str, numbers: Numbers) -> Work:
    """Every patch of a piece sees all patches of the picture, those behind it too."""
    (heads, dim), patches = t.heads, t.grid[0] * t.grid[1]
    out, q = numbers.empty(t.rows, heads, dim), numbers.floats(t.rows, heads, dim)
    whole, tables = numbers.sequence((patches, 0))
    batch, _ = numbers.sequence((t.rows, patches - t.rows))
    stored, *pools = cache_layout(form, len(tables[0]), heads, dim)
    keys, values = (ops.Pages.of(Tensor.zeros(shape, stored, numbers.device), form) for shape in pools)
    k, v = (numbers.floats(patches, heads, dim, seed=seed) for seed in (3, 4))
    scratch = ops.attention_scratch(dim, numbers.device)
    ops.write_cache(keys, values, k, v, whole, scratch)
    return Work([lambda: ops.paged_attention(q, keys, values, batch, scratch, out=out, causal=False)], [out])


def _linear(t: Tower, form: str, numbers: Numbers) -> Work:
    n = 3 * t.hidden
    x, out, before = numbers.floats(t.rows, t.hidden), numbers.empty(t.rows, n), numbers.floats(t.rows, n, seed=3)
    weight, bias = numbers.floats(n, t.hidden, seed=2, dtype=form), numbers.floats(n, seed=4, dtype=form)
    run = partial(ops.linear, x, weight, bias, out=out, add=True)
    return Work([run], [out], reset=lambda: out.copy_(before))


def _first(t: Tower) -> int:
    """The first patch of a piece that ends within the picture, and begins within a square of patches."""
    return (t.grid[0] * t.grid[1] - t.rows) // 2 | 1
