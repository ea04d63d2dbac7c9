"""Files and folders on Windows itself: access lists, files that are open elsewhere, folders that are moved."""

import mmap
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from needs import on_windows
from windows_access import FOR_EVERYBODY, give

from pio.system import HERE

pytestmark = on_windows

if sys.platform == "win32":
    from pio.system import windows_calls

HOLD = """
import sys
from pathlib import Path
from pio.system import HERE
print(HERE.lock_folder(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def reason(path):
    return HERE.distrust(path, None)


def test_a_private_folder_is_this_users(tmp_path):
    for made in (tmp_path / "made", tmp_path / "made" / "Jürgen Ω"):
        HERE.make_private_folder(made)
        assert made.is_dir() and reason(made) is None and HERE.may_write(made)
        with pytest.raises(FileExistsError):
            HERE.make_private_folder(made)
    (tmp_path / "made" / "file").write_bytes(b"x")
    assert reason(tmp_path / "made" / "file") is None
    with pytest.raises(FileNotFoundError):
        HERE.make_private_folder(tmp_path / "none" / "made")


@pytest.mark.parametrize("folder", [True, False])
def test_what_everybody_may_write_is_not_trusted(tmp_path, folder):
    path = tmp_path / "x"
    path.mkdir() if folder else path.write_bytes(b"x")
    give(path, FOR_EVERYBODY)
    assert "can be written by Everyone (S-1-1-0); icacls" in (reason(path) or "")


def test_of_an_open_file_the_file_is_asked_and_not_what_is_at_its_path(tmp_path):
    mine, others = tmp_path / "mine", tmp_path / "others"
    for path in (mine, others):
        path.write_bytes(b"x")
    HERE.make_private_folder(tmp_path / "private")
    os.rename(mine, tmp_path / "private" / "moved")
    mine = tmp_path / "private" / "mine"
    mine.write_bytes(b"x")
    give(others, FOR_EVERYBODY)
    with open(mine, "rb") as trusted, open(others, "rb") as distrusted:
        assert HERE.distrust(others, trusted.fileno()) is None
        assert "written by Everyone (S-1-1-0); icacls" in (HERE.distrust(mine, distrusted.fileno()) or "")


def test_a_file_that_is_mapped_or_open_is_not_replaced(tmp_path):
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "new").write_bytes(b"new")
    with open(tmp_path / "old", "rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        for _ in range(2):  # open and mapped, and mapped alone
            with pytest.raises(OSError, match="another program, or this one, has it open") as found:
                HERE.replace(tmp_path / "new", tmp_path / "old")
            assert "close it, or write elsewhere" in (HERE.file_problem(tmp_path, found.value, writing=True) or "")
            HERE.discard(tmp_path / "old")
            assert (tmp_path / "old").read_bytes() == b"old"
            file.close()
        mapping.close()
    HERE.replace(tmp_path / "new", tmp_path / "old")
    assert os.listdir(tmp_path) == ["old"] and (tmp_path / "old").read_bytes() == b"new"
    HERE.discard(tmp_path / "old")
    HERE.discard(tmp_path / "old")
    assert os.listdir(tmp_path) == []


def test_the_file_that_is_open_is_the_one_that_is_named(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).write_bytes(b"x")
    for name in ("new", "old"):
        with open(tmp_path / name, "rb"), pytest.raises(OSError, match="or this one, has it open") as found:
            HERE.replace(tmp_path / "new", tmp_path / "old")
        assert found.value.filename == str(tmp_path / name)


def test_a_file_that_is_open_for_a_moment_is_replaced(tmp_path, monkeypatch):
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "new").write_bytes(b"new")
    file = open(tmp_path / "old", "rb")
    monkeypatch.setattr("pio.system.windows_files.time.sleep", lambda _: file.close())  # while it waits
    HERE.replace(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").read_bytes() == b"new"


def test_a_read_only_file_is_not_replaced(tmp_path):
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "old").write_bytes(b"old")
    os.chmod(tmp_path / "old", stat.S_IREAD)
    with pytest.raises(PermissionError, match="marked as read-only"):
        HERE.replace(tmp_path / "new", tmp_path / "old")
    os.chmod(tmp_path / "old", stat.S_IWRITE)


def test_a_folder_is_removed_with_its_read_only_files(tmp_path):
    inner = tmp_path / "folder" / "inner"
    inner.mkdir(parents=True)
    for name in ("a", "b"):
        (inner / name).write_bytes(b"x")
    os.chmod(inner / "a", stat.S_IREAD)
    HERE.remove_folder(tmp_path / "folder")
    assert os.listdir(tmp_path) == []
    HERE.remove_folder(tmp_path / "folder")


def test_what_is_open_in_a_folder_stays(tmp_path):
    (tmp_path / "folder").mkdir()
    for name in ("a", "b"):
        (tmp_path / "folder" / name).write_bytes(b"x")
    with open(tmp_path / "folder" / "a", "rb"):
        HERE.remove_folder(tmp_path / "folder")
        assert os.listdir(tmp_path / "folder") == ["a"]
    HERE.remove_folder(tmp_path / "folder")
    assert os.listdir(tmp_path) == []


def test_a_folder_moves_over_an_empty_one_and_no_other(tmp_path):
    for name in ("new", "empty", "full", "other"):
        (tmp_path / name).mkdir()
    for name in ("new", "full", "other"):
        (tmp_path / name / name).write_bytes(b"x")
    HERE.move_folder(tmp_path / "new", tmp_path / "empty")
    with pytest.raises(OSError):
        HERE.move_folder(tmp_path / "other", tmp_path / "full")
    HERE.move_folder(tmp_path / "other", tmp_path / "nothing")
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == [
        "empty", "empty/new", "full", "full/full", "nothing", "nothing/other",
    ]  # fmt: skip


def test_the_empty_folder_is_there_where_none_could_move_over_it(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError):
        HERE.move_folder(tmp_path / "none", tmp_path / "empty")
    assert os.listdir(tmp_path) == ["empty"]


@pytest.fixture
def holder(tmp_path):
    (tmp_path / "folder").mkdir()
    command = [sys.executable, "-c", HOLD, str(tmp_path / "folder")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and int(process.stdout.readline()) > 0
        yield process
        process.kill()


@pytest.mark.parametrize("killed", [True, False])
def test_a_lock_is_another_processes_until_it_ends(tmp_path, holder, killed):
    folder = tmp_path / "folder"
    assert HERE.lock_folder(folder) is HERE.lock_folder(folder, needed=True) is None
    assert sorted(os.listdir(tmp_path)) == ["folder", "folder.lock"]
    if killed:
        holder.kill()
        holder.wait(60)
    else:
        holder.communicate(timeout=60)
    assert os.listdir(tmp_path) == ["folder"]  # the lock went with its process
    lock = HERE.lock_folder(folder)
    assert lock is not None and HERE.lock_folder(folder) is None
    HERE.move_folder(folder, tmp_path / "moved")
    HERE.unlock_folder(folder, lock)
    assert os.listdir(tmp_path) == ["moved"]


def test_a_folder_that_is_gone_cannot_be_locked(tmp_path):
    assert HERE.lock_folder(tmp_path / "none") is None
    assert os.listdir(tmp_path) == []
    with pytest.raises(OSError):
        HERE.lock_folder(tmp_path / "none" / "deeper")


@pytest.mark.parametrize(("second", "taken"), [((7, 0), 7), ((None, 32), None), ((None, 5), OSError)])
def test_a_lock_that_goes_while_it_is_asked_for_is_asked_for_again(monkeypatch, second, taken):
    """A file that is being removed is denied until it is gone, and then is not there."""
    answers = [(None, 5), second]
    monkeypatch.setattr(windows_calls, "_take", lambda _: answers.pop(0))
    monkeypatch.setattr(windows_calls, "open_error", lambda *_: 2)
    if taken is OSError:
        with pytest.raises(PermissionError):
            windows_calls.take("folder.lock")
    else:
        assert windows_calls.take("folder.lock") == taken
    assert answers == []


def test_a_lock_that_is_being_given_back_is_somebody_elses(monkeypatch):
    monkeypatch.setattr(windows_calls, "_take", lambda _: (None, 5))
    monkeypatch.setattr(windows_calls, "open_error", lambda *_: 5)
    assert windows_calls.take("folder.lock") is None


def test_junctions_are_followed_by_reading_and_by_no_removal(tmp_path):
    import _winapi

    from pio.loading.model_file import find, read_limited
    from pio.loading.unfinished import PREFIX, unfinished_folder

    inside = tmp_path / "disk" / "m"
    inside.mkdir(parents=True)
    (inside / "config.json").write_bytes(b"{}")
    for name in ("model", f"{PREFIX}0123456789ab"):
        try:
            _winapi.CreateJunction(str(inside), str(tmp_path / name))
        except OSError as error:
            pytest.skip(f"needs junctions: {error}")
    assert HERE.real_path(tmp_path / "model") == HERE.real_path(inside)
    found = find(tmp_path / "model", "config.json")
    assert found is not None and read_limited(found, 10) == b"{}"
    with unfinished_folder(tmp_path):  # removes what others have left
        pass
    HERE.remove_folder(tmp_path / "model")
    assert (inside / "config.json").read_bytes() == b"{}"


def test_one_spelling_of_a_path(tmp_path):
    (tmp_path / "Model").mkdir()
    drive, rest = os.path.splitdrive(str(tmp_path / "Model"))
    found = HERE.real_path(drive.lower() + rest)
    assert found == HERE.real_path(Path(drive.upper() + rest)) and found[0].isupper()
    assert HERE.real_path("\\\\?\\" + str(tmp_path / "Model")) == found


@pytest.mark.parametrize("path", ["nul", "models\\con", "aux/m", "m\\com1.x", "model:x", "C:\\m\\n:x"])
def test_paths_that_are_no_files(path):
    assert "; choose another name" in (HERE.path_problem(path) or "")
    assert HERE.path_problem("models\\org/m") is HERE.path_problem("..\\m") is HERE.path_problem("C:\\m") is None


def test_bytes_are_read_from_where_they_are_asked_for(tmp_path):
    (tmp_path / "file").write_bytes(bytes(range(256)) * 40)
    descriptor = os.open(tmp_path / "file", HERE.read_flags)
    wrong = []

    def read(seed):
        for i in range(200):
            target, at = bytearray(7), (37 * i + seed) % 10_000
            count = HERE.read_at(descriptor, memoryview(target), at)
            if count != 7 or target != bytes((at + j) % 256 for j in range(7)):
                wrong.append(at)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and HERE.read_at(descriptor, memoryview(bytearray(9)), 10_240) == 0
    os.close(descriptor)
