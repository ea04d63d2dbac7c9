"""States that one manager leaves on disk with the blocks before them, and another one goes on from."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alike import CHUNKS, PROMPT, REQUEST_FIELDS, SIZE, check_answers, check_pool, computed, params, submitted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_disk import LIMIT, POOLS, DiskStatesToyCache, fill, make, segments, stored, used_bytes
from toy_manager import ids
from toy_model import EOS, STEP, ToyCache, ToyManager, ToyModel, toy_greedy

from pio.engine import prefix_reads, prefix_writes, stored_items
from pio.engine.block_keys import BlockKeys, root_key
from pio.engine.handle import Handle
from pio.engine.sampling_params import SamplingParams
from pio.engine.sequence import NO_SLOT
from pio.engine.stored_prefixes import DiskOptions
from pio.errors import CancelledError, ConfigError, OutOfMemoryError
from pio.store import disk_store
from pio.store.folder import SegmentFolder, prepare
from pio.store.segment import Item, checksum, make_header

TOY = DiskStatesToyCache(1, 1)
STATE, ROOT = TOY.state_bytes, root_key(TOY, b"toy")
LONG = [(7 * i) % 37 for i in range(90)]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of a state, or of three blocks; a state has three parts, two of which are read between two steps."""
    monkeypatch.setattr(disk_store, "SEGMENT", 48)
    monkeypatch.setattr(disk_store, "LOOK", 0.0)
    monkeypatch.setattr(prefix_writes, "DELAY", 0.0)
    monkeypatch.setattr(stored_items, "PART", 16)
    monkeypatch.setattr(stored_items, "MOST_PARTS", 1 << 10)
    monkeypatch.setattr(prefix_reads, "PIECE", STATE // 2)
    monkeypatch.setattr(prefix_reads, "TOGETHER", 32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return prepare(tmp_path / "kept")


def cached(manager: ToyManager, prompt: list[int], count: int = 3, **fields: Any) -> int:
    """How much of a prompt is found; its answer must be that of a cold run."""
    found = manager.submit(prompt, params(count, **fields)).result(STEP)
    assert found.token_ids == toy_greedy(prompt, count)
    return found.usage.cached_tokens


def on_disk(folder: Path) -> list[int]:
    """Return the lengths of the states on disk."""
    found = list[int]()
    for file in segments(folder):
        held = file.read_bytes()
        for item, begin, nbytes, _ in SegmentFolder(folder, ROOT).items(file.name):
            if item.kind == "states0":
                found.append(array("i", held[begin : begin + nbytes])[-1])
    return sorted(found)


@pytest.mark.parametrize("kept", [1, 2, 12])
def test_a_prompt_is_found_after_a_restart(folder: Path, kept: int) -> None:
    fill(folder, kept=kept)
    model = ToyModel()
    manager = make(folder, model, kept=kept)
    found = manager.submit(PROMPT, params(4)).result(STEP)
    assert (found.token_ids, found.usage.cached_tokens) == (toy_greedy(PROMPT, 4), 20)
    assert computed(model) == 2 + 3
    stats = manager.stats()
    assert (stats.cached_tokens, stats.disk_tokens, stats.prompt_tokens) == (20, 20, 2)
    if kept > 1:  # else what the answer came to has taken its place
        assert cached(manager, PROMPT) == 20 and manager.stats().disk_tokens == 20, "it is in memory now"
    assert stored(manager)._items.kinds == [f"states{i}" for i in range(POOLS)]
    manager.close()


@pytest.mark.parametrize("kept", [1, 12])
@pytest.mark.parametrize("what", ["states", "keys"])
def test_what_cannot_be_taken_in_ends_its_request_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, what: str, kept: int
) -> None:
    """Its own states may be anything by then; those that were read, and their slot, are nobody's."""
    fill(folder, kept=kept)
    manager = make(folder, ToyModel(), kept=kept)
    cache = stored(manager)._manager
    holder, name = (cache.states._cache, "copy_states") if what == "states" else (cache, "learn")
    real, failed = getattr(holder, name), list[int]()

    def once(*arguments: Any) -> object:
        taken_in = what == "states" or (arguments[0] and arguments[0][0].loading)
        if taken_in and not failed:
            failed.append(1)
            raise MemoryError("once")
        return real(*arguments)

    monkeypatch.setattr(holder, name, once)
    with pytest.raises(OutOfMemoryError, match="once"):
        manager.submit(PROMPT, params(4)).result(STEP)
    assert cached(manager, PROMPT, 4) == 20
    assert cache.states._lent == 0
    manager.close()


@pytest.mark.parametrize("kept", [2, 12])
def test_a_conversation_goes_on_after_each_turn(folder: Path, kept: int) -> None:
    said = list(PROMPT)
    for turn in range(6):
        manager = make(folder, ToyModel(max_positions=300), num_blocks=100, kept=kept)
        found = manager.submit(said, params(7)).result(STEP)
        assert found.token_ids == toy_greedy(said, 7)
        assert found.usage.cached_tokens == (0 if turn == 0 else (len(said) - 2 - 1) // SIZE * SIZE)
        said += [*found.token_ids, *range(turn, turn + 2)]
        manager.close()


def test_which_states_are_written(folder: Path) -> None:
    """The end of the prompt and of its answer, not each of those that are kept in memory; then where two ways part."""
    manager = make(folder, ToyModel(max_positions=200), num_blocks=200, kept=20)
    assert cached(manager, LONG, 8) == 0
    assert manager.stats().kept_states > 6
    manager.close()
    assert on_disk(folder) == [88, 96]
    manager = make(folder, ToyModel(max_positions=200), num_blocks=200, kept=20)
    assert cached(manager, [*LONG[:50], 1, 2, 3, 4], 1) == 0, "those between are not on disk"
    assert cached(manager, [*LONG[:50], 3, 2, 3, 4], 1) == 48, "where it parted from what is on disk"
    manager.close()
    assert on_disk(folder) == [48, 52, 52, 88, 96]
    manager = make(folder, ToyModel(max_positions=200), num_blocks=200, kept=20)
    assert cached(manager, [*LONG[:50], 5, 2, 3, 4], 1) == 48
    manager.close()


def test_the_end_of_the_first_message_is_written(folder: Path) -> None:
    system = [*LONG[:33], EOS]
    manager = make(folder, ToyModel(max_positions=200), num_blocks=200, kept=20, eos_token_ids=[EOS])
    assert cached(manager, [*system, *LONG[40:80], EOS, 9, 9], 1) == 0
    manager.close()
    assert on_disk(folder) == [32, 76]


def test_states_that_save_little_for_their_bytes_are_not_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty tokens are worth them: a turn that is shorter is computed again after a restart, with the next one."""
    monkeypatch.setattr(prefix_writes, "TOKEN", STATE / 20)
    said = LONG[:17]
    turns = ((0, 0, []), (16, 0, [32]), (3, 32, [32]), (9, 32, [32]), (40, 32, [32, 88]), (2, 88, [32, 88]))
    for new, found, there in turns:
        said = [*said, *LONG[:new]]
        manager = make(folder, ToyModel(max_positions=200), num_blocks=200, kept=20)
        assert cached(manager, said, 1) == found
        said.append(toy_greedy(said, 1)[0])
        manager.close()
        assert on_disk(folder) == there


def test_the_states_of_earlier_turns_go_first(folder: Path) -> None:
    """As soon as those of a later one are on disk; those of the last one stay, and where others went another way."""
    ages, said = dict[int, bool](), LONG[:21]
    manager = make(folder, ToyModel(max_positions=200), num_blocks=200, kept=20)
    store, written = stored(manager).store, threading.Semaphore(0)
    wake = store.wake
    store.wake = lambda: (wake(), written.release())
    for turn in range(4):
        found = manager.submit(said, params(9)).result(STEP)
        for _ in range(5 if turn == 0 else 4):  # blocks, the end of the prompt, blocks, and the end of the answer
            assert written.acquire(timeout=STEP)
        said = [*said, *found.token_ids, 1, 2, 3]
        if turn == 1:
            assert cached(manager, [*said[:33], 7, 7, 7, 7], 1) == 32
            assert written.acquire(timeout=STEP) and written.acquire(timeout=STEP)
    manager.close()
    for file in segments(folder):
        held = file.read_bytes()
        for item, begin, nbytes, _ in SegmentFolder(folder, ROOT).items(file.name):
            if item.kind == "states0":
                ages[array("i", held[begin : begin + nbytes])[-1]] = file.stat().st_mtime < time.time() - 1e6
    assert [length for length, old in sorted(ages.items()) if old] == [20, 28, 40, 44]
    assert [length for length, old in sorted(ages.items()) if not old] == [32, 36, 52, 56, 64]


def test_salts_and_models_keep_apart(folder: Path) -> None:
    fill(folder, kept=12)
    for options, fields, found in (
        ({}, {"cache_salt": "a"}, 0),
        ({"identity": b"other"}, {}, 0),
        ({}, {"cache_salt": "a"}, 20),
        ({}, {"cache_salt": "ab"}, 0),
        ({}, {}, 20),
        ({"identity": b"other"}, {}, 20),
    ):
        manager = make(folder, kept=12, **options)
        assert cached(manager, PROMPT, **fields) == found
        manager.close()


@pytest.mark.parametrize("kind", ["block", *(f"states{i}" for i in range(POOLS))])
def test_what_is_damaged_is_computed(folder: Path, kind: str) -> None:
    fill(folder, kept=12)
    items = [(file, each) for file in segments(folder) for each in SegmentFolder(folder, ROOT).items(file.name)]
    file, (_, begin, nbytes, _) = next(each for each in items if each[1].item.kind == kind)
    held = bytearray(file.read_bytes())
    held[begin + nbytes // 2] ^= 4
    file.write_bytes(held)
    for found in (0, 20):
        manager = make(folder, kept=12)
        assert cached(manager, PROMPT) == found
        assert stored(manager)._manager.states._lent == 0
        manager.close()


def written(items: list[tuple[Item, bytes]]) -> bytes:
    """Return a segment of this store."""
    rows = [(item, len(data), checksum(ROOT, item, [memoryview(data)])) for item, data in items]
    return make_header(ROOT, rows) + b"".join(data for _, data in items)


def of_another_type(held: dict[Item, bytes]) -> bytes:
    return written([(item, data[:-4]) for item, data in held.items()])


def lacks_a_part(held: dict[Item, bytes]) -> bytes:
    return written([(item, data) for item, data in held.items() if item.kind != "states1"])


def of_another_way(held: dict[Item, bytes]) -> bytes:
    """Beside a block that nobody knows."""
    return written([(Item(item.kind, b"x" * 32, b"x" * 32), data) for item, data in held.items()])


def of_another_model(held: dict[Item, bytes]) -> bytes:
    return written([*held.items()]).replace(ROOT.hex().encode(), bytes(32).hex().encode())


@pytest.mark.parametrize(
    "damage",
    [
        of_another_type,
        lacks_a_part,
        of_another_way,
        of_another_model,
        lambda held: written([*held.items()])[:-1],
        lambda held: written([*held.items()])[:100],
        lambda held: b"not at all what its name says" * 100,
        lambda held: b"",
    ],
    ids=[
        "another type",
        "lacks a part",
        "another way",
        "another model",
        "cut",
        "cut in its header",
        "foreign",
        "empty",
    ],
)
def test_hostile_files_of_states(folder: Path, damage: Callable[[dict[Item, bytes]], bytes]) -> None:
    fill(folder, kept=12)
    (file,) = (file for file in segments(folder) if b"states0." in file.read_bytes())
    held = file.read_bytes()
    items = {item: held[at : at + nbytes] for item, at, nbytes, _ in SegmentFolder(folder, ROOT).items(file.name)}
    assert written([*items.items()]) == held
    file.write_bytes(damage(items))
    for found in (0, 20):
        manager = make(folder, kept=12)
        assert cached(manager, PROMPT) == found
        assert stored(manager)._manager.states._lent == 0
        manager.close()


@pytest.mark.parametrize("lost", ["states", "blocks"])
def test_states_without_blocks_and_blocks_without_states_are_worth_nothing(folder: Path, lost: str) -> None:
    fill(folder, LONG[:46], kept=12)
    for file in segments(folder):
        if (b"states0." in file.read_bytes()) is (lost == "states"):
            file.unlink()
    for found in (0, 44):
        manager = make(folder, kept=12)
        assert cached(manager, LONG[:46]) == found
        manager.close()


def test_an_earlier_state_is_taken_where_the_last_one_is_damaged(folder: Path) -> None:
    fill(folder, LONG[:22], LONG[:46], kept=12)
    manager = make(folder, kept=12)
    assert on_disk(folder) == [20, 44]
    key = BlockKeys().key(10, array("i", LONG), SIZE, ROOT)
    places = stored(manager)._items.find_states(stored(manager).store, key)
    file = folder / places[-1].segment.name
    held = bytearray(file.read_bytes())
    held[-1] ^= 1
    file.write_bytes(held)
    assert cached(manager, LONG[:46]) == 20
    manager.close()


@pytest.mark.parametrize("at", [0, 4, 8])
def test_a_block_that_is_damaged_under_a_reader(folder: Path, at: int) -> None:
    """It was there when the reading began; blocks before it lead to an earlier state, if to any."""
    fill(folder, LONG[:22], LONG[:46], kept=12)
    model = ToyModel()
    model.slow = True
    manager = make(folder, model, kept=12)
    first = manager.submit([1], params(12))
    model.wait_for_step()
    handle = manager.submit(LONG[:46], params(3))
    model.step()
    model.wait_for_step()  # admitted, and not read whole
    for file in segments(folder):
        held, block = file.read_bytes(), array("i", LONG[at * SIZE : (at + 1) * SIZE]).tobytes()
        if b"states0." not in held and block in held:
            file.write_bytes(held.replace(block, b"\x07" + block[1:]))
    model.step(1000)
    found = handle.result(STEP)
    assert (found.token_ids, found.usage.cached_tokens) == (toy_greedy(LONG[:46], 3), 20 if at > 4 else 0)
    assert ids(first) == toy_greedy([1], 12)
    assert stored(manager)._manager.states._lent == 0
    manager.close()


Waiting = tuple[ToyModel, ToyManager, Handle, Handle]


@pytest.fixture
def waiting(folder: Path) -> Iterator[Waiting]:
    """A model that steps when told to, its manager, a request that runs, and one for PROMPT, which is being read."""
    fill(folder, kept=12)
    model = ToyModel()
    model.slow = True
    manager = make(folder, model, kept=12)
    first = manager.submit([1], params(20))
    model.wait_for_step()
    handle = manager.submit(PROMPT, params(2))
    model.step()
    model.wait_for_step()  # admitted, and not read whole
    assert stored(manager).reading
    yield model, manager, first, handle
    model.step(1000)
    manager.close()


def test_others_go_on_while_it_is_read(waiting: Waiting) -> None:
    """Three parts of states and five blocks, at most half of a state at a time: several steps pass meanwhile."""
    model, manager, first, handle = waiting
    model.step(1000)
    found = handle.result(STEP)
    assert (found.token_ids, found.usage.cached_tokens) == (toy_greedy(PROMPT, 2), 20)
    assert ids(first) == toy_greedy([1], 20)
    assert [(PROMPT[20:], 20) in step for step in model.steps].index(True) >= 3
    assert manager.stats().disk_tokens == 20


def test_one_that_is_cancelled_while_it_is_read(waiting: Waiting) -> None:
    model, manager, first, handle = waiting
    handle.cancel()
    model.step(1000)
    assert ids(first) == toy_greedy([1], 20)
    assert stored(manager)._manager.states._lent == 0
    assert cached(manager, PROMPT) == 20
    check_pool(manager, 16)


def test_states_that_another_process_removes_while_they_are_read(waiting: Waiting, folder: Path) -> None:
    """It is noticed by the next request, which looks at the folder, before more of them is read."""
    model, manager, first, handle = waiting
    for file in segments(folder):
        file.unlink()
    stranger = manager.submit([2, 2], params(2))
    model.step(1000)
    assert ids(handle) == toy_greedy(PROMPT, 2) and handle.result(STEP).usage.cached_tokens == 0
    assert ids(stranger) == toy_greedy([2, 2], 2) and ids(first) == toy_greedy([1], 20)
    assert stored(manager)._manager.states._lent == 0


def test_a_prompt_is_computed_where_there_is_no_room_for_its_states(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder, kept=12)
    manager = make(folder, kept=12)
    monkeypatch.setattr(stored(manager)._manager.states, "lend", lambda: NO_SLOT)
    assert cached(manager, PROMPT) == 0
    monkeypatch.undo()
    manager.close()


def test_a_model_that_is_closed_while_something_is_read(waiting: Waiting) -> None:
    model, manager, first, handle = waiting
    threading.Thread(target=model.step, args=(1000,)).start()
    manager.close()
    for each in (first, handle):
        with pytest.raises(CancelledError):
            each.result(STEP)


def test_several_that_begin_alike_read_it_once(folder: Path) -> None:
    fill(folder, kept=12)
    model = ToyModel()
    model.slow = True
    manager = make(folder, model, kept=12)
    first = manager.submit([1], params(1))
    model.wait_for_step()
    handles = [manager.submit(PROMPT, params(2)) for _ in range(2)]
    sampled = manager.submit(PROMPT, SamplingParams(n=3, seed=1, max_new_tokens=2, ignore_eos=True))
    model.step(1000)
    ids(first)
    assert [ids(handle) for handle in handles] == [toy_greedy(PROMPT, 2)] * 2
    assert [handle.result(STEP).usage.cached_tokens for handle in handles] == [20, 20]
    assert [sample.usage.cached_tokens for sample in sampled.result(STEP).samples] == [20] * 3
    assert manager.stats().disk_tokens == 20
    manager.close()


def test_a_deadline_counts_what_is_on_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(folder, kept=12)
    manager = make(folder, kept=12)
    worker = manager._worker
    assert worker is not None
    ids(manager.submit([1] * 40, params(1)))
    monkeypatch.setattr(worker._steps._deadlines, "_least", 1e6)
    assert ids(manager.submit(PROMPT, params(2, deadline=1000.0))) == toy_greedy(PROMPT, 2)
    manager.close()


def test_a_read_that_fails_is_a_miss_and_nobody_elses_fault(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(folder, kept=12)
    manager = make(folder, kept=12)

    def failing(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(disk_store.DiskStore, "read", failing)
    assert [cached(manager, prompt, 4) for prompt in (PROMPT, [3, 1])] == [0, 0]
    assert stored(manager)._manager.states._lent == 0
    manager.close()


def test_blocks_in_memory_are_not_read_again(folder: Path) -> None:
    """States that memory had no room for come from disk alone."""
    manager = make(folder, ToyModel(max_positions=300), num_blocks=200, kept=1)
    store, written = stored(manager).store, threading.Semaphore(0)
    wake = store.wake
    store.wake = lambda: (wake(), written.release())
    assert cached(manager, PROMPT, 1) == 0
    for _ in range(3):
        assert written.acquire(timeout=STEP)
    assert cached(manager, [3] * 30, 1) == 0, "which takes the only place"
    read, before = list[int](), store.read

    def reading(wanted: Any) -> int:
        read.extend(len(place.stored.item.kind) for place, _ in wanted)
        return before(wanted)

    store.read = reading
    assert cached(manager, PROMPT, 1) == 20
    assert read == [len("states0")] * POOLS
    manager.close()


def test_caches_that_cannot_be_kept_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"ToyCache does not show the memory of its blocks and states; .*state_mem"):
        ToyManager(ToyModel(), ToyCache(40, SIZE, 9), disk=DiskOptions(folder, LIMIT, b""))
    with pytest.raises(ConfigError, match=r"cache has states for 4 sequences, all of which may run .* none to keep"):
        make(folder, kept=0)
    with pytest.raises(ConfigError, match="prefix_cache_disk=65000 is too small"):
        make(folder, kept=2, limit=65_000)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
@given(
    st.lists(st.lists(st.tuples(*REQUEST_FIELDS, st.booleans()), min_size=1, max_size=6), min_size=1, max_size=3),
    st.integers(10, 30),
    st.integers(1, 6),
    CHUNKS,
    st.integers(0, 1 << 16),
)
def test_whatever_is_read_cancelled_or_gives_way_the_answers_are_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    lives: list[list[tuple[int, int, int, int, str | None, bool]]],
    num_blocks: int,
    kept: int,
    options: dict[str, int],
    room: int,
) -> None:
    """Several lives of a process, one after the other, in a cache and a folder that are mostly too small."""
    folder, limit = prepare(tmp_path_factory.mktemp("kept")), (1 << 16) + STATE + room % 20_000
    alone = ToyManager(ToyModel(), ToyCache(40, SIZE, 4), prefix_cache=False)
    for requests in lives:
        manager = make(folder, num_blocks=num_blocks, kept=kept, limit=limit, **options)
        check_answers(submitted(manager, requests), alone)
        check_pool(manager, min(num_blocks, 16))
        states = stored(manager)._manager.states
        assert manager.stats().kept_states <= kept and states._lent == 0
        assert len(states._free) == states.num_slots + kept - manager.stats().kept_states
        manager.close()
        assert used_bytes(folder) <= limit
    alone.close()
