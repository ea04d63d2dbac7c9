"""Every kernel against the CPU's, its bits when it runs again and beside others, and how near it comes to the peaks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Final

from pio import ops
from pio.benchmarks.gpu.check import Check, Finding
from pio.benchmarks.gpu.check_shapes import Shapes
from pio.benchmarks.gpu.draft_subjects import drafts
from pio.benchmarks.gpu.linear_subjects import experts, head_linears, linear, linears
from pio.benchmarks.gpu.mixer_subjects import attention, latent_attention, recurrences
from pio.benchmarks.gpu.numbers import Numbers
from pio.benchmarks.gpu.row_subjects import rows
from pio.benchmarks.gpu.subject import Subject, Work, relative_error, same_bits
from pio.benchmarks.gpu.tower_subjects import tower
from pio.device import Device
from pio.ops.attention import BLOCK_SIZE, cache_layout
from pio.tensor import Tensor

READ_AIM, PRODUCT_AIM = 75.0, 40.0  # percent
WAYS: Final = 4  # launches of each run in a graph, at least
AGAIN: Final = 8  # such graphs one behind the other, so that the GPU has work while Python asks for more
PARTS: Final = {"bfloat16": 2}  # products of tensor cores for one: activations are a sum of two numbers of bfloat16


def subjects(shapes: Shapes) -> Iterator[Subject]:
    """Return everything that is computed, of each kind one in turn: where time is short all kinds have been met."""
    makers = linears, attention, experts, recurrences, drafts, latent_attention, head_linears, rows, tower
    kinds = [make(shapes) for make in makers]
    while kinds:
        for kind in list(kinds):
            found = next(kind, None)
            if found is None:
                kinds.remove(kind)
            else:
                yield found


def agreement(check: Check) -> Iterator[Finding]:
    """Compare everything with the CPU."""
    there, here = Numbers(check.device), Numbers(Device("cpu"))
    for subject in check.timely(subjects(check.shapes)):
        found, wanted = subject.make(there).once(), subject.make(here).once()
        if subject.within == 0.0:
            equal = sum(same_bits([a], [b]) for a, b in zip(found, wanted, strict=True))
            yield Finding.equal(subject.name, equal, len(found))
            continue
        worst = max(relative_error(a, b) for a, b in zip(found, wanted, strict=True))
        yield Finding.right(subject.name, worst, subject.within)
    Numbers.forget()


def repeats(check: Check) -> Iterator[Finding]:
    """Compute each kind of thing again and again: the bits must stay."""
    numbers, times = Numbers(check.device), check.shapes.repeats
    for subject in check.timely(_first_of_each(subjects(check.shapes))):
        work = subject.make(numbers)
        first = work.once()
        equal = sum(same_bits(work.once(), first) for _ in range(times))
        yield Finding.equal(f"{subject.name}, again", equal, times)


def _first_of_each(found: Iterator[Subject]) -> Iterator[Subject]:
    """Return one subject of each name up to its sizes, and all that are of few rows or positions."""
    seen = set[str]()
    for subject in found:
        kind = subject.name.partition(",")[0]
        if kind not in seen:
            seen.add(kind)
            yield subject


def independence(check: Check) -> Iterator[Finding]:
    """Compute rows alone and among others, and sequences likewise: a row's bits must not know."""
    shapes, numbers = check.shapes, Numbers(check.device)
    n, k = shapes.widths[0]
    for form in shapes.forms:
        if check.over(f"linear {form}, alone and among others"):
            continue
        many = max(shapes.rows)
        whole = linear(form, n, k, many).make(numbers).once()[0]
        for count in sorted({*shapes.rows, many - 1}):
            alone = linear(form, n, k, count).make(numbers).once()[0]
            same = same_bits([alone], [whole[:count].contiguous()])
            yield Finding.equal(f"linear {form}, {count} rows of {many}", int(same), 1)
    for form in shapes.caches:
        for length in shapes.lengths:
            if not check.over(f"attention {form}, {length} positions among others"):
                yield _sequences(check, form, length)


def _sequences(check: Check, form: str, length: int) -> Finding:
    """Attend for a token alone, as a part of a piece of its prompt, and beside other sequences."""
    heads, kv_heads, dim = check.shapes.heads[0]
    numbers, tokens = Numbers(check.device), min(check.shapes.chunk, length)
    dtype, *pools = cache_layout(form, -(-length // BLOCK_SIZE) * 3, kv_heads, dim)
    keys, values = (ops.Pages.of(Tensor.zeros(shape, dtype, check.device), form) for shape in pools)
    scratch = ops.attention_scratch(dim, check.device)
    past = length - tokens
    whole, _ = numbers.sequence((length, 0), (length, 0), (length, 0))
    k, v = (numbers.floats(3 * length, kv_heads, dim, seed=seed) for seed in (3, 4))
    ops.write_cache(keys, values, k, v, whole, scratch)
    q = numbers.floats(3 * tokens, heads, dim)
    batch, tables = numbers.sequence((tokens, past), (tokens, past), (tokens, past))
    together = ops.paged_attention(q, keys, values, batch, scratch, out=numbers.empty(3 * tokens, heads, dim))
    equal = 0
    for i, table in enumerate(tables):
        alone, _ = numbers.sequence((1, length - 1))
        alone.begin()
        alone.append(1, length - 1, table, i)
        alone.send()
        last = (i + 1) * tokens - 1
        one = ops.paged_attention(
            q[last : last + 1], keys, values, alone, scratch, out=numbers.empty(1, heads, dim)
        )  # fmt: skip
        equal += same_bits([one.to("cpu")], [together[last : last + 1].to("cpu")])
    what = f"attention {form}, {length} positions, alone, in a piece and beside others"
    return Finding.equal(what, equal, len(tables))


def reads(check: Check) -> Iterator[Finding]:
    """Measure which share of the read bandwidth the kernels of an answer's tokens reach."""
    numbers = Numbers(check.device, check.shapes.cold)
    found = (subject for subject in _decoding(check.shapes) if subject.decodes)
    for subject in check.timely(found):
        work = subject.make(numbers)
        seconds = _seconds(check, work)
        share = 100 * work.nbytes / seconds / check.bandwidth
        yield check.speed(f"{subject.name}: {1e6 * seconds:.1f} µs", share, "% of bandwidth", READ_AIM)
    Numbers.forget()


def _decoding(shapes: Shapes) -> Iterator[Subject]:
    return chain(
        (linear(form, *width, 1) for form in shapes.forms[:3] for width in (*shapes.widths, shapes.table)),
        experts(shapes),
        attention(shapes),
        latent_attention(shapes),
        recurrences(shapes),
        drafts(shapes),
        head_linears(shapes),
        (linear(form, *width, 1) for form in shapes.forms[3:] for width in shapes.widths),
    )


def prefill(check: Check) -> Iterator[Finding]:
    """Measure which share of the tensor cores' peak linear layers of a prompt reach."""
    numbers, shapes = Numbers(check.device), check.shapes
    for form in ("bfloat16", "rounded", "int4", "int8"):
        for n, k in shapes.widths[:8]:
            subject = linear(form, n, k, shapes.prompt)
            if check.over(subject.name):
                continue
            work = subject.make(numbers)
            seconds = _seconds(check, work)
            peak = check.products["int8" if form.startswith("int") else "bfloat16"]
            share = 100 * 2 * PARTS.get(form, 1) * work.products / seconds / peak
            yield check.speed(f"{subject.name}: {1e6 * seconds:.0f} µs", share, "% of peak", PRODUCT_AIM)
    Numbers.forget()


def _seconds(check: Check, work: Work) -> float:
    """Return the seconds of one run, of many in a graph that take their matrices in turn."""
    times = max(1, WAYS // len(work.runs))
    for run in work.runs:
        run()
    with ops.recording() as program:
        for _ in range(times):
            for run in work.runs:
                run()
    program.run()

    def again() -> None:
        for _ in range(AGAIN):
            program.run()

    return check.seconds(again) / (AGAIN * times * len(work.runs))
