"""``pio quantize`` that is killed at any moment: the folder is whole or not there, and the next run tidies up."""

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pio

pytestmark = pytest.mark.stress
QUANTIZE = "from pio.cli import main; import sys; sys.argv = ['pio', 'quantize', 'demo', 'out']; main()"


def run(folder: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", QUANTIZE]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_killed_at_any_moment(tmp_path: Path, sizes: Any) -> None:
    whole = files(pio.quantize("demo", tmp_path / "whole"))
    total = sum(map(len, whole.values()))
    left = 0
    for seed in range(sizes.kills):
        folder = tmp_path / str(seed)
        folder.mkdir()
        # as many bytes as it has written by then, which spreads the moments over all of its work
        moment = random.Random(seed).randrange(-total // 20, total)
        with run(folder) as process:
            while process.poll() is None and written(folder) < moment:
                pass
            process.kill()
        names = os.listdir(folder)
        if "out" in names:
            assert files(folder / "out") == whole
            continue
        left += len(names)
        with run(folder) as process:
            _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error.decode()
        assert os.listdir(folder) == ["out"] and files(folder / "out") == whole
    assert left  # some were killed at work


def written(folder: Path) -> int:
    """Bytes of all files below a folder, as far as they are there."""
    found = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                found += os.path.getsize(os.path.join(place, name))
            except FileNotFoundError:  # it was renamed meanwhile
                continue
    return found
