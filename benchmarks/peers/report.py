"""From the values of each round to medians, ratios and a text that shows both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from benchmarks.peers.catalogue import BASE
from benchmarks.peers.rounds import MEASURES, Plan, Result

TITLES = {"prefill": "prefill", "decode": "decode", "together": "together", "start": "first token"}
SECONDS = "start"  # the one measure of which less is better


def medians(result: Result) -> dict[str, float]:
    """Return the median of each measure, and the median share of the bandwidth that decoding reached."""
    found = {name: median(values) for name, values in result.rounds.items() if values}
    if result.rounds.get("bandwidth"):
        pairs = zip(result.rounds["decode"], result.rounds["bandwidth"], strict=True)
        found["bandwidth_share"] = median(result.weights * decode / read for decode, read in pairs)
    return found


def ratios(base: Result, other: Result) -> dict[str, float]:
    """Return how many times faster ``base`` is, for each measure: the median of the rounds' own ratios."""
    found: dict[str, float] = {}
    for name in MEASURES:
        ours, theirs = base.rounds.get(name), other.rounds.get(name)
        if ours and theirs:
            pairs = list(zip(ours, theirs, strict=True))
            found[name] = median(b / a if name == SECONDS else a / b for a, b in pairs)
    return found


def compared(results: Sequence[Result]) -> list[tuple[Result, Result, dict[str, float]]]:
    """Return pio with each other engine of the same format, and their ratios."""
    return [
        (base, other, ratios(base, other))
        for base in results
        for other in results
        if base.contestant.engine == BASE != other.contestant.engine
        if base.contestant.format == other.contestant.format
    ]


def as_dict(plan: Plan, results: Sequence[Result], failed: dict[str, str]) -> dict[str, Any]:
    """Return everything, for JSON."""
    return {
        "plan": {name: getattr(plan, name) for name in Plan.__dataclass_fields__} | {"config": str(plan.config)},
        "results": [result.as_dict() | {"medians": medians(result)} for result in results],
        "ratios": [
            {"pio": base.contestant.name, "other": other.contestant.name, "times_faster": found}
            for base, other, found in compared(results)
        ],
        "failed": failed,
    }


def as_text(plan: Plan, results: Sequence[Result], failed: dict[str, str]) -> str:
    """Return a table for each format, what pio is ahead by, and what could not run."""
    model = f"{plan.config}, {plan.layers} layers" if plan.layers else str(plan.config)
    parts = [
        f"Medians of {plan.rounds} alternating rounds, {plan.threads} threads, {model}.\n"
        f"Tokens/s: prefill of {plan.prompt_tokens}, decode of one sequence after {plan.depth} tokens, "
        f"{plan.sequences} decoded together.\n"
        "First token: seconds from the start of the process. GB: weights that a token reads. "
        "Share: these × decode / bandwidth read around it."
    ]
    for format in dict.fromkeys(result.contestant.format for result in results):
        rows = [["weights", *TITLES.values(), "GB", "share", "peak GB"]]
        rows += [_row(result) for result in results if result.contestant.format == format]
        parts.append(f"{format}\n{table(rows)}")
    if pairs := compared(results):
        rows = [["times faster", *TITLES.values()]]
        rows += [
            [f"{base.contestant.name} : {other.contestant.name}", *(_number(found.get(name), 2) for name in MEASURES)]
            for base, other, found in pairs
        ]
        parts.append(table(rows))
    read = [value for result in results for value in result.rounds.get("bandwidth", [])]
    if read:
        parts.append(f"Bandwidth: {median(read) / 1e9:.1f} GB/s ({min(read) / 1e9:.1f} to {max(read) / 1e9:.1f}).")
    idle = max(results, key=lambda result: result.idle_share, default=None)
    if idle:
        parts.append(f"Busiest while another was measured: {idle.contestant.name}, {idle.idle_share:.1%} of one core.")
    swapped = max(results, key=lambda result: result.pages_read, default=None)
    if swapped and swapped.pages_read:
        parts.append(f"Waited for the disk most often: {swapped.contestant.name}, {swapped.pages_read} times.")
    parts += [f"Left out: {name}: {why}" for name, why in failed.items()]
    return "\n\n".join(parts)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as aligned lines: names to the left, numbers to the right, the first row underlined."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _row(result: Result) -> list[str]:
    found = medians(result)
    share = found.get("bandwidth_share")
    return [
        result.contestant.name,
        *_numbers([found.get("prefill"), found.get("decode"), found.get("together")], 1),
        _number(found.get("start"), 2),
        _number(result.weights / 1e9, 2),
        "–" if share is None else f"{share:.0%}",
        _number(result.peak_memory / 1e9, 2),
    ]


def _numbers(values: Iterable[float | None], digits: int) -> list[str]:
    return [_number(value, digits) for value in values]


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
