"""``pio doctor``: what this machine has, what is missing, and how to mend it."""

from __future__ import annotations

import typer

from pio.cli import options
from pio.cli.console import mark, write, write_json


def doctor(json: options.Json = False) -> None:
    """Say what this machine offers, what is missing, and how to mend it."""
    from pio.cli.findings import examine

    findings = examine()
    broken = any(finding.state == "missing" for finding in findings)
    if json:
        write_json({"ok": not broken, "findings": [finding.as_dict() for finding in findings]})
    else:
        states, names = (
            max(map(len, texts)) for texts in zip(*((mark(f.state), f.name) for f in findings), strict=True)
        )
        write("".join(f"{mark(f.state):{states}}  {f.name:{names}}  {f.value}\n" for f in findings))
        advice = [f for f in findings if f.remedy]
        if advice:
            write("\n" + "".join(f"{mark(f.state)} {f.name}: {f.remedy}\n" for f in advice))
    if broken:
        raise typer.Exit(1)
