from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stores import ITEM

from pio.store import disk_store
from pio.store.folder import prepare


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_store, "SEGMENT", 4 * ITEM)
    monkeypatch.setattr(disk_store, "LOOK", 0.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return prepare(tmp_path / "kept")


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    """What was logged as a warning since it was last asked for."""
    with caplog.at_level(logging.WARNING, "pio"):

        def since() -> list[str]:
            found = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
            caplog.clear()
            return found

        yield since
