"""One way to run a command: in this process, as typer's own runner does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from pio.cli.app import make_app


@pytest.fixture(scope="session")
def pio() -> Callable[..., Any]:
    def run(*arguments: object, input: str | None = None) -> Any:
        return CliRunner().invoke(make_app(), [str(a) for a in arguments], input=input, prog_name="pio")

    return run
