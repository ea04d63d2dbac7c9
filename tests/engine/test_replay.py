"""Steps that were recorded with other tokens, positions and blocks: run again, they give what Python alone gives."""

import pytest
from numba.core import config

import pio
from pio.layers import decoder

TEXTS = [
    "def add(a, b):\n    return a + b\n\n\ndef multiply(a, b):\n    return",
    "import os\n\nwith open(os.path.join(folder, name)) as file:\n    for line in",
    "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(",
]
WEIGHTS = [{}, {"quantize": "int4"}, {"activation_dtype": "bfloat16"}]


def answers(model, length):
    """All texts cut to that many tokens, alone and then together; logits' every bit shows in the logarithms."""
    prompts = [model.tokenize(text)[:length] for text in TEXTS]
    assert {len(prompt) for prompt in prompts} == {length}
    fields = {"max_new_tokens": 5, "temperature": 0.0, "ignore_eos": True, "logprobs": 2}
    alone = [model.generate(prompt, **fields) for prompt in prompts]
    return [(a.token_ids, a.logprobs) for a in alone + model.infer_batch(prompts, **fields)]


@pytest.mark.skipif(bool(config.DISABLE_JIT or config.BOUNDSCHECK), reason="steps are recorded where kernels are jobs")
@pytest.mark.parametrize("options", WEIGHTS, ids=["bfloat16", "int4", "rounded inputs"])
def test_a_prompt_that_is_replayed_is_as_if_run_by_python(options, monkeypatch):
    options = {"prefill_chunk": 8, "max_batch_sequences": 3, "context_length": 64, **options}
    with pio.load("demo", **options) as model:
        found = answers(model, 19)
        programs = model.loaded.model._programs
        assert any(tokens > sequences for tokens, sequences, _ in programs)
        again = answers(model, 19)  # blocks of the cache are others by now
    monkeypatch.setattr(decoder, "PROGRAMS", 0)
    with pio.load("demo", **options) as model:
        expected = answers(model, 19)
        assert not model.loaded.model._programs
    assert found == again == expected


def test_no_more_programs_are_kept_than_stated(monkeypatch):
    monkeypatch.setattr(decoder, "PROGRAMS", 3)
    with pio.load("demo", max_batch_sequences=2, context_length=64) as model:
        for length in (3, 5, 6, 9, 3):
            model.generate(model.tokenize(TEXTS[0])[:length], max_new_tokens=2)
            assert len(model.loaded.model._programs) <= 3
