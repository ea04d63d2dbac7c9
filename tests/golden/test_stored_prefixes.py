"""What real layers find on disk after a restart is to the bit what they would have computed."""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import test_vision as seeing
import vision_case
from golden_case import NEW_TOKENS, greedy
from processes import Program, environment
from test_found_prefixes import BLOCK, CASES, EVERYTHING, load, prompt, said

import pio
from pio.memory.allocation import allocated_bytes
from pio.store import disk_store

HERE = Path(__file__).parent
SMALL = "qwen3/tied_gqa2"
RECURRENT = "qwen3_next/heads1x"
EACH = pytest.mark.parametrize("case", [SMALL, RECURRENT])


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


@pytest.mark.parametrize(("case", "stored"), CASES)
def test_a_hit_is_a_cold_run_to_the_bit(case: str, stored: str, tmp_path: Path) -> None:
    """States are on disk behind ends of prompts, so that a third process finds what the second one was asked."""
    with load(case, kv_cache_dtype=stored, prefix_cache=False) as cold:
        ids = prompt(cold, 5, 150)
        asked = [ids, ids[:65], ids[:100] + ids[:30], ids[3:]]
        expected = [greedy(cold, some, logprobs=EVERYTHING) for some in asked]
    with load(case, kv_cache_dtype=stored, prefix_cache_path=tmp_path / "kept") as model:
        assert said(greedy(model, ids, logprobs=EVERYTHING)) == said(expected[0])
        lives = [((128,), (64,), (96,), (0,))]
        if model.loaded.cache.state_bytes:  # behind the first message, too, where there is one
            lives = [((128,), (0, 32), (64,), (0,)), ((128,), (64,), (128,), (128,))]
    for life in lives:
        with load(case, kv_cache_dtype=stored, prefill_chunk=7, prefix_cache_path=tmp_path / "kept") as model:
            for some, wanted, cached in zip(asked, expected, life, strict=True):
                found = greedy(model, some, logprobs=EVERYTHING)
                assert said(found) == said(wanted)
                assert found.usage.cached_tokens in cached
            assert model.stats().disk_tokens >= 128
            spoken = ids + expected[0].token_ids
            assert model.generate(spoken, max_new_tokens=1).usage.cached_tokens == (len(spoken) - 1) // BLOCK * BLOCK


@pytest.mark.parametrize("case", ["three_levels_f16", "head128_bf16"])
def test_a_prompt_with_pictures(case: str, tmp_path: Path) -> None:
    request = max((r for r in vision_case.requests(case) if r.pictures), key=lambda r: len(r.ids))
    fields: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": NEW_TOKENS, "ignore_eos": True, "logprobs": 20}
    with seeing.load(case, prefix_cache=False) as cold:
        wanted = cold.generate(seeing.prompt(request), **fields)
    for cached in (0, (len(request.ids) - 1) // BLOCK * BLOCK):
        with seeing.load(case, prefix_cache_path=tmp_path / "kept") as model:
            found = model.generate(seeing.prompt(request), **fields)
            assert said(found) == said(wanted)
            assert found.usage.cached_tokens == cached == model.stats().disk_tokens
            assert cached or len(request.ids) > BLOCK


PROGRAM = """
import json, sys
import pio
folder, kept, *numbers = sys.argv[1:]
with pio.load(folder, context_length=320, cache_tokens=8192, prefix_cache_path=kept) as model:
    for number in numbers:
        ids = [(int(number) + 37 * i) % model.metadata.vocab_size for i in range(150)]
        found = model.generate(ids, temperature=0.0, max_new_tokens=12, ignore_eos=True, logprobs=3)
        print(json.dumps([found.token_ids, repr(found.logprobs), found.usage.cached_tokens]), flush=True)
"""


def cold_answers(case: str, numbers: list[int]) -> list[list[Any]]:
    with load(case, prefix_cache=False) as model:
        fields: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": 12, "ignore_eos": True, "logprobs": 3}
        found = [model.generate(prompt(model, number, 150), **fields) for number in numbers]
    return [[answer.token_ids, repr(answer.logprobs)] for answer in found]


def run(case: str, kept: Path, numbers: list[int]) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(HERE / case), str(kept), *map(str, numbers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())


def answered(process: subprocess.Popen[str]) -> list[list[Any]]:
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return [json.loads(line) for line in text.splitlines()]


@EACH
def test_processes_one_after_the_other_and_side_by_side(case: str, tmp_path: Path) -> None:
    numbers = [1, 2, 3, 4, 5]
    wanted = cold_answers(case, numbers)
    first = answered(run(case, tmp_path / "kept", numbers))
    assert [answer[:2] for answer in first] == wanted and {answer[2] for answer in first} == {0}
    second = answered(run(case, tmp_path / "kept", numbers))
    assert [answer[:2] for answer in second] == wanted and {answer[2] for answer in second} == {128}
    together = [run(case, tmp_path / "new", numbers) for _ in range(2)]
    for process in together:
        assert [answer[:2] for answer in answered(process)] == wanted
    assert {answer[2] for answer in answered(run(case, tmp_path / "new", numbers))} == {128}


@EACH
def test_a_program_that_ends_without_closing(case: str, tmp_path: Path) -> None:
    body = PROGRAM.replace("with pio.load", "model = pio.load").replace(" as model:", "\nif True:")
    for end in ("", "sys.exit(0)", "model.submit([1, 2, 3], max_new_tokens=200, ignore_eos=True)"):
        folder = tmp_path / f"kept {len(end)}"
        for cached in (0, 128):
            command = [sys.executable, "-c", f"{body}\n{end}\n", str(HERE / case), str(folder), "1"]
            ran = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
            assert json.loads(ran.stdout)[2] == cached and ran.stderr == ""


@EACH
def test_memory_is_given_back(case: str, tmp_path: Path) -> None:
    gc.collect()
    before = allocated_bytes()
    for _ in range(2):
        with load(case, prefix_cache_path=tmp_path / "kept") as model:
            assert model.metadata.memory["buffers"] > 1 << 20
            model.generate(prompt(model, 5, 100), max_new_tokens=1)
        del model
        assert allocated_bytes() == before, "without the collector"


@EACH
def test_a_process_that_is_killed_leaves_what_it_had_written(case: str, tmp_path: Path) -> None:
    """Three times, wherever it is just then."""
    numbers, folder = list(range(1, 30)), tmp_path / "kept"
    wanted = cold_answers(case, numbers)
    for least in (2, 5, 9):
        with Program(PROGRAM, HERE / case, folder, *numbers, kind="-c", env=environment()) as program:
            assert program.process.stdout is not None
            for answers, line in enumerate(program.process.stdout):
                assert json.loads(line)[:2] == wanted[answers]
                if answers >= least and kept(folder):
                    break
            program.process.kill()
            program.process.communicate(timeout=60)
    before = kept(folder)
    found = answered(run(case, folder, numbers))
    assert [answer[:2] for answer in found] == wanted
    assert {*before} <= {*kept(folder)}, "a file was not whole"
    assert any(answer[2] for answer in found)


@EACH
def test_another_process_removes_files_all_the_time(case: str, tmp_path: Path) -> None:
    wanted, over, folder = cold_answers(case, [1, 2, 3]), threading.Event(), tmp_path / "kept"

    def remove() -> None:
        while not over.is_set():
            for file in kept(folder):
                file.unlink(missing_ok=True)

    thread = threading.Thread(target=remove)
    thread.start()
    try:
        found = [answered(run(case, folder, [1, 2, 3, 1, 2, 3])) for _ in range(2)]
    finally:
        over.set()
        thread.join()
    assert [[answer[:2] for answer in answers] for answers in found] == [wanted * 2] * 2


@pytest.mark.parametrize(
    ("case", "stored"), [("qwen3_next/heads3x_sharded_bf16", "int8"), ("qwen3/tied_gqa2", "float16")]
)
def test_many_at_once_where_everything_is_too_small(
    case: str, stored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests give way, are read and evicted, in memory and on disk, in three lives of which two are at once."""
    with load(case, kv_cache_dtype=stored, prefix_cache=False) as cold:
        ids = prompt(cold, 5, 150)
        asked = [ids[: 20 + 13 * i] + prompt(cold, i % 3, 10) for i in range(10)]
        expected = [said(greedy(cold, some, logprobs=3)) for some in asked]
        blocks = cold.loaded.cache.block_bytes
    monkeypatch.setattr(disk_store, "SEGMENT", 3 * blocks)
    options: dict[str, Any] = {"cache_tokens": 8 * BLOCK, "max_batch_sequences": 4, "kv_cache_dtype": stored}
    with load(case, **options) as model:
        one = model.loaded.cache.state_bytes
    options |= {"prefix_cache_path": tmp_path / "kept", "prefix_cache_disk": (1 << 16) + 9 * blocks + 4 * one}
    if one:
        options["prefix_cache"] = 3 * one
    fields: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": NEW_TOKENS, "ignore_eos": True, "logprobs": 3}
    found = 0
    for life in range(2):
        with load(case, **options) as model, load(case, **options) as other:
            order = [(5 * i + life) % 10 if i % 2 else i for i in range(10)]
            handles = [(i, each.submit(asked[i], **fields)) for i in order for each in (model, other)]
            for i, handle in handles:
                assert said(handle.result()) == expected[i]
            for i in order:
                assert said(model.generate(asked[i], **fields)) == expected[i]
            found += model.stats().disk_tokens + other.stats().disk_tokens
        assert sum(path.stat().st_size for path in kept(tmp_path / "kept")) <= options["prefix_cache_disk"]
    assert found > 0


def cached(case: str | Path, folder: Path, **options: Any) -> int:
    """How many tokens of a prompt a model finds that is loaded like this; they are there afterwards."""
    with pio.load(HERE / case, context_length=320, prefix_cache_path=folder, **options) as model:
        return model.generate(prompt(model, 5, 70), max_new_tokens=1).usage.cached_tokens


def test_only_what_was_computed_alike_is_found(tmp_path: Path) -> None:
    case, folder = "qwen3/head128_bf16", tmp_path / "kept"
    ways: list[dict[str, Any]] = [
        {},
        {"kv_cache_dtype": "float32"},
        {"kv_cache_dtype": "int8"},
        {"dtype": "float32", "kv_cache_dtype": "float16"},
        {"quantize": "int8"},
        {"quantize": "int4"},
        {"quantize": "int4", "quantize_policy": "uniform"},
        {"activation_dtype": "bfloat16"},
    ]
    assert [cached(case, folder, **way) for way in ways] == [0] * len(ways)
    assert [cached(case, folder, **way) for way in ways] == [64] * len(ways)
    for other in ({"threads": 1}, {"mmap": False}, {"prefill_chunk": 16}, {"max_batch_sequences": 2}):
        assert cached(case, folder, **other) == 64


def test_copies_of_a_folder_are_one_model_and_a_changed_byte_makes_another(tmp_path: Path) -> None:
    folder, copies = tmp_path / "kept", [tmp_path / name for name in ("one", "two", "other")]
    for copy in copies:
        shutil.copytree(HERE / SMALL, copy)
    weights = copies[2] / "model.safetensors"
    held = bytearray(weights.read_bytes())
    held[-1] ^= 0x01  # one bit of one weight
    weights.write_bytes(held)
    assert [cached(copy, folder) for copy in copies] == [0, 64, 0]
    assert [cached(copy, folder) for copy in copies] == [64, 64, 64]
    config = json.loads((copies[1] / "config.json").read_text("utf-8"))
    (copies[1] / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-5}), "utf-8")
    assert [cached(copy, folder) for copy in copies] == [64, 0, 64]
    weights.write_bytes(held[:-1] + bytes([held[-1] ^ 0x03]))
    assert cached(copies[2], folder) == 0, "its file was written to"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prefix_cache_disk": "1GB"}, "prefix_cache_disk is of no use without a folder: give prefix_cache_path too"),
        ({"prefix_cache_path": "kept", "prefix_cache": False}, "prefix_cache_path contradicts prefix_cache=False"),
        ({"prefix_cache_path": "kept", "prefix_cache_disk": "1KB"}, "prefix_cache_disk=1000 is too small"),
        ({"prefix_cache_path": "kept", "prefix_cache_disk": "lots"}, "prefix_cache_disk is 'lots'"),
        ({"prefix_cache_path": ""}, "prefix_cache_path is '': expected the name of a folder"),
        ({"prefix_cache_path": 7}, "prefix_cache_path is '7'"),
        ({"prefix_cache_path": __file__}, "prefix_cache_path=.* cannot be used"),
    ],
)
def test_options_that_are_refused(
    options: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pio.ConfigError, match=words):
        load(SMALL, **options)
    with load(SMALL) as model:
        with pytest.raises(pio.ConfigError, match=words):
            model.update(**options)
        assert len(model.generate(prompt(model, 1, 40), max_new_tokens=2).token_ids) == 2


def test_an_update_finds_what_was_before(tmp_path: Path) -> None:
    with load(SMALL, prefix_cache_path=tmp_path / "kept") as model:
        ids = prompt(model, 5, 100)
        found = [greedy(model, ids).usage.cached_tokens]
        model.update(threads=1)
        found.append(greedy(model, ids).usage.cached_tokens)
        model.update(prefix_cache_path=tmp_path / "elsewhere")
        found.append(greedy(model, ids).usage.cached_tokens)
        model.update(prefix_cache_path=None)
        found.append(greedy(model, ids).usage.cached_tokens)
        assert model.stats().disk_segments == 0
    assert found == [0, 96, 0, 0]


def test_a_memory_limit_counts_the_buffers(tmp_path: Path) -> None:
    with load(SMALL) as model:
        limit = sum(model.metadata.memory.values()) + (1 << 16)
    load(SMALL, memory_limit=limit).cleanup()
    with pytest.raises(pio.OutOfMemoryError, match=r"buffers? of prefix_cache_path"):
        load(SMALL, memory_limit=limit, prefix_cache_path=tmp_path / "kept")


def test_no_prompt_is_in_the_files(tmp_path: Path) -> None:
    """Neither as text nor as token ids; what layers keep of it is, which is why nobody else may read them."""
    with pio.load("demo", prefix_cache_path=tmp_path / "kept") as model:
        text = "Nobody may know that the password of the safe is 3141592653589793. " * 8
        ids = model.tokenize(text)
        model.generate(text, max_new_tokens=1, cache_salt="a salt of mine")
    held = b"".join(file.read_bytes() for file in (tmp_path / "kept").iterdir())
    assert len(held) > 100_000
    for secret in (b"password", b"a salt of mine", b"".join(i.to_bytes(4, "little") for i in ids[8:12])):
        assert secret not in held
