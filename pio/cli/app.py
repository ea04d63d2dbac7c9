"""All commands in one group, and what they share: errors in one line, notes, exit codes."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import pio
from pio.cli import bench, chat, doctor, download, generate, models, quantize, verify, warmup
from pio.cli.console import complain, notes
from pio.errors import PioError

INTERRUPTED = 130  # as a shell reports a process that Ctrl-C ended


class Commands(TyperGroup):
    """The group; every error that pio raises on purpose becomes one line and exit code 1."""

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


app = typer.Typer(
    cls=Commands,
    name="pio",
    help="Run open language models on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pio {pio.__version__}")
        raise typer.Exit


@app.callback()
def options(
    verbose: Annotated[bool, typer.Option("--verbose", help="Say what is loaded and compiled.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """Run open language models on this machine."""


app.command("generate")(generate.generate)
app.command("chat")(chat.chat)
app.command("models")(models.models)
app.command("verify")(verify.verify)
app.command("download")(download.download)
app.command("quantize")(quantize.quantize)
app.command("warmup")(warmup.warmup)
app.command("doctor")(doctor.doctor)
app.command("bench")(bench.bench)
