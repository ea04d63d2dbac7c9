"""How fast a token can be on a GPU, on paper: ``python -m pio.benchmarks.gpu_roofline --help``.

From a config, the registers and the shared memory that kernels take, and a GPU's data. No GPU is asked, and none needs
to be there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pio.benchmarks.gpu.cards import CARDS, Card, card
from pio.benchmarks.gpu.decode_step import DecodeStep, Held
from pio.benchmarks.gpu.published import PUBLISHED, USUAL
from pio.benchmarks.gpu.text_table import text_table
from pio.benchmarks.gpu.token_time import Assumed, kernel_rows, summary
from pio.benchmarks.random_model import read_config
from pio.errors import PioError
from pio.loading import config_json

DEFAULT_GPUS = ("h100", "h200", "rtx5070")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables; return the exit code, 1 behind an error that is said on standard error."""
    given = _parser().parse_args(arguments)
    try:
        found = _found(given)
    except PioError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    if given.json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
    else:
        sys.stdout.write(_shown(found) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pio.benchmarks.gpu_roofline", description=__doc__)
    usual = Assumed()
    parser.add_argument("--config", type=Path, help="a config.json, or a folder with one (five published models)")
    parser.add_argument("--quantize", help="int8, int4 or int4_zero_point, for --config (as stored)")
    parser.add_argument("--context", type=_positive, default=1024, help="positions that the token sees (1024)")
    parser.add_argument("--kv-cache-dtype", choices=("float32", "float16", "bfloat16", "int8"), help="of the cache")
    parser.add_argument("--gpu", action="append", help=f"{', '.join(CARDS)}; may be repeated")
    parser.add_argument("--gap", type=float, default=1e6 * usual.gap, help="microseconds between kernels of a graph")
    parser.add_argument("--host", type=float, default=1e6 * usual.host, help="microseconds between steps")
    parser.add_argument("--kernels", action="store_true", help="also each kind of launch")
    parser.add_argument("--json", action="store_true", help="one JSON value in the place of tables")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of at least 1")
    return value


def _found(given: argparse.Namespace) -> list[dict[str, Any]]:
    assumed = Assumed(1e-6 * given.gap, 1e-6 * given.host)
    cards = [card(name) for name in given.gpu or DEFAULT_GPUS]
    return [
        {
            "model": name,
            "format": held.layers,
            "cache": held.cache,
            "context": given.context,
            **summary(step, gpu, assumed),
            **({"kernels": kernel_rows(step, gpu)} if given.kernels else {}),
        }
        for name, raw, held in _models(given)
        for gpu in cards
        for step in [_step(raw, held, given.context, gpu)]
    ]


def _step(raw: dict[str, Any], held: Held, length: int, gpu: Card) -> DecodeStep:
    return DecodeStep(raw, held, length, gpu.multiprocessors)


def _models(given: argparse.Namespace) -> list[tuple[str, dict[str, Any], Held]]:
    cache = given.kv_cache_dtype
    if given.config is not None:
        raw = read_config(given.config)
        held = Held.of(config_json.dtype(raw) or "bfloat16", given.quantize, cache)
        return [(str(given.config), raw, held)]
    forms = {name: given.quantize or form for name, form in USUAL.items()}
    return [(name, raw, Held.of("bfloat16", forms[name], cache)) for name, raw in PUBLISHED.items()]


def _shown(found: list[dict[str, Any]]) -> str:
    columns = ["model", "weights", "GPU", ">launches", ">MB a token", ">floor", ">kernels", ">in a graph", ">a step"]
    rows: list[list[str]] = []
    for each in found:
        speeds = [f"{speed:.0f}" for speed in each["tokens_per_second"].values()]
        if not each["fits"]:
            speeds[-1] = "does not fit"
        held = f"{each['format']}, {each['weights_bytes'] / 1e9:.1f} GB"
        rows.append(
            [
                each["model"],
                held,
                each["gpu"],
                str(each["launches"]),
                f"{each['bytes_per_token'] / 1e6:.0f}",
                *speeds,
            ]
        )
    parts = [f"Tokens a second of one sequence, behind {found[0]['context']} positions", text_table(columns, rows)]
    for each in found:
        if "kernels" in each:
            parts += ["", f"{each['model']} on {each['gpu']}", _kernels(each["kernels"])]
    return "\n".join(parts)


def _kernels(rows: list[dict[str, Any]]) -> str:
    columns = ["kernel", "what", ">launches", ">items", ">registers", ">resident", ">busy", ">in flight", ">MB"]
    return text_table(
        [*columns, ">µs of bytes", ">µs"],
        [
            [
                row["kernel"],
                row["what"],
                str(row["launches"]),
                str(row["items"]),
                f"{row['registers']}{'' if row['registers_known'] else ' at most'}",
                f"{row['resident']} of {row['blocks']}",
                f"{row['busy']:.0%}",
                f"{row['in_flight'] / row['needed_in_flight']:.1f} x" if row["in_flight"] else "",
                f"{row['bytes_per_token'] / 1e6:.1f}",
                f"{1e6 * row['floor_seconds']:.0f}",
                f"{1e6 * row['seconds']:.0f}",
            ]
            for row in rows
        ],
    )


if __name__ == "__main__":
    raise SystemExit(main())
