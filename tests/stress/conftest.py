"""Stress tests have a short form, which runs with all others, and a long one, for ``--long``."""

import pytest


@pytest.fixture
def long_form(request: pytest.FixtureRequest) -> bool:
    """Whether the long form was asked for."""
    return bool(request.config.getoption("--long"))
