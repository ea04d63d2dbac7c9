"""All commands in one group, and what they share: errors in one line, notes, exit codes."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

import pio
from pio.cli import remedies
from pio.cli.console import complain, notes
from pio.cli.signals import INTERRUPTED
from pio.errors import PioError

# Each is a function in a module of its name, in the order of the help.
COMMANDS: Final = ("generate", "chat", "models", "verify", "download", "quantize", "warmup", "doctor", "bench")

# What programs like this one call things.
ALIASES = {"help": "--help", "version": "--version"}
ELSEWHERE = {
    "run": "pio chat MODEL talks with a model, pio generate MODEL PROMPT goes on with a text",
    "serve": "pio runs inside your program and has no server; there are pio chat MODEL and pio generate MODEL PROMPT",
    "complete": "pio generate MODEL PROMPT goes on with a text",
    "pull": "pio download ORG/NAME fetches a model",
    "list": "pio models lists them",
    "ls": "pio models lists them",
    "show": "pio models lists them, pio verify MODEL looks into one",
    "convert": "models run as they were published; pio quantize MODEL FOLDER writes one with fewer bits",
}


class Commands(TyperGroup):
    """The group; every error that pio raises on purpose becomes one line and exit code 1."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take ``help``, ``help COMMAND`` and ``version`` for the options of that name."""
        if args and args[0] in ALIASES:
            args = [*args[1:2], ALIASES[args[0]]]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that is named; errors speak of its options from here on."""
        if args[0] in ELSEWHERE and args[0] not in self.commands:
            ctx.fail(f"No such command '{args[0]}': {ELSEWHERE[args[0]]}.")
        found: Any = super().resolve_command(ctx, args)
        remedies.speak_of(found[1].params)
        return found

    def invoke(self, ctx: Any) -> Any:
        """Run the command of a context."""
        try:
            with notes(verbose=bool(ctx.params.get("verbose"))):
                return super().invoke(ctx)
        except PioError as error:
            complain(error)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pio {pio.__version__}")
        raise typer.Exit


def _shared(
    verbose: Annotated[bool, typer.Option("--verbose", help="Say what is loaded and compiled.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """Run open language models on this machine."""


def make_app(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """Return the command line.

    Args:
        names: The commands that it is to have; typer takes a millisecond to build one.
    """
    app = typer.Typer(
        cls=Commands,
        name="pio",
        help="Run open language models on this machine.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_shared)  # which also makes it a group where there is one command alone
    for name in names:
        app.command(name)(getattr(import_module(f"pio.cli.{name}"), name))
    return app
