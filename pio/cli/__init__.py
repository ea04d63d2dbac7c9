"""The command line, ``pio``: one file for each command, and nothing heavy imported before a command needs it."""

from __future__ import annotations

import gc
import sys

from pio.cli.signals import INTERRUPTED, end_in_order
from pio.cli.streams import OutputError, prepare_streams


def main() -> None:
    """Run the command that ``sys.argv`` names; ends the process with its exit code."""
    gc.set_threshold(50_000)  # imports make many objects and no garbage: a tenth of the time to the first token
    end_in_order()
    try:
        prepare_streams()
        from pio.cli.app import COMMANDS, make_app

        asked = sys.argv[1:2]
        make_app(asked if asked and asked[0] in COMMANDS else COMMANDS)(prog_name="pio")
    except KeyboardInterrupt:  # so early that no command has begun
        sys.exit(INTERRUPTED)
    except OutputError as error:
        if str(error):
            from pio.cli.console import complain

            complain(error)
        sys.exit(error.exit_code)


__all__ = ["main"]
