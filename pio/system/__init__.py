"""The operating system: all that differs between systems stands in here, in one module for each.

``HERE`` is the system that this process runs on. What each must be able to do, `interface.System` says.
"""

from __future__ import annotations

import sys
from typing import Final

from pio.system.interface import Call as Call
from pio.system.interface import System as System


def _here() -> System:
    if sys.platform == "win32":
        from pio.system.windows import Windows

        return Windows()
    if sys.platform == "darwin":
        from pio.system.macos import MacOS

        return MacOS()
    from pio.system.linux import Linux

    return Linux()


HERE: Final = _here()
