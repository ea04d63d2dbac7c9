"""A token that a model decodes on a GPU launches what the roofline on paper counts, in one graph."""

from collections import Counter

import pytest

pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

from decode_steps import CUT, decoding, plain, small
from fake_driver import FakeDriver, facts
from gpus import having

from pio.benchmarks.gpu.decode_step import DecodeStep, Held
from pio.benchmarks.gpu.kernel_table import launched
from pio.kernels import jobs

# Launches are counted, not what they do: matrices are small, for they are packed by the interpreter.
LITTLE = {"vocab_size": 176, "hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32}
CASES = [("Qwen3-0.6B", None), ("Qwen3-Coder-30B", "int4"), ("Qwen3-Coder-Next", "int4"), ("GLM-4.7-Flash", "int4")]


@pytest.mark.parametrize(("name", "quantize"), CASES)
def test_launches_are_those_on_paper(name, quantize, monkeypatch):
    assert {case for case, _ in CASES} == set(CUT)
    raw, names, record = {**small(name), **LITTLE}, [], jobs.record_launch

    def note(kernel, target, launch):
        if getattr(jobs._local, "recorded", None) is not None:  # tokens are chosen behind the step
            names.append(kernel)
        record(kernel, target, launch)

    monkeypatch.setattr(jobs, "record_launch", note)
    options = {"device": "cuda", "quantize": quantize, "context_length": 64, "prefill_chunk": 64}
    with (
        having(FakeDriver(facts(nbytes=256 << 20))) as driver,
        decoding(raw, names, prompt=3, **options) as (model, found),
    ):
        driver.calls.clear()
        model.generate([1, 2, 3], max_new_tokens=2, temperature=0.0, ignore_eos=True)
        assert driver.calls.count("run_graph") == 2  # one for each token, and nothing else
    made = DecodeStep(raw, Held.of("bfloat16", quantize), 4, 1)
    wanted = Counter({plain(launched(kernel)): count for kernel, count in made.kernels().items()})
    assert found + Counter({"sample": 1}) == wanted
