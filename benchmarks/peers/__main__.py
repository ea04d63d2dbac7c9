"""The command: ``setup`` makes the engines' environments, ``run`` compares them, ``plot`` draws what it found."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.peers import plot, report
from benchmarks.peers.catalogue import FORMATS, PEERS, contestants
from benchmarks.peers.environments import install, is_ready
from benchmarks.peers.rounds import MEASURES, Plan, Sitting
from benchmarks.peers.sights import size_of
from pio.errors import PioError
from pio.machine import cpu_count

CACHE = Path("~/.cache/pio-peers")


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    commands = made.add_subparsers(dest="command", required=True)
    for name, text in (("setup", "Make the engines' environments."), ("run", "Compare engines.")):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--cache", type=Path, default=CACHE, help="where environments and models are kept")
        command.add_argument("--engines", type=names, default=list(PEERS), help=f"of {','.join(PEERS)}")
    command.add_argument("--config", type=Path, required=True, help="config.json, or a folder with one")
    command.add_argument("--formats", type=names, default=list(FORMATS), help=f"of {','.join(FORMATS)}")
    command.add_argument("--variants", type=names, default=[], help="only these ways to store the weights, else all")
    command.add_argument("--measures", type=names, default=list(MEASURES), help=f"of {','.join(MEASURES)}")
    command.add_argument("--picture", type=names, default=[], help="sizes that a model that sees is shown: 1024x768")
    for name, value, text in (
        ("rounds", 5, "how often each engine is measured"),
        ("threads", cpu_count(), "of each engine"),
        ("prompt-tokens", 512, "length of the prompt of prefill"),
        ("depth", 32, "tokens before the answer that is timed"),
        ("new-tokens", 64, "length of that answer; half as many where several are decoded together"),
        ("sequences", 8, "how many are decoded together"),
        ("seed", 0, "of weights and prompts"),
        ("layers", 0, "how many of the config's layers the model has; 0 is all"),
    ):
        command.add_argument(f"--{name}", type=int, default=value, help=f"{text} ({value})")
    command.add_argument("--json", type=Path, help="write everything that was measured to this file")
    text = "Draw what was measured."
    command = commands.add_parser("plot", help=text, description=text)
    command.add_argument("results", type=Path, nargs="+", help="written by run --json; several share a picture")
    command.add_argument("out", type=Path, help="the picture, as SVG")
    return made


def setup(cache: Path, engines: list[str]) -> int:
    """Make environments; one that fails does not keep the others from being made."""
    failed = 0
    for engine in engines:
        if is_ready(cache, engine):
            print(f"{engine}: ready")
            continue
        print(f"{engine}: installing {' '.join(PEERS[engine].packages)}", flush=True)
        try:
            install(cache, engine)
        except subprocess.CalledProcessError as error:
            failed = 1
            print(f"{engine}: pip ended with status {error.returncode}", file=sys.stderr)
    return failed


def run(arguments: argparse.Namespace) -> int:
    """Compare, print, and write the JSON file."""
    missing = [engine for engine in arguments.engines if not is_ready(arguments.cache, engine)]
    if missing:
        print(f"no environment for {', '.join(missing)}; make it by the setup command", file=sys.stderr)
        return 2
    config: Path = arguments.config
    plan = Plan(
        (config / "config.json" if config.is_dir() else config).resolve(),
        arguments.cache,
        arguments.rounds,
        arguments.threads,
        tuple(arguments.measures),
        arguments.prompt_tokens,
        arguments.depth,
        arguments.new_tokens,
        arguments.sequences,
        arguments.seed,
        arguments.layers,
        tuple(arguments.picture),
    )
    try:
        with Sitting(plan, lambda text: print(text, file=sys.stderr, flush=True)) as sitting:
            sitting.prepare(contestants(arguments.engines, arguments.formats, arguments.variants))
            results = sitting.run()
    except (OSError, ValueError, PioError) as error:
        print(f"{plan.config}: {error}", file=sys.stderr)
        return 2
    print(report.as_text(plan, results, sitting.failed))
    if arguments.json:
        arguments.json.write_text(json.dumps(report.as_dict(plan, results, sitting.failed), default=str), "utf-8")
    return 0 if results else 1


def draw(results: list[Path], out: Path) -> int:
    """Write the picture of results."""
    try:
        files = [json.loads(path.read_text("utf-8")) for path in results]
        out.write_text(plot.picture(files), "utf-8")
    except (OSError, ValueError) as error:
        print(f"{', '.join(map(str, results))}: {error}", file=sys.stderr)
        return 2
    return 0


def main(words: list[str] | None = None) -> int:
    made = parser()
    arguments = made.parse_args(words)
    if arguments.command == "plot":
        return draw(arguments.results, arguments.out)
    arguments.cache = arguments.cache.expanduser().resolve()
    known = [(arguments.engines, PEERS)]
    if arguments.command == "run":
        known += [(arguments.formats, FORMATS), (arguments.measures, MEASURES)]
    for given, possible in known:
        for name in given:
            if name not in possible:
                made.error(f"{name!r}: expected one of {', '.join(possible)}")
    for size in getattr(arguments, "picture", ()):
        try:
            size_of(size)
        except ValueError as error:
            made.error(f"--picture {error}")
    if arguments.command == "setup":
        return setup(arguments.cache, arguments.engines)
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
