"""A file is put in another's place as a whole, or not at all, and nothing is left beside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pio.system import HERE
from pio.system.files import UNFINISHED


def test_what_was_written_is_there_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a name"
    for text in ("one", "two"):
        with HERE.replacing(target) as beside:
            assert beside.parent == tmp_path and not beside.exists()
            assert re.fullmatch(re.escape(target.name) + UNFINISHED, beside.name)
            beside.write_text(text, "utf-8")
            assert not target.exists() or target.read_text("utf-8") == "one"
        assert target.read_text("utf-8") == text
    assert [*tmp_path.iterdir()] == [target]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_was_there_stays_where_it_fails(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "a name"
    target.write_text("one", "utf-8")
    with pytest.raises(type(error)) as caught, HERE.replacing(target) as beside:
        beside.write_text("tw", "utf-8")
        raise error
    assert caught.value is error
    assert target.read_text("utf-8") == "one" and [*tmp_path.iterdir()] == [target]


def test_a_file_that_cannot_be_replaced(tmp_path: Path) -> None:
    target = tmp_path / "a name"
    (target / "full").mkdir(parents=True)
    with pytest.raises(OSError), HERE.replacing(target) as beside:
        beside.write_text("two", "utf-8")
    with pytest.raises(FileNotFoundError), HERE.replacing(tmp_path / "other"):
        pass
    assert [*tmp_path.iterdir()] == [target]
