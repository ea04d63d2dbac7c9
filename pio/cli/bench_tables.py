"""The tables of ``pio bench``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pio.cli.console import count, size, write_table
from pio.cli.loading import named

if TYPE_CHECKING:
    from pio.benchmarks.report import Callers, Copying, Report, Sight, Work


def show(r: Report) -> None:
    """Write what was measured, for people."""
    held = f"{count(r.parameters)} parameters in {named(r.formats)}"
    title = f"{r.model}: {r.plugin}, {held}; {r.processor}, {r.threads} threads"
    peak = "unknown" if r.peak_memory is None else size(r.peak_memory)
    rows = [
        ["read bandwidth", f"{r.bandwidth.median / 1e9:.2f} GB/s", f"best {r.bandwidth.best / 1e9:.2f}"],
        *_decode_rows(r),
        *_prefill_rows(r),
        ["load", f"{r.load_seconds:.2f} s", "kernels included"],
        ["weights", size(r.weights_bytes), ""],
        ["cache", size(r.cache_bytes), "reserved"],
        ["peak memory", peak, f"at most {size(r.memory_bound)} is the aim: 1.08 x (weights + cache) + 200 MB"],
    ]
    write_table(title, ["", ">median", ""], rows)
    if r.pictures:
        held = r.formats["tower"]
        title = f"\nPictures, by a tower in {held}; shares are of its {r.tower_arithmetic} peak"
        columns = ["picture", ">seen as", ">tokens", ">encode", ">work", ">share", ">prefill"]
        columns += [">first token", ">decode", ">memory"]
        write_table(title, columns, list(map(_picture_row, r.pictures)))
    if r.callers is not None:
        write_table("\nMany callers", ["", ">", ""], _caller_rows(r.callers))
    if r.copying is not None:
        title = "\nA copy with edits, of which the tokens are replayed"
        write_table(title, ["", ">", ""], _copy_rows(r.copying, r.sequences))
    if r.workloads:
        columns = ["workload", ">prompt", ">answer", ">requests", ">first token", ">all", ">speed"]
        write_table("\nWorkloads", columns, list(map(_work_row, r.workloads)))


def _copy_rows(c: Copying, sequences: int) -> list[list[str]]:
    length = f"{c.new_tokens} tokens, an edit every {c.edits_every}"
    return [
        ["one token a step", f"{c.plain.median:.2f} tok/s", f"best {c.plain.best:.2f}; {length}"],
        ["with drafts", f"{c.drafted.median:.2f} tok/s", f"best {c.drafted.best:.2f}"],
        ["  times as fast", f"{c.times_as_fast:.2f}", "round by round"],
        ["  drafted", str(c.drafted_tokens), f"tokens, in {c.checks} steps"],
        ["  accepted", str(c.accepted_tokens), ""],
        ["  same answers", str(c.equal), f"of {sequences}"],
    ]


def _work_row(w: Work) -> list[str]:
    counts = map(str, (w.prompt_tokens, w.new_tokens, w.requests))
    return [w.name, *counts, f"{w.time_to_first_token:.3f} s", f"{w.seconds:.2f} s", f"{w.speed.median:.1f} tok/s"]


def _picture_row(s: Sight) -> list[str]:
    peak = "unknown" if s.peak_memory is None else size(s.peak_memory)
    work = f"{s.operations_per_picture / 1e9:,.0f} Gop"
    seconds = [f"{s.encode:.3f} s", work, f"{s.operations_share:.1%}", f"{s.prefill:.3f} s"]
    sizes = [f"{s.width} x {s.height}", f"{s.seen_width} x {s.seen_height}", str(s.tokens)]
    return [*sizes, *seconds, f"{s.time_to_first_token:.3f} s", f"{s.decode:.2f} tok/s", peak]


def _decode_rows(r: Report) -> list[list[str]]:
    together = f"{r.sequences} sequences together, " if r.sequences > 1 else ""
    rows = [
        [
            "decode",
            f"{r.decode.median:.2f} tok/s",
            f"best {r.decode.best:.2f}; {together}{r.new_tokens} tokens after {r.depth}",
        ],
        ["  weights read a token", size(round(r.weights_per_token)), ""],
        ["  cache read a token", size(round(r.cache_per_token)), "keys and values"],
        ["  share of bandwidth", f"{r.bandwidth_share:.1%}", "(weights + cache) x tok/s / bandwidth, round by round"],
    ]
    if r.busy_decode is not None:
        beside = f"  beside {r.busy} busy process{'es' if r.busy > 1 else ''}"
        rows.append([beside, f"{r.busy_decode.median:.2f} tok/s", f"keeps {r.busy_keeps:.1%}, round by round"])
    return rows


def _prefill_rows(r: Report) -> list[list[str]]:
    rows: list[list[str]] = []
    first = r.prefill[0].prompt_tokens
    for p in r.prefill:
        peak, work = p.operations.median / 1e9, p.operations_per_token / 1e9
        rows += [
            ["prefill", f"{p.speed.median:.1f} tok/s", f"best {p.speed.best:.1f}; {p.prompt_tokens} tokens"],
            [f"  {r.arithmetic} peak", f"{peak:.1f} Gop/s", f"best {p.operations.best / 1e9:.1f}"],
            [f"  share of {r.arithmetic} peak", f"{p.operations_share:.1%}", f"{work:.3g} Gop/token"],
            ["  time to first token", f"{p.time_to_first_token:.3f} s", ""],
        ]
        if p is not r.prefill[0]:
            rows.append([f"  against {first} tokens", f"{p.against_first:.1%}", "round by round"])
    return rows


def _caller_rows(c: Callers) -> list[list[str]]:
    together = f"{c.threads} threads and {c.loops} event loops ask at the same time"
    alone, most = f"{c.tokens / c.one_by_one:.1f} tok/s one after another", c.chunk + 2 * c.step
    return [
        [f"{c.requests} requests", f"{c.tokens / c.at_once:.1f} tok/s", f"{together}; {alone}"],
        ["  times as fast", f"{c.times_as_fast:.2f}", f"{c.equal} of {c.requests} answers have the same tokens"],
        [
            f"first token of {c.short_prompt}",
            f"{c.first_token:.3f} s",
            f"behind {c.long_prompt} tokens that are read, {c.chunk:.3f} s a chunk",
        ],
        [
            "silence of an answer",
            f"{c.silence_p99:.3f} s",
            f"of 100 one is longer, half are over {c.silence:.3f} s; a chunk and two steps take {most:.3f} s",
        ],
    ]
