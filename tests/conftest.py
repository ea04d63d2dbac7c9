"""How many examples Hypothesis tries: random ones at a desk, the same ones every time in CI, few without compiler."""

import os

import pytest
from hypothesis import settings
from numba.core import config

settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.register_profile("interpreted", settings.get_profile("ci"), max_examples=5)

settings.load_profile("interpreted" if config.DISABLE_JIT else "ci" if os.environ.get("CI") else "dev")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests of the group stress at full length")
