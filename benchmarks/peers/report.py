"""From the values of each round to medians, ratios and a text that shows both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from benchmarks.peers.catalogue import BASE
from benchmarks.peers.rounds import Plan, Result
from benchmarks.peers.sights import ENCODE, PICTURE

TITLES = {"prefill": "prefill", "decode": "decode", "together": "together", "start": "first token"}
SECONDS = ("start", PICTURE, ENCODE)  # how measures begin of which less is better
BANDWIDTH = "bandwidth"


def medians(result: Result) -> dict[str, float]:
    """Return the median of each measure, and the median share of the bandwidth that decoding reached."""
    found = {name: median(values) for name, values in result.rounds.items() if values}
    if result.rounds.get(BANDWIDTH):
        pairs = zip(result.rounds["decode"], result.rounds[BANDWIDTH], strict=True)
        found["bandwidth_share"] = median(result.weights * decode / read for decode, read in pairs)
    return found


def ratios(base: Result, other: Result) -> dict[str, float]:
    """Return how many times faster ``base`` is, for each measure: the median of the rounds' own ratios."""
    found: dict[str, float] = {}
    for name, ours in base.rounds.items():
        theirs = other.rounds.get(name)
        if ours and theirs and name != BANDWIDTH:
            pairs = list(zip(ours, theirs, strict=True))
            found[name] = median(b / a if name.startswith(SECONDS) else a / b for a, b in pairs)
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
        + (_of_pictures(results) if plan.pictures else _of_text(plan))
    ]
    titles = TITLES
    if plan.pictures:
        titles = {f"{kind} {size}": f"{kind} {size}" for size in plan.pictures for kind in (PICTURE, ENCODE)}
    for format in dict.fromkeys(result.contestant.format for result in results):
        rows = [["weights", *titles.values(), "GB", "share", "peak GB"]]
        rows += [_row(result, titles) for result in results if result.contestant.format == format]
        parts.append(f"{format}\n{table(rows)}")
    if pairs := compared(results):
        rows = [["times faster", *titles.values()]]
        rows += [
            [f"{base.contestant.name} : {other.contestant.name}", *(_number(found.get(name), 2) for name in titles)]
            for base, other, found in pairs
        ]
        parts.append(table(rows))
    read = [value for result in results for value in result.rounds.get(BANDWIDTH, [])]
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


def _of_text(plan: Plan) -> str:
    return (
        f"Tokens/s: prefill of {plan.prompt_tokens}, decode of one sequence after {plan.depth} tokens, "
        f"{plan.sequences} decoded together.\n"
        "First token: seconds from the start of the process. GB: weights that a token reads. "
        "Share: these × decode / bandwidth read around it."
    )


def _of_pictures(results: Sequence[Result]) -> str:
    tokens = results[0].tokens.items() if results else ()
    return (
        "Seconds from a picture and a question to the first token, and of these until the picture is encoded. GB: "
        "weights that a token reads.\nTokens of picture and question: "
        + ", ".join(f"{count} of {size}" for size, count in tokens)
        + "."
    )


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


def _row(result: Result, titles: Iterable[str]) -> list[str]:
    found = medians(result)
    share = found.get("bandwidth_share")
    return [
        result.contestant.name,
        *(_number(found.get(name), 2 if name.startswith(SECONDS) else 1) for name in titles),
        _number(result.weights / 1e9, 2),
        "–" if share is None else f"{share:.0%}",
        _number(result.peak_memory / 1e9, 2),
    ]


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
