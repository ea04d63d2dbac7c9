"""Models on a GPU that are loaded, changed and given back; several of them, several threads, and coroutines."""

import asyncio
import gc
import threading
from dataclasses import replace

import pytest

pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

from gpu_models import DENSE, RECURRENT, SEEING, greedy, load, prompt

import pio
from pio.device import Device
from pio.errors import CancelledError, OutOfMemoryError
from pio.ops._record import Record


def used(driver):
    gc.collect()
    return driver._used(0)


def left(driver):
    """Bytes that are in use but for records of sizes, which all operations on a GPU share; nothing may wait by now."""
    gc.collect()
    stream = Device("cuda").stream
    assert not stream._dropped and not driver.spare[0], "other processes have it"
    stream.kept.pop(Record, None)
    stream.begin()
    return driver._used(0)


@pytest.mark.parametrize("case", [DENSE, RECURRENT, SEEING])
def test_cleanup_gives_all_memory_back_at_once(driver, case):
    model = load(case)
    greedy(model, prompt(model, 3, 4), 2)
    assert used(driver) > 4 * model.metadata.vocab_size
    model.cleanup()
    assert not left(driver)
    model.cleanup()


def test_memory_that_is_told_is_what_the_gpu_has_given(driver):
    before = used(driver)
    with load(DENSE) as model:
        told = model.metadata.memory
        taken = used(driver) - before
        assert told["weights"] + told["cache"] < taken < 1.5 * sum(told.values()) + (1 << 18)


def test_an_update_moves_a_model_to_the_gpu_and_back(driver):
    with load(DENSE, "cpu") as model:
        ids = prompt(model, 3, 5)
        wanted = greedy(model, ids)
        assert model.loaded.model.device == "cpu" and not used(driver)
        model.update(device="cuda")
        assert model.loaded.model.device == "cuda:0" and model.runtime.device == "cuda:0"
        there = greedy(model, ids)
        assert there.token_ids == wanted.token_ids
        model.update(context_length=64)
        assert greedy(model, ids).token_ids == wanted.token_ids
        model.update(device="cpu")
        assert not left(driver)
        assert greedy(model, ids).token_ids == wanted.token_ids


def test_an_update_that_the_gpu_has_no_memory_for(driver):
    with load(DENSE, "cpu") as model:
        ids = prompt(model, 3, 5)
        wanted = greedy(model, ids).token_ids
        driver.gpus[0] = replace(driver.gpus[0], nbytes=1 << 16)
        with pytest.raises(OutOfMemoryError, match="cuda:0"):
            model.update(device="cuda")
        assert model.runtime.device == "cpu" and greedy(model, ids).token_ids == wanted


def test_two_models_on_one_gpu(driver):
    with load(DENSE) as one, load(RECURRENT) as other:
        models = one, other
        prompts = [prompt(model, 3, 5) for model in models]
        alone = [greedy(model, ids).token_ids for model, ids in zip(models, prompts, strict=True)]
        found = [None, None]

        def ask(i):
            found[i] = greedy(models[i], prompts[i]).token_ids

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == alone
        one.cleanup()
        assert greedy(other, prompts[1]).token_ids == alone[1]


def test_coroutines_wait_for_answers_from_a_gpu(driver):
    async def ask(model, ids):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(wait(model, ids, seed)) for seed in (1, 2)]
        return [task.result() for task in tasks]

    async def wait(model, ids, seed):
        return (await model.submit(ids, temperature=1.0, seed=seed, max_new_tokens=2, ignore_eos=True)).token_ids

    with load(DENSE) as model:
        ids = prompt(model, 3, 5)
        wanted = [
            model.generate(ids, temperature=1.0, seed=seed, max_new_tokens=2, ignore_eos=True).token_ids
            for seed in (1, 2)
        ]
        assert asyncio.run(ask(model, ids)) == wanted


def test_an_answer_that_is_cancelled_in_the_middle(driver):
    with load(DENSE) as model:
        ids = prompt(model, 3, 5)
        wanted = greedy(model, ids).token_ids
        handle = model.submit(ids, temperature=0.0, max_new_tokens=60, ignore_eos=True)
        events = iter(handle.events())
        next(events)
        handle.cancel()
        with pytest.raises(CancelledError):
            handle.result()
        assert greedy(model, ids).token_ids == wanted
        stats = model.stats()
        assert stats.free_blocks == stats.blocks


def test_a_model_that_is_closed_in_the_middle_of_an_answer(driver):
    model = load(DENSE)
    handle = model.submit(prompt(model, 3, 5), temperature=0.0, max_new_tokens=60, ignore_eos=True)
    next(iter(handle.events()))
    model.cleanup()
    with pytest.raises(pio.PioError):
        handle.result()
    del handle
    assert not left(driver)
