"""Linear layers of every form, and experts, as subjects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from pio import ops
from pio.benchmarks.gpu.check_shapes import Experts, Shapes
from pio.benchmarks.gpu.numbers import Matrix, Numbers, copied
from pio.benchmarks.gpu.subject import Subject, Work
from pio.ops.bfloat16 import rounded_bytes
from pio.ops.experts import most_row_bytes
from pio.ops.quantized import FORMATS, record_bytes
from pio.ops.routing import route_scratch
from pio.tensor import Tensor

# Tensor cores cut off where they add, so that errors of long sums of one sign add up.
WITHIN: Final = {"bfloat16": 1e-5, "float16": 3e-5, "float32": 3e-5, "rounded": 5e-6}
FINE: Final = 2e-6  # where products are exact and float32 sums are in another order
TURNED: Final = 2e-3  # where what these give is rounded again, which a last bit may turn
DIFFERENT: Final = 5  # matrices of experts that differ; the others are copies, as quantizing takes long


def linears(shapes: Shapes) -> Iterator[Subject]:
    """Return layers at every width, form and number of rows."""
    for n, k in shapes.widths:
        for form in shapes.forms:
            for rows in shapes.rows:
                yield linear(form, n, k, rows)
    for form in ("bfloat16", "int8"):
        yield linear(form, *shapes.table, 1)


def linear(form: str, n: int, k: int, rows: int) -> Subject:
    """Return one layer."""
    name = f"linear {form}, {rows} x {k} to {n}"
    return Subject(name, partial(_linear, form, n, k, rows), WITHIN.get(form, FINE), decodes=rows == 1)


def _linear(form: str, n: int, k: int, rows: int, numbers: Numbers) -> Work:
    x, out = numbers.floats(rows, k), numbers.empty(rows, n)
    weights = numbers.copies(numbers.matrix(form, n, k))
    scratch = numbers.empty(rows * max(record_bytes(k), rounded_bytes(k)), dtype="uint8")
    runs = [_multiplied(form, x, weight, out, scratch) for weight in weights]
    return Work(runs, [out], weights[0].nbytes, rows * n * k)


def _multiplied(form: str, x: Tensor, weight: Matrix, out: Tensor, scratch: Tensor) -> Callable[[], object]:
    if not isinstance(weight, Tensor):
        return lambda: ops.quantized_linear(x, weight, out=out, scratch=scratch)
    if form == "rounded":
        return lambda: ops.bfloat16_linear(x, weight, out=out, scratch=scratch)
    return lambda: ops.linear(x, weight, out=out)


def head_linears(shapes: Shapes) -> Iterator[Subject]:
    """Return layers with a matrix for each head, as latent attention has them."""
    heads, rank, _, key, value = shapes.latents
    for form in shapes.forms:
        if form == "rounded":
            continue
        for n, k in ((rank, key), (value, rank)):
            name = f"head linear {form}, {heads} x {k} to {n}"
            within = WITHIN.get(form, FINE)
            yield Subject(name, partial(_head_linear, form, heads, n, k), within, decodes=True)


def _head_linear(form: str, heads: int, n: int, k: int, numbers: Numbers) -> Work:
    x, out = numbers.floats(1, heads, k), numbers.empty(1, heads, n)
    weights = numbers.copies(numbers.heads(form, heads, n, k))
    scratch = numbers.empty(heads * record_bytes(k), dtype="uint8") if form in FORMATS else None
    runs = [partial(ops.head_linear, x, weight, out=out, scratch=scratch) for weight in weights]
    return Work(runs, [out], weights[0].nbytes, heads * n * k)


def experts(shapes: Shapes) -> Iterator[Subject]:
    """Return mixtures: the choice, the projections, and what they add; then the widest projections alone."""
    for sizes in shapes.experts:
        for form in shapes.forms[:2]:
            within, widths = WITHIN.get(form, FINE), f"of {sizes.count}, {sizes.hidden} by {sizes.inner}"
            for tokens in (1, shapes.chunk):
                name = f"experts {form}, {tokens} x {sizes.chosen} {widths}"
                yield Subject(name, partial(_experts, sizes, form, tokens), TURNED if form in FORMATS else 2 * within)
            name = f"gate and up {form}, {sizes.chosen} {widths}"
            yield Subject(name, partial(_gate_and_up, sizes, form), within, decodes=True)


def _experts(sizes: Experts, form: str, tokens: int, numbers: Numbers) -> Work:
    chosen, hidden, inner = sizes.chosen, sizes.hidden, sizes.inner
    x, out = numbers.floats(tokens, hidden), numbers.empty(tokens, hidden)
    gate, up, down = (numbers.empty(tokens * chosen, width) for width in (inner, inner, hidden))
    shapes = (inner, hidden), (inner, hidden), (hidden, inner)
    matrices = [_all(numbers, form, sizes.count, *shape) for shape in shapes]
    choices, choose = _choices(sizes, tokens, numbers)
    rows = _rows(sizes, tokens, numbers)

    def run() -> None:
        choose()
        ops.expert_linears(x, choices, matrices[:2], (gate, up), scratch=rows)
        ops.swiglu(gate, up, out=gate)
        ops.expert_linears(gate, choices, matrices[2:], (down,), grouped=True, scratch=rows)
        ops.add_choices(out, down, choices.places, choices.weights)

    return Work([run], [out, choices.weights], reset=lambda: out.fill_(0.0))


def _gate_and_up(sizes: Experts, form: str, numbers: Numbers) -> Work:
    """One token, by each of some choices in turn where experts must not be found in a cache."""
    x, chosen = numbers.floats(1, sizes.hidden), sizes.chosen
    gate, up = numbers.empty(chosen, sizes.inner), numbers.empty(chosen, sizes.inner)
    matrices = [_all(numbers, form, sizes.count, sizes.inner, sizes.hidden) for _ in range(2)]
    rows, runs = _rows(sizes, 1, numbers), list[Callable[[], object]]()
    for seed in range(16 if numbers.cold else 1):
        choices, choose = _choices(sizes, 1, numbers, seed)
        choose()
        runs.append(partial(ops.expert_linears, x, choices, matrices, (gate, up), scratch=rows))
    return Work(runs, [gate, up], 2 * chosen * matrices[0].matrices[0].nbytes)


def _choices(sizes: Experts, tokens: int, numbers: Numbers, seed: int = 0) -> tuple[ops.Choices, Callable[[], object]]:
    """Return room for choices, and what fills it by scores in no order."""
    stored, logits = numbers.floats(tokens, sizes.count, seed=30 + seed), numbers.empty(tokens, sizes.count)
    choices = ops.Choices.empty(tokens, sizes.chosen, sizes.count, numbers.device)
    scratch = route_scratch(sizes.count, 1, numbers.device)

    def choose() -> None:
        ops.copy(logits, stored)
        ops.route(logits, out=choices, logistic=sizes.logistic, scratch=scratch)

    return choices, choose


def _rows(sizes: Experts, tokens: int, numbers: Numbers) -> Tensor:
    """Return scratch for rows in whatever form they meet matrices."""
    wide = most_row_bytes(sizes.hidden) * (1 + sizes.chosen)
    return numbers.empty(tokens * max(wide, most_row_bytes(sizes.inner) * sizes.chosen), dtype="uint8")


def _all(numbers: Numbers, form: str, count: int, n: int, k: int) -> ops.ExpertWeights:
    """Return the matrices of all experts: neighbours differ, and each has memory of its own where that is measured."""
    some = [numbers.matrix(form, n, k, seed=5 + i) for i in range(min(DIFFERENT, count))]
    rest = (some[e % len(some)] for e in range(len(some), count))
    return ops.ExpertWeights([*some, *(map(copied, rest) if numbers.cold else rest)])
