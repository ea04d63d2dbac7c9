"""What Linux and macOS share: who can have written a file, and for which processor an interpreter was built."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from needs import needs_modes, needs_root

if sys.platform != "linux":
    pytest.skip("needs Linux, where what macOS says of itself can be read too", allow_module_level=True)

from pio.system.linux import Linux
from pio.system.macos import MacOS
from pio.system.posix import Posix

SYSTEM = Linux()


def reason(path: Path, descriptor: int | None = None) -> str | None:
    return Posix.distrust(SYSTEM, path, descriptor)


@needs_modes
def test_of_an_open_file_the_file_is_asked_and_not_what_is_at_its_path(tmp_path: Path) -> None:
    mine, others = tmp_path / "mine", tmp_path / "others"
    for path, mode in ((mine, 0o644), (others, 0o666)):
        path.write_bytes(b"x")
        path.chmod(mode)
    with open(mine, "rb") as trusted, open(others, "rb") as distrusted:
        os.rename(others, mine)
        assert reason(mine, trusted.fileno()) is None
        assert (
            reason(mine) == reason(mine, distrusted.fileno()) == f"{mine} can be written by others; chmod go-w {mine}"
        )


@needs_root
def test_what_belongs_to_somebody_else_is_to_be_removed(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, -1)
    assert reason(tmp_path) == f"{tmp_path} belongs to user id 12345; remove it, and it is made anew"


@pytest.mark.parametrize(("largest", "expected"), [((1 << 63) - 1, SYSTEM.machine), ((1 << 31) - 1, "other")])
def test_an_interpreter_of_32_bits_is_not_of_the_kernels_kind(largest: int, expected: str) -> None:
    code = f"import sys; sys.maxsize = {largest}; from pio.system import HERE; print(HERE.machine)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == expected


def test_remedies_are_those_of_the_system() -> None:
    assert "control group" in Linux.memory_remedy and "container" in Linux.thread_remedy
    for remedy in (MacOS.memory_remedy, MacOS.thread_remedy):
        assert remedy and not any(word in remedy for word in ("ulimit -v", "control group", "container"))


PART = (
    "processor\t: {core}\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\nCPU implementer\t: {maker}\nCPU part\t: {part}\n\n"
)


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("processor\t: 0\nmodel\t\t: 1\nmodel name\t: A: B\n\nprocessor\t: 1\nmodel name\t: C\n", "A: B"),
        (PART.format(core=0, maker="0x41", part="0xd08") + "Model\t\t: A board\n", "A board"),
        (
            PART.format(core=0, maker="0x41", part="0xd0c") + PART.format(core=1, maker="0x41", part="0xd40"),
            "Neoverse N1",
        ),
        (PART.format(core=0, maker="0x41", part="0xd4f"), "Neoverse V2"),
        (PART.format(core=0, maker="0x41", part="0xfff"), "ARM implementer 0x41, part 0xfff"),
        (PART.format(core=0, maker="0xc0", part="0xd0c"), "ARM implementer 0xc0, part 0xd0c"),
        ("", os.uname().machine),
    ],
    ids=[
        "of x86",
        "of a board",
        "of ARM's own",
        "a newer one",
        "unknown",
        "of another maker",
        "that nothing describes",
    ],
)
def test_a_processors_name(tmp_path: Path, cpuinfo: str, name: str) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(cpuinfo)
    assert Linux(tmp_path).processor_name() == name


@pytest.mark.parametrize("at_once", [1, 3, 512])
@pytest.mark.parametrize("most", [1, 7, 10_000])
def test_many_places_are_read_into_whatever_a_call_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int, most: int
) -> None:
    """A call may read less than it was asked for, as on a network drive; then the rest is read, up to the end."""
    held = bytes(range(256)) * 4
    (tmp_path / "file").write_bytes(held)
    whole = os.preadv

    def little(descriptor: int, targets: list[memoryview], position: int) -> int:
        some, left = list[memoryview](), most
        for target in targets:
            some.append(target[:left])
            left -= min(left, len(target))
        return whole(descriptor, some, position)

    monkeypatch.setattr("pio.system.posix._AT_ONCE", at_once)
    monkeypatch.setattr(os, "preadv", little)
    with open(tmp_path / "file", "rb") as file:
        for begin, end in ((0, 1024), (5, 600), (1000, 1024), (1000, 2000)):
            into = memoryview(bytearray(end - begin))
            cuts = [0, 0, 3, 4, 19, 20, len(into)]
            targets = [into[min(a, len(into)) : min(b, len(into))] for a, b in pairwise(cuts)]
            count = SYSTEM.read_scattered(file.fileno(), targets, begin)
            assert count == min(end, 1024) - begin and bytes(into[:count]) == held[begin:end]
