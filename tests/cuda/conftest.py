"""What tests of GPUs share: a driver of one, see ``gpus``."""

from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fake_driver import FakeDriver


@pytest.fixture
def driver() -> Generator["FakeDriver"]:
    """Give the test one GPU."""
    from fake_driver import FakeDriver
    from gpus import having

    with having(FakeDriver()) as made:
        yield made
