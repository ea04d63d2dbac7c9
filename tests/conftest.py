"""What holds in every test: how many examples Hypothesis tries, the signals that programs start with, and ``--long``.

Examples are random ones at a desk, the same ones every time in CI, few without compiler; and fewer in an emulated
system, which asks for that (``--hypothesis-profile=emulated``).
"""

import os
import signal

import pytest
from hypothesis import settings
from numba.core import config

from pio.system import HERE

settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.register_profile("interpreted", settings.get_profile("ci"), max_examples=5)
settings.register_profile("emulated", settings.get_profile("ci"), max_examples=10)

settings.load_profile("interpreted" if config.DISABLE_JIT else "ci" if os.environ.get("CI") else "dev")


# A run that was started in the background ignores these, and so would every program that its tests start.
for number in (signal.SIGINT, *HERE.ending_signals):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests of the group stress at full length")
