"""``pio download``: from a Hugging Face hub into the local cache."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pio.cli.console import note, write
from pio.cli.signals import leave
from pio.errors import ConfigError
from pio.progress.stream import is_terminal


def download(
    repo: Annotated[str, typer.Argument(help="org/name, such as Qwen/Qwen3-0.6B, or org/name@revision.")],
    revision: Annotated[
        str | None, typer.Option("--revision", help="A branch, tag or commit.", show_default="main")
    ] = None,
    progress: Annotated[
        bool | None,
        typer.Option("--progress/--no-progress", help="Draw progress bars.", show_default="on a terminal"),
    ] = None,
) -> None:
    """Fetch a model into the local Hugging Face cache, and write its folder."""
    from pio.loading.download import download as fetch

    name, _, named = repo.partition("@")
    if named and revision not in (None, named):
        raise ConfigError(f"{repo} and --revision {revision} name two revisions; leave one out")
    revision = named or revision
    try:
        folder = fetch(name, revision=revision, progress=progress)
    except (KeyboardInterrupt, SystemExit) as error:
        if is_terminal(sys.stderr):
            note("")  # behind a bar
        leave(error)  # as Python ends a process, it would wait for threads that wait for the hub
    note(f"pio generate {name}{'@' + revision if revision else ''} PROMPT runs it")
    write(f"{folder}\n")
