"""What works on rows, tables and pictures, as subjects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

from pio import ops
from pio.benchmarks.gpu.check_shapes import Shapes
from pio.benchmarks.gpu.numbers import Numbers
from pio.benchmarks.gpu.subject import Subject, Work
from pio.ops.bans import Bans
from pio.ops.penalties import Penalties
from pio.ops.sampling import Choice, Sampler
from pio.tensor import Tensor

Act: TypeAlias = Callable[[], "Tensor | tuple[Tensor, ...]"]


def rows(shapes: Shapes) -> Iterator[Subject]:
    """Return operations on rows of the widths of models."""
    n, width = shapes.table
    inner = shapes.widths[-1][0]
    for count in shapes.rows:
        named: dict[str, tuple[Callable[[Numbers], Act], float]] = {
            **_norms(count, width),
            **_activations(count, inner),
            **_turns(count, shapes.heads[0]),
            **_tables(count, n, width),
        }
        for name, (make, within) in named.items():
            yield Subject(f"{name}, {count} rows", _made(make), within)
    yield Subject("conv2d", _made(_conv2d), 1e-5)
    yield Subject("image_resize", _made(_resize), 0.0)
    yield Subject("image_rgb", _made(_rgb), 0.0)


def _made(make: Callable[[Numbers], Act]) -> Callable[[Numbers], Work]:
    """Return what makes work of an operation that makes its results."""

    def ready(numbers: Numbers) -> Work:
        act = make(numbers)
        found = act()
        outs = [out.contiguous() for out in (found if isinstance(found, tuple) else (found,))]

        def run() -> None:
            again = act()
            for out, value in zip(outs, again if isinstance(again, tuple) else (again,), strict=True):
                ops.copy(out, value)

        return Work([run], outs)

    return ready


def _norms(rows: int, width: int) -> dict[str, tuple[Callable[[Numbers], Act], float]]:
    def rms(numbers: Numbers) -> Act:
        x, weight = numbers.floats(rows, width), numbers.floats(width, seed=2, dtype="bfloat16")
        return lambda: ops.rms_norm(x, weight, 1e-6)

    def fused(numbers: Numbers) -> Act:
        x, residual = numbers.floats(rows, width), numbers.floats(rows, width, seed=3)
        weight = numbers.floats(width, seed=2)
        return lambda: ops.fused_add_rms_norm(x, residual.clone(), weight, 1e-6)

    def gated(numbers: Numbers) -> Act:
        x, gate = numbers.floats(rows, 3, width), numbers.floats(rows, 3, width, seed=4)
        weight = numbers.floats(width, seed=2, dtype="float16")
        return lambda: ops.gated_rms_norm(x, gate, weight, 1e-6)

    def layer(numbers: Numbers) -> Act:
        x, weight, bias = numbers.floats(rows, width), numbers.floats(width, seed=2), numbers.floats(width, seed=5)
        return lambda: ops.layer_norm(x, weight, bias, 1e-6)

    made = {"rms_norm": rms, "fused_add_rms_norm": fused, "gated_rms_norm": gated, "layer_norm": layer}
    return {name: (make, 2e-6) for name, make in made.items()}


def _activations(rows: int, inner: int) -> dict[str, tuple[Callable[[Numbers], Act], float]]:
    def of_one(act: Callable[[Tensor], Tensor]) -> Callable[[Numbers], Act]:
        def make(numbers: Numbers) -> Act:
            x = numbers.floats(rows, inner)
            return lambda: act(x)

        return make

    def of_two(act: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Numbers], Act]:
        def make(numbers: Numbers) -> Act:
            x, y = numbers.floats(rows, inner), numbers.floats(rows, inner, seed=2)
            return lambda: act(x, y)

        return make

    return {
        "swiglu": (of_two(ops.swiglu), 2e-6),
        "sigmoid_gate": (of_two(ops.sigmoid_gate), 2e-6),
        "add": (of_two(ops.add), 0.0),
        "mul": (of_two(ops.mul), 0.0),
        "silu": (of_one(ops.silu), 2e-6),
        "gelu": (of_one(ops.gelu), 2e-6),
        "softmax": (of_one(ops.softmax), 2e-6),
        "conversion": (of_one(lambda x: x.astype("bfloat16").astype("float32")), 0.0),
    }


def _turns(rows: int, shape: tuple[int, int, int]) -> dict[str, tuple[Callable[[Numbers], Act], float]]:
    heads, _, dim = shape

    def rope(numbers: Numbers) -> Act:
        x, half = numbers.floats(rows, heads, dim), dim // 2
        positions = numbers.whole(*(977 * i % 32_749 for i in range(rows)))
        frequencies = Tensor.from_list([10_000.0 ** (-2 * i / dim) for i in range(half)]).to(numbers.device)

        def act() -> Tensor:
            cos, sin = ops.rope_table(positions, frequencies)
            return ops.rope(x.clone(), cos, sin)

        return act

    return {"rope": (rope, 2e-6)}


def _tables(rows: int, n: int, width: int) -> dict[str, tuple[Callable[[Numbers], Act], float]]:
    def ids(numbers: Numbers) -> Tensor:
        return numbers.whole(*((7919 * i + 11) % min(n, 4096) for i in range(rows)))

    def gather(numbers: Numbers) -> Act:
        table, chosen = numbers.floats(min(n, 4096), width, dtype="bfloat16"), ids(numbers)
        return lambda: ops.gather(table, chosen)

    def unpack(numbers: Numbers) -> Act:
        table, chosen = numbers.matrix("int8", min(n, 4096), width), ids(numbers)
        assert not isinstance(table, Tensor)
        return lambda: ops.unpack(table, chosen)

    def likeliest(numbers: Numbers) -> Act:
        logits = numbers.floats(rows, n)
        return lambda: ops.top_k(logits, 20)

    def scatter(numbers: Numbers) -> Act:
        out, chosen, values = numbers.floats(min(n, 4096), width), ids(numbers), numbers.floats(rows, width, seed=2)
        return lambda: ops.scatter_add(out.clone(), chosen, values)

    made = {"gather": gather, "unpack": unpack, "top_k": likeliest, "scatter_add": scatter}
    made |= {"sampling": partial(_chosen, rows, n, None), "penalties": partial(_chosen, rows, n, _penalties)}
    return {name: (make, 0.0) for name, make in made.items()}


def _chosen(rows: int, n: int, edit: Callable[[int, int], Penalties] | None, numbers: Numbers) -> Act:
    """Choose the token of each row, from logits as they are or changed before."""
    logits, sampler = numbers.floats(rows, n), Sampler(n, device=numbers.device)
    choices = [
        Choice(0.7 if i % 2 else 0.0, top_k=40, top_p=0.95, penalties=None if edit is None else edit(i, n))
        for i in range(rows)
    ]
    for i, choice in enumerate(choices):
        choice.aim(i, (i * 0.37 + 0.11) % 1.0)

    def act() -> Tensor:
        sampler.sample(logits, choices)
        return Tensor.from_list([choice.token for choice in choices], "int32")

    return act


def _penalties(i: int, n: int) -> Penalties:
    """Return what a long answer asks for: every kind of change, on tokens that would be likely without it."""
    some = [(7919 * j + 31 * i) % n for j in range(min(n // 3, 3000))]
    bans = Bans(
        some[:40], n, always=some[40:50], sequences=[some[:3], some[5:6]], ngram=2, early=some[50:53], early_tokens=9
    )
    bias = {token: 3.0 - 0.01 * j for j, token in enumerate(some[60:300])}
    made = Penalties(some, 8, n, repetition=1.3, presence=0.4, frequency=0.25, bias=bias, bans=bans)
    for token in some[:8]:
        made.count(token)
    return made


def _conv2d(numbers: Numbers) -> Act:
    image, weight = numbers.floats(3, 38, 45), numbers.floats(8, 3, 3, 2, seed=2)
    return lambda: ops.conv2d(image, weight, None, padding=1, stride=2)


def _picture(numbers: Numbers) -> Tensor:
    return numbers.whole(*(i * 7919 % 256 for i in range(23 * 31 * 3))).astype("uint8").reshape(23, 31, 3)


def _resize(numbers: Numbers) -> Act:
    picture = _picture(numbers)
    return lambda: ops.image_resize(picture, 12, 50)


def _rgb(numbers: Numbers) -> Act:
    grey = _picture(numbers)[:, :, :1].contiguous()
    return lambda: ops.image_rgb(grey)
