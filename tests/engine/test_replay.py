"""Steps that were recorded with other tokens, positions and blocks: run again, they give what Python alone gives."""

import gc
from pathlib import Path

import pytest
from numba.core import config

import pio
from pio.layers import decoder
from pio.testing.check_steps import check_steps

TEXTS = [
    "def add(a, b):\n    return a + b\n\n\ndef multiply(a, b):\n    return",
    "import os\n\nwith open(os.path.join(folder, name)) as file:\n    for line in",
    "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(",
]
WEIGHTS = [{}, {"quantize": "int4"}, {"activation_dtype": "bfloat16"}]
GOLDEN = Path(__file__).parent.parent / "golden"
KINDS = "qwen3", "qwen3_moe", "qwen3_next", "glm4_moe_lite"
CHECKPOINTS = [f"{kind}/{folder.name}" for kind in KINDS for folder in sorted((GOLDEN / kind).iterdir())]
# every format of weights, each with another one of the cache
FORMATS = [
    {"kv_cache_dtype": "float32"},
    {"quantize": "int8", "kv_cache_dtype": "float16"},
    {"quantize": "int4", "kv_cache_dtype": "int8"},
    {"quantize": "int4_zero_point"},
    {"activation_dtype": "bfloat16", "kv_cache_dtype": "int8"},
]
COMPILED = not (config.DISABLE_JIT or config.BOUNDSCHECK)


def answers(model, length):
    """All texts cut to that many tokens, alone and then together; logits' every bit shows in the logarithms."""
    prompts = [model.tokenize(text)[:length] for text in TEXTS]
    assert {len(prompt) for prompt in prompts} == {length}
    fields = {"max_new_tokens": 5, "temperature": 0.0, "ignore_eos": True, "logprobs": 2}
    alone = [model.generate(prompt, **fields) for prompt in prompts]
    return [(a.token_ids, a.logprobs) for a in alone + model.infer_batch(prompts, **fields)]


@pytest.mark.skipif(not COMPILED, reason="steps are recorded where kernels are jobs")
@pytest.mark.parametrize("options", WEIGHTS, ids=["bfloat16", "int4", "rounded inputs"])
def test_a_prompt_that_is_replayed_is_as_if_run_by_python(options, monkeypatch):
    options = {"prefill_chunk": 8, "max_batch_sequences": 3, "context_length": 64, **options}
    with pio.load("demo", **options) as model:
        found = answers(model, 19)
        again = answers(model, 19)  # blocks of the cache are others by now
    monkeypatch.setattr(decoder, "PROGRAMS", 0)
    with pio.load("demo", **options) as model:
        expected = answers(model, 19)
    assert found == again == expected


@pytest.mark.skipif(not COMPILED, reason="steps are recorded where kernels are jobs")
@pytest.mark.parametrize("options", FORMATS, ids=lambda options: "-".join(options.values()))
@pytest.mark.parametrize("case", CHECKPOINTS)
def test_every_architecture_and_format(case, options):
    options = {"context_length": 32, "prefill_chunk": 8, "max_batch_sequences": 2, "progress": False, **options}
    with pio.load(GOLDEN / case, **options) as model:
        assert check_steps(model) == []


def test_a_step_that_failed_leaves_the_model_usable(monkeypatch):
    with pio.load("demo", max_batch_sequences=2, context_length=64, progress=False) as model:
        expected = model.generate([5, 6, 7], temperature=0.0, max_new_tokens=6, ignore_eos=True).token_ids
        mlp = model.loaded.model.layers[-1].mlp
        model.loaded.model.forget_steps()

        def fail(*_):
            raise ArithmeticError("in the middle of a step")

        with monkeypatch.context() as patch:
            patch.setattr(model.loaded.model.layers[-1], "mlp", fail)
            with pytest.raises(pio.PioError, match="in the middle of a step"):
                model.generate([5, 6, 7], temperature=0.0, max_new_tokens=6)
        assert model.loaded.model.layers[-1].mlp is mlp
        found = model.generate([5, 6, 7], temperature=0.0, max_new_tokens=6, ignore_eos=True).token_ids
        assert found == expected


def test_steps_of_many_sizes_leave_nothing_behind():
    """Live objects after steps of 40 sizes, and after steps of 60 other ones."""
    with pytest.MonkeyPatch.context() as patch, pio.load("demo", prefill_chunk=100, context_length=102) as model:
        patch.setattr(decoder, "PROGRAMS", 4)
        counts = []
        for sizes in (range(1, 41), range(41, 101)):
            for n in sizes:
                model.generate([5] * n, max_new_tokens=1)
            gc.collect()
            counts.append(sum(type(found) is pio.Tensor for found in gc.get_objects()))
        assert counts[1] <= counts[0] + 20
