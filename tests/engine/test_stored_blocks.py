"""What one manager leaves on disk another one begins with, and answers as if it had computed it."""

from __future__ import annotations

import errno
import gc
import os
import threading
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from alike import CHUNKS, PROMPT, REQUEST_FIELDS, SIZE, check_answers, check_pool, computed, params, submitted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_disk import LIMIT, DiskToyCache, fill, make, segments, stored, used_bytes
from toy_manager import ids
from toy_model import STEP, PagedToyCache, ToyManager, ToyModel, toy_greedy

from pio.engine import prefix_reads, prefix_writes
from pio.engine.cache_manager import CacheManager
from pio.engine.sampling_params import SamplingParams
from pio.engine.sequence import Sequence
from pio.engine.stored_prefixes import DiskOptions, StoredPrefixes
from pio.errors import CancelledError, ConfigError
from pio.store import disk_store
from pio.store.folder import SegmentFolder, prepare

NOBODY: Any = None
FOUND: Any = SimpleNamespace(begin=lambda: None)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of three blocks; four blocks are read between two steps, two of them side by side."""
    monkeypatch.setattr(disk_store, "SEGMENT", 48)
    monkeypatch.setattr(disk_store, "LOOK", 0.0)
    monkeypatch.setattr(prefix_writes, "DELAY", 0.0)
    monkeypatch.setattr(prefix_reads, "PIECE", 64)
    monkeypatch.setattr(prefix_reads, "TOGETHER", 32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return prepare(tmp_path / "kept")


@pytest.fixture
def slow(folder: Path) -> Iterator[tuple[ToyModel, ToyManager]]:
    """A model that steps when told to, whose manager finds PROMPT on disk."""
    fill(folder)
    model = ToyModel()
    model.slow = True
    manager = make(folder, model)
    yield model, manager
    model.step(1000)
    manager.close()


def test_a_prompt_is_found_after_a_restart(folder: Path) -> None:
    fill(folder)
    model = ToyModel()
    manager = make(folder, model)
    found = manager.submit(PROMPT, params(4)).result(STEP)
    assert (found.token_ids, found.usage.cached_tokens) == (toy_greedy(PROMPT, 4), 20)
    assert computed(model) == 2 + 3
    assert found.timings.queue >= 0 and found.timings.prefill > 0
    again = manager.submit(PROMPT, params(4)).result(STEP)
    assert (again.token_ids, again.usage.cached_tokens) == (found.token_ids, 20)
    stats = manager.stats()
    assert (stats.cached_tokens, stats.disk_tokens, stats.prompt_tokens) == (40, 20, 4)
    assert stats.disk_segments >= 2 and stats.disk_failures == 0
    assert 0 < stats.disk_bytes <= used_bytes(folder), "the last answer may come to it"
    manager.close()


def test_an_answer_is_found_too_and_a_conversation_goes_on(folder: Path) -> None:
    said = list(PROMPT)
    for turn in range(5):
        manager = make(folder, ToyModel(max_positions=200))
        found = manager.submit(said, params(7)).result(STEP)
        assert found.token_ids == toy_greedy(said, 7)
        assert found.usage.cached_tokens == (0 if turn == 0 else (len(said) - 2 - 1) // SIZE * SIZE)
        said += [*found.token_ids, *range(turn, turn + 2)]
        manager.close()


def test_what_is_written_while_nothing_runs(folder: Path) -> None:
    """Without a close: as soon as the model rests, the last blocks are handed over, one segment after the other."""
    manager = make(folder)
    store, written = stored(manager).store, threading.Semaphore(0)
    wake = store.wake
    store.wake = lambda: (wake(), written.release())
    ids(manager.submit(PROMPT, params(1)))
    for _ in range(2):
        assert written.acquire(timeout=STEP)
    other = make(folder)
    assert other.submit(PROMPT, params(1)).result(STEP).usage.cached_tokens == 20
    other.close()
    manager.close()


def test_short_answers_share_a_segment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing runs between them, but what fills no segment waits for more: four blocks, three to a segment."""
    monkeypatch.setattr(prefix_writes, "DELAY", 1e6)
    manager = make(folder)
    store, written = stored(manager).store, threading.Semaphore(0)
    wake = store.wake
    store.wake = lambda: (wake(), written.release())
    for i in range(4):
        ids(manager.submit([i] * 5, params(1)))
        assert len(segments(folder)) <= (i >= 2)
    assert written.acquire(timeout=STEP) and len(segments(folder)) == 1
    assert 0 < stored(manager).rest() <= 1e6
    manager.close()
    assert len(segments(folder)) == 2
    manager = make(folder)
    assert [manager.submit([i] * 5, params(1)).result(STEP).usage.cached_tokens for i in range(4)] == [4] * 4
    manager.close()


def test_when_what_fills_no_segment_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(prefix_writes, "monotonic", lambda: now[0])
    monkeypatch.setattr(prefix_writes, "DELAY", 2.0)
    cache = DiskToyCache(40)
    manager = CacheManager(cache, 4)
    kept = StoredPrefixes(DiskOptions(folder, LIMIT, b"toy"), manager, cache)

    def give_back(token: int) -> None:
        sequence = Sequence(NOBODY, array("i", [token] * 5))
        assert manager.admit(sequence, 0)
        sequence.num_computed = 4
        manager.release(sequence)

    def write(*, idle: bool = True) -> float | None:
        kept.write(idle=idle)
        return kept.rest()

    assert write() is None
    give_back(1)
    assert write(idle=False) is None
    assert write() == 2.0
    now[0] += 1.5
    give_back(2)
    assert write() == 0.5, "the first one has waited"
    now[0] += 1.0
    assert write(idle=False) == 0.0 and not segments(folder)
    assert write() is None and kept.store.wait(STEP) and len(segments(folder)) == 1
    buffers = [kept.store.take_buffer() for _ in range(2)]
    give_back(3)
    assert write() is None, "who waits for a buffer is woken, and does not look again and again"
    for buffer in buffers:
        kept.store.put_buffer(buffer)
    assert write() == 2.0
    for token in (1, 2, 3, 4):
        give_back(token)
    assert write(idle=False) == 2.0, "they are on disk, or copied already"
    give_back(5)
    assert write(idle=False) is None and kept.store.wait(STEP) and len(segments(folder)) == 2, "that fills a segment"
    kept.finish(())
    assert len(segments(folder)) == 2


def test_what_others_need_the_room_of_is_written_before(folder: Path) -> None:
    """Less than a segment, while others run: three blocks of four tokens, of which each sequence has one whole."""
    cache = DiskToyCache(3)
    manager = CacheManager(cache, 4)
    kept = StoredPrefixes(DiskOptions(folder, LIMIT, b"toy"), manager, cache)

    def run(token: int, blocks: int = 1) -> Sequence:
        sequence = Sequence(NOBODY, array("i", [token] * (SIZE * blocks + 1)))
        assert manager.admit(sequence, 0)
        for block in sequence.blocks[:blocks]:
            cache.blocks[block][:] = array("i", [token] * SIZE)
        sequence.num_computed = SIZE * blocks
        return sequence

    manager.release(run(1))
    manager.release(run(2))
    kept.write(idle=False)
    assert kept._writes and kept.rest() is None, "no segment yet"
    third = run(3, blocks=2)
    assert not kept._writes and not segments(folder), "copied, and waiting for more"
    manager.release(third)
    kept.finish(())
    cache = DiskToyCache(9)
    manager = CacheManager(cache, 4)
    kept = StoredPrefixes(DiskOptions(folder, LIMIT, b"toy"), manager, cache)
    for token in (1, 2):
        sequence = Sequence(FOUND, array("i", [token] * (SIZE + 1)))
        assert manager.admit(sequence, 0)
        kept.begin(sequence, counted=True)
        while kept.reading:
            kept.advance()
        assert sequence.num_computed == SIZE and cache.blocks[sequence.blocks[0]].tolist() == [token] * SIZE
    kept.finish(())


def test_a_model_that_computes_other_bits_than_it_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(folder)
    holds, cache, before = [True], DiskToyCache(40), segments(folder)
    manager = CacheManager(cache, 4, identity=b"toy")
    kept = StoredPrefixes(DiskOptions(folder, LIMIT, b"toy", lambda: holds[0]), manager, cache)
    reading, other = (Sequence(FOUND, array("i", PROMPT)) for _ in range(2))
    assert manager.admit(reading, 0) and manager.admit(other, 0)
    kept.begin(reading, counted=True)
    assert kept.reading and kept.unread(other, len(PROMPT)) == 2
    running = Sequence(NOBODY, array("i", [9] * 9))
    assert manager.admit(running, 0)
    running.num_computed = 8
    holds[0] = False
    kept.advance()
    assert not kept.reading and not reading.loading and reading.num_computed == 0
    assert len(caplog.records) == 1 and "nothing more is read" in caplog.text
    kept.begin(other, counted=True)
    assert not kept.reading and kept.unread(other, len(PROMPT)) == len(PROMPT)
    manager.release(running)
    kept.write(idle=True)
    kept.finish([other])
    assert segments(folder) == before and len(caplog.records) == 1


def test_what_waits_in_a_buffer_is_forgotten_with_the_rest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an error of the model: buffers are there again."""
    monkeypatch.setattr(prefix_writes, "DELAY", 1e6)
    cache = DiskToyCache(40)
    manager = CacheManager(cache, 4)
    kept = StoredPrefixes(DiskOptions(folder, LIMIT, b"toy"), manager, cache)
    sequence = Sequence(NOBODY, array("i", [1] * 5))
    assert manager.admit(sequence, 0)
    sequence.num_computed = 4
    manager.release(sequence)
    kept._writes.write(idle=True, end=-1.0)
    assert kept._writes, "there was no time"
    kept._writes.write(idle=True)
    kept.clear()
    buffers = [kept.store.take_buffer() for _ in range(2)]
    assert [len(buffer) for buffer in buffers if buffer is not None] == [0, 0] and kept.rest() is None
    for buffer in buffers:
        assert buffer is not None
        kept.store.put_buffer(buffer)
    kept.finish(())
    assert segments(folder) == []


def test_a_disk_that_is_full(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests go on, what was there is found, and nothing more is queued."""
    fill(folder)
    manager = make(folder)

    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SegmentFolder, "write", full)
    for prompt, cached in ((PROMPT, 20), ([9] * 30, 0), ([8] * 30, 0), ([7] * 30, 0), (PROMPT, 20)):
        found = manager.submit(prompt, params(2)).result(STEP)
        assert (found.token_ids, found.usage.cached_tokens) == (toy_greedy(prompt, 2), cached)
    assert manager.stats().disk_failures <= 1
    kept = stored(manager)
    manager.close()
    assert kept.store.failures == 1 and not kept._writes


@pytest.mark.parametrize(
    ("options", "fields", "cached"),
    [({}, {}, 20), ({"identity": b"other"}, {}, 0), ({}, {"cache_salt": "a"}, 0)],
    ids=["the same", "another model", "a salt"],
)
def test_who_finds_it(folder: Path, options: dict[str, Any], fields: dict[str, Any], cached: int) -> None:
    fill(folder)
    manager = make(folder, **options)
    for expected in (cached, 20):
        found = manager.submit(PROMPT, params(3, **fields)).result(STEP)
        assert (found.token_ids, found.usage.cached_tokens) == (toy_greedy(PROMPT, 3), expected)
    manager.close()
    assert not any(b"salt" in file.read_bytes() for file in folder.iterdir())


def test_a_salt_is_found_after_a_restart(folder: Path) -> None:
    for cached in (0, 20):
        manager = make(folder)
        found = manager.submit(PROMPT, params(3, cache_salt="secret")).result(STEP)
        assert (found.token_ids, found.usage.cached_tokens) == (toy_greedy(PROMPT, 3), cached)
        manager.close()
    assert not any(b"secret" in file.read_bytes() for file in folder.iterdir())


@pytest.mark.parametrize("at", [0, 1, 2, 3, 4])
def test_a_damaged_block_is_computed_with_all_behind_it(folder: Path, at: int) -> None:
    fill(folder)
    for file in folder.glob("*.safetensors"):
        held = file.read_bytes()
        block = array("i", PROMPT[at * SIZE : (at + 1) * SIZE]).tobytes()
        file.write_bytes(held.replace(block, b"\x07" + block[1:]))
    manager = make(folder)
    found = manager.submit(PROMPT, params(3)).result(STEP)
    assert found.token_ids == toy_greedy(PROMPT, 3) and found.usage.cached_tokens <= at * SIZE
    manager.close()
    manager = make(folder)
    assert manager.submit(PROMPT, params(3)).result(STEP).usage.cached_tokens == 20, "it was written anew"
    manager.close()


def test_what_ram_has_is_not_read(folder: Path) -> None:
    fill(folder)
    manager = make(folder)
    ids(manager.submit(PROMPT[:9], params(1)))
    assert manager.stats().disk_tokens == 8
    found = manager.submit(PROMPT, params(1)).result(STEP)
    assert (found.usage.cached_tokens, manager.stats().disk_tokens) == (20, 20)
    manager.close()


@pytest.mark.parametrize(("pause", "pieces"), [(STEP, 1), (-1.0, 2)], ids=["four blocks", "a slow disk: two"])
def test_others_pass_one_that_is_read(
    slow: tuple[ToyModel, ToyManager], monkeypatch: pytest.MonkeyPatch, pause: float, pieces: int
) -> None:
    """It takes part in no step until it is read, a piece between two steps, and a stranger behind it does not wait."""
    model, manager = slow
    monkeypatch.setattr(prefix_reads, "PAUSE", pause)
    first = manager.submit([1], params(12))
    model.wait_for_step()
    waits, stranger = manager.submit(PROMPT, params(2)), manager.submit([2, 2], params(2))
    model.step(1000)
    assert ids(waits) == toy_greedy(PROMPT, 2) and ids(stranger) == toy_greedy([2, 2], 2)
    assert ids(first) == toy_greedy([1], 12)
    began = [next(i for i, step in enumerate(model.steps) if part in step) for part in (([2, 2], 0), (PROMPT[20:], 20))]
    assert began[1] - began[0] >= pieces


def test_several_that_begin_alike_read_it_once(slow: tuple[ToyModel, ToyManager]) -> None:
    model, manager = slow
    first = manager.submit([1], params(1))
    model.wait_for_step()
    handles = [manager.submit(prompt, params(2)) for prompt in (PROMPT, PROMPT, [*PROMPT[:13], 3])]
    sampled = manager.submit(PROMPT, SamplingParams(n=3, seed=1, max_new_tokens=2, ignore_eos=True))
    model.step(1000)
    ids(first)
    assert [ids(handle) for handle in handles] == [toy_greedy(p, 2) for p in (PROMPT, PROMPT, [*PROMPT[:13], 3])]
    assert [handle.result(STEP).usage.cached_tokens for handle in handles] == [20, 20, 12]
    assert [sample.usage.cached_tokens for sample in sampled.result(STEP).samples] == [20] * 3
    assert manager.stats().disk_tokens == 20


def test_one_that_is_cancelled_while_it_is_read(slow: tuple[ToyModel, ToyManager]) -> None:
    model, manager = slow
    first = manager.submit([1], params(20))
    model.wait_for_step()
    handle = manager.submit(PROMPT, params(2))
    model.step()
    model.wait_for_step()  # admitted, and not read whole
    handle.cancel()
    model.step(1000)
    with pytest.raises(CancelledError):
        handle.result(STEP)
    assert ids(first) == toy_greedy([1], 20)
    found = manager.submit(PROMPT, params(2)).result(STEP)
    assert (found.token_ids, found.usage.cached_tokens) == (toy_greedy(PROMPT, 2), 20)
    whole = [3] * 63
    assert ids(manager.submit(whole, params(1))) == toy_greedy(whole, 1)


def test_a_deadline_counts_what_is_on_disk(slow: tuple[ToyModel, ToyManager], monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be computed in time is not refused where it need only be read."""
    model, manager = slow
    model.step(1000)
    worker = manager._worker
    assert worker is not None
    ids(manager.submit([1] * 40, params(1)))
    monkeypatch.setattr(worker._steps._deadlines, "_least", 1e6)
    assert ids(manager.submit(PROMPT, params(2, deadline=1000.0))) == toy_greedy(PROMPT, 2)


def test_logits_of_a_prompt_read_nothing(folder: Path) -> None:
    fill(folder)
    model = ToyModel()
    manager = make(folder, model)
    manager.logits(PROMPT)
    assert (computed(model), manager.stats().disk_tokens) == (22, 0)
    manager.close()


def test_what_waits_to_be_written_is_bounded_and_all_that_is_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that takes nothing for a while: blocks that were evicted meanwhile are forgotten, and no others."""
    manager = make(folder, num_blocks=10)
    kept = stored(manager)
    queue, known = kept._writes._queue, kept._manager.known
    monkeypatch.setattr(kept.store, "take_buffer", lambda: None)
    numbers = set[int]()
    for i in range(30):
        ids(manager.submit([i, *range(8)], params(1)))
        assert len(queue) <= 10 + 2 and known._blocks.keys() <= {key for _, key in queue}
        numbers.update(known._keys)
    assert numbers == {*range(10)}
    monkeypatch.undo()
    manager.close()


def test_a_chain_longer_than_the_limit_leaves_its_beginning(folder: Path) -> None:
    prompt, limit = [(7 * i) % 39 for i in range(60)], (1 << 16) + 700
    for _ in range(3):
        manager = make(folder, limit=limit)
        assert ids(manager.submit(prompt, params(2))) == toy_greedy(prompt, 2)
        manager.close()
        assert used_bytes(folder) <= limit


def test_threads_files_and_memory_are_given_back(folder: Path) -> None:
    before = set(threading.enumerate())  # of tests before

    def threads() -> int:
        new = set(threading.enumerate()) - before
        return sum(thread.name.startswith(("pio-store", "pio-batch")) for thread in new)

    def files() -> int:
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    opened = files()
    for _ in range(20):
        manager = make(folder)
        assert ids(manager.submit(PROMPT, params(2))) == toy_greedy(PROMPT, 2)
        manager.close()
    assert (threads(), files()) == (0, opened)
    manager = make(folder)
    manager.close()
    assert threads() == 0
    manager = make(folder)
    ids(manager.submit([9] * 30, params(2)))
    del manager
    gc.collect()
    for thread in set(threading.enumerate()) - before:
        if thread.name == "pio-batch":
            thread.join(STEP)
    assert threads() == 0


def test_a_cache_that_does_not_show_its_memory_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="prefix_cache_path cannot be used: PagedToyCache does not show"):
        ToyManager(ToyModel(), PagedToyCache(40, 4), disk=DiskOptions(folder, LIMIT, b""))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.lists(st.lists(st.tuples(*REQUEST_FIELDS, st.booleans()), min_size=1, max_size=6), min_size=1, max_size=3),
    st.integers(10, 30),
    CHUNKS,
    st.integers(0, 1 << 16),
)
def test_whatever_is_read_cancelled_or_gives_way_the_answers_are_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    lives: list[list[tuple[int, int, int, int, str | None, bool]]],
    num_blocks: int,
    options: dict[str, int],
    room: int,
) -> None:
    """Several lives of a process, one after the other, in a cache and a folder that are mostly too small."""
    folder, limit = prepare(tmp_path_factory.mktemp("kept")), (1 << 16) + 48 + room % 5000
    alone = ToyManager(ToyModel(), PagedToyCache(40, SIZE), prefix_cache=False)
    for requests in lives:
        manager = make(folder, num_blocks=num_blocks, limit=limit, **options)
        check_answers(submitted(manager, requests), alone)
        check_pool(manager, min(num_blocks, 16))
        manager.close()
        assert used_bytes(folder) <= limit
    alone.close()


def test_a_read_that_fails_is_a_miss_and_nobody_elses_fault(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(folder)
    model = ToyModel()
    manager = make(folder, model)

    def failing(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(disk_store.DiskStore, "read", failing)
    handles = [manager.submit(prompt, params(4)) for prompt in (PROMPT, [3, 1])]
    assert [handle.result(STEP).token_ids for handle in handles] == [toy_greedy(p, 4) for p in (PROMPT, [3, 1])]
    assert handles[0].result(STEP).usage.cached_tokens == 0
    manager.close()
