from __future__ import annotations

from collections.abc import Iterator

import pytest
from toy_manager import make
from toy_model import ToyManager, ToyModel


@pytest.fixture
def slow() -> Iterator[tuple[ToyModel, ToyManager]]:
    """A model that steps when told to, and its manager."""
    model = ToyModel()
    model.slow = True
    manager = make(model)
    yield model, manager
    model.step(1000)
    manager.close()
