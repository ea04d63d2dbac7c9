"""What processes that were killed have left behind is removed, whatever keeps one folder of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pio.loading.unfinished import PREFIX, unfinished_folder
from pio.system import HERE

LEFT = [f"{PREFIX}{number:012x}" for number in range(3)]


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    for name in LEFT:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize("kept", LEFT)
def test_a_folder_that_cannot_be_locked_keeps_no_other(
    parent: Path, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    lock = HERE.lock_folder

    def refuse(folder: Path, *, needed: bool = False) -> int | None:
        if folder.name == kept:
            raise PermissionError("another user's")
        return lock(folder, needed=needed)

    monkeypatch.setattr(HERE, "lock_folder", refuse)
    with unfinished_folder(parent) as folder:
        assert set(os.listdir(parent)) - {f"{folder.name}.lock"} == {kept, folder.name}
    assert os.listdir(parent) == [kept]


def test_a_removal_that_is_interrupted_gives_its_lock_back(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(HERE, "remove_folder", interrupted)
        with pytest.raises(KeyboardInterrupt), unfinished_folder(parent):
            pass
    for name in LEFT:
        lock = HERE.lock_folder(parent / name)
        assert lock is not None
        HERE.unlock_folder(parent / name, lock)
    with unfinished_folder(parent):
        pass
    assert os.listdir(parent) == []
