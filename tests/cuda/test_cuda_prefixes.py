"""Beginnings of prompts that a model on a GPU finds again: in its memory, and on disk after a restart."""

import threading
from dataclasses import replace

import pytest

pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

from gpu_models import BLOCK, DENSE, RECURRENT, greedy, load, prompt, said

from pio.cache.hybrid import HybridCache
from pio.cache.paged import PagedCache
from pio.config.runtime import RuntimeConfig
from pio.device import Device, default_device
from pio.engine import prefix_writes, request_log
from pio.kernels._missing import MissingKernel
from pio.kernels.cuda import _kept, _launch
from pio.ops import compilation
from pio.plugin import TextModelPlugin
from pio.plugin.disk_options import disk_options
from pio.plugin.model_identity import identity

EACH = pytest.mark.parametrize("case", [DENSE, RECURRENT])


@pytest.mark.parametrize(("case", "length"), [(DENSE, 2 * BLOCK + 3), (RECURRENT, BLOCK + 2)])
def test_a_hit_is_a_cold_run_to_the_bit(driver, case, length):
    with load(case, prefix_cache=False) as cold:
        ids = prompt(cold, 5, length)
        asked = [ids, ids[: BLOCK + 7], ids[:BLOCK] + ids[40:50]][: 3 if case == DENSE else 1]
        expected = [greedy(cold, some, logprobs=5) for some in asked]
    with load(case) as model:
        for some, wanted in zip(asked, expected, strict=True):
            greedy(model, some, 1)
            found = greedy(model, some, logprobs=5)
            assert said(found) == said(wanted)
            assert found.usage.cached_tokens == (len(some) - 1) // BLOCK * BLOCK


@EACH
def test_what_was_computed_before_a_restart(driver, case, tmp_path, monkeypatch):
    """Read back to the bit; what the CPU has left in the same folder is none of it, and the other way round."""
    monkeypatch.setattr(prefix_writes, "TOKEN", 1 << 30)  # states of a small model are worth it for any prompt
    options = {"prefix_cache_path": tmp_path / "kept", "cache_tokens": 6 * BLOCK}
    answers, counts = {}, []
    for device in ("cpu", "cuda", "auto", "cuda:0", "cpu"):
        with load(case, device, **options) as model:
            ids = prompt(model, 5, BLOCK + 7)
            found = greedy(model, ids, logprobs=5)
            counts.append((found.usage.cached_tokens, model.stats().disk_tokens))
            kind = model.loaded.model.device.kind
            assert answers.setdefault(kind, said(found)) == said(found), device
    assert counts == [(0, 0), (0, 0), (BLOCK, BLOCK), (BLOCK, BLOCK), (BLOCK, BLOCK)]
    assert answers.keys() == {"cpu", "cuda"}


def test_the_identity_of_a_model_says_where_it_runs(driver, tmp_path):
    class Weights:
        def digest(self, notes, check):
            return "a"

    def told(device, name="auto", **options):
        runtime = RuntimeConfig.from_options(device=name, **options)
        return identity(TextModelPlugin, {}, Weights(), runtime, tmp_path, lambda: None, device)

    gpu, cpu = Device("cuda"), default_device()
    assert told(gpu) == told(gpu, "cuda") == told(gpu, "cuda:0") != told(cpu)
    assert told(gpu, activation_dtype="bfloat16") != told(gpu)
    other = told(gpu)
    driver.gpus[0] = replace(driver.gpus[0], capability=(8, 9))
    gpu.stream.gpu.facts = driver.gpus[0]
    assert told(gpu) != other, "another architecture has other machine code"


def test_kernels_that_cannot_be_made_are_part_of_it_and_later_ones_end_it(driver, tmp_path, monkeypatch):
    class Weights:
        def digest(self, notes, check):
            return "a"

    def fails(name, architecture):
        raise RuntimeError("no such machine code today")

    def told(*unmade):
        model, runtime = (TextModelPlugin, {}, Weights()), RuntimeConfig.from_options(device="cuda")
        return disk_options(tmp_path, runtime, model, lambda: None, gpu, (), set(unmade))

    def want(kernels, dtype):
        with pytest.raises(MissingKernel, match="no such machine code today"):
            kernels[dtype]

    gpu = Device("cuda")
    monkeypatch.setattr(_kept, "find", fails)
    norm, silu = (_launch.Kernels("pio.kernels.cuda.some", name, gpu.stream) for name in ("rms_norm", "silu_mul"))
    with compilation.noting_unmade(set()) as found:
        want(norm, "float32")
    want(silu, "")
    assert found == {"rms_norm_float32"}, "what another model wants is none of this one's"
    first = told(*found)
    assert first.identity == told(*found).identity not in (told().identity, told("silu_mul").identity)
    with first.watch():
        want(norm, "float32")
        assert first.holds()
        thread = threading.Thread(target=want, args=(silu, ""))
        thread.start()
        thread.join()
        assert first.holds(), "another thread runs another model"
        want(silu, "")
        assert not first.holds()
    want(silu, "")
    assert told(*found).holds()


def test_a_kernel_that_another_model_lacks_ends_nothing(driver, tmp_path, monkeypatch, caplog):
    """Nor does it tell this one apart. Its own do, whoever wanted them first, and one that turns up ends it."""

    def fails(name, architecture):
        if name.name in lacking:
            raise RuntimeError("no such machine code today")
        return find(name, architecture)

    def tell(*given):
        told.append(given[-1])
        return identity(*given)

    lacking, find, told = {"causal_conv"}, _kept.find, []
    monkeypatch.setattr(_kept, "find", fails)
    monkeypatch.setattr("pio.plugin.disk_options.identity", tell)
    options = {"prefix_cache_path": tmp_path / "kept", "cache_tokens": 6 * BLOCK}
    with load(DENSE, **options) as model:
        for _ in range(2):
            load(RECURRENT, **options).cleanup()
        ids = prompt(model, 5, BLOCK + 7)
        greedy(model, ids, 1)
    with load(DENSE, **options) as model:
        assert greedy(model, ids, 1).usage.cached_tokens == model.stats().disk_tokens == BLOCK
        assert "turned out to be missing" not in caplog.text
        lacking.add("rms_norm")
        model.loaded.model.device.stream.kept["pio.kernels.norm"].rms_norm._made.clear()
        greedy(model, prompt(model, 3, 5), 1)
        assert "turned out to be missing" in caplog.text
    assert told == [frozenset(), {"causal_conv_float16"}, {"causal_conv_float16"}, frozenset()]


def test_several_answers_share_a_prompt_and_copy_the_block_that_they_write_to(driver, monkeypatch):
    copied, found = [], []
    monkeypatch.setattr(PagedCache, "copy_block", watched(PagedCache.copy_block, copied))
    for device in ("cpu", "cuda"):
        copied.clear()
        found.append(several_answers(DENSE, device, BLOCK + 5))
        assert copied
    assert found[0] == found[1]


def test_several_answers_of_recurrent_layers_have_states_of_their_own(driver, monkeypatch):
    copied, found = [], []
    monkeypatch.setattr(HybridCache, "copy_states", watched(HybridCache.copy_states, copied))
    for device in ("cpu", "cuda"):
        copied.clear()
        found.append(several_answers(RECURRENT, device, 6))
        assert copied
    assert found[0] == found[1]


def several_answers(case, device, length):
    with load(case, device, cache_tokens=6 * BLOCK) as model:
        ids = prompt(model, 3, length)
        fields = {"temperature": 1.5, "seed": 4, "max_new_tokens": 3, "ignore_eos": True}
        found = model.generate(ids, n=2, **fields)
        tokens = [answer.token_ids for answer in (found, *found.samples)]
        assert len({*map(tuple, tokens)}) == 2
        return tokens


def test_requests_that_give_way_to_each_other(driver, monkeypatch):
    """The cache has room for one and a half of them."""
    gave_way = []
    monkeypatch.setattr(request_log, "gave_way", gave_way.append)
    with load(DENSE, prefix_cache=False) as cold:
        asked = [prompt(cold, first, BLOCK - 1) for first in (5, 9)]
        wanted = [greedy(cold, ids, 5).token_ids for ids in asked]
    with load(DENSE, cache_tokens=3 * BLOCK, prefix_cache=False) as model:
        handles = [model.submit(ids, temperature=0.0, max_new_tokens=5, ignore_eos=True) for ids in asked]
        assert [handle.result().token_ids for handle in handles] == wanted
    assert gave_way


def watched(method, calls):
    def call(*given):
        calls.append(given[1:])
        return method(*given)

    return call
