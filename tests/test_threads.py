"""One model, many Python threads: everybody gets the answer that they get alone."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import pio

PROMPTS = [
    "def fibonacci(n):",
    "class Point:\n    def __init__(self, x, y):",
    "import os\n\ndef read_lines(path):\n",
    "for i in range(10):\n    ",
    "try:\n    value = int(text)\n",
    "def __repr__(self):",
    "# Return the largest of three numbers\ndef",
    "while True:",
    "assert isinstance(x, ",
    "return [",
    "with open(path) as f:\n    ",
    'raise ValueError("',
]


@pytest.fixture(scope="module", params=[{}, {"kv_cache_dtype": "int8"}], ids=["float16", "int8"])
def model(request):
    with pio.load("demo", max_batch_sequences=5, prefill_chunk=7, **request.param) as loaded:
        yield loaded


def ask(model, i):
    """Greedy and seeded answers in turn, of different lengths, so that requests come and go at every step."""
    fields = {"temperature": 0.0} if i % 2 else {"temperature": 0.9, "seed": i, "top_p": 0.97, "top_k": 0}
    return model.generate(PROMPTS[i], max_new_tokens=11 + 3 * i, ignore_eos=True, logprobs=1, **fields)


def test_twelve_threads_get_the_answers_that_they_get_alone(model):
    alone = [ask(model, i) for i in range(12)]
    start = threading.Barrier(12)

    def together(i):
        start.wait()
        return ask(model, i)

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(together, range(12)))
    for i, (one, other) in enumerate(zip(alone, answers, strict=True)):
        assert one.token_ids == other.token_ids, PROMPTS[i]
        assert one.logprobs == other.logprobs, PROMPTS[i]  # every bit, not only the choice
        assert one.text == other.text


def test_a_batch_is_its_members(model):
    fields = {"temperature": 0.8, "seed": 5, "max_new_tokens": 17, "logprobs": 2}
    alone = [model.generate(p, **fields) for p in PROMPTS]
    together = model.infer_batch(PROMPTS, **fields)
    assert [(g.token_ids, g.logprobs) for g in alone] == [(g.token_ids, g.logprobs) for g in together]


def test_logits_while_others_generate(model):
    ids = model.tokenize(PROMPTS[1])
    alone = bytes(model.logits(ids).memoryview())
    with ThreadPoolExecutor(4) as pool:
        others = [pool.submit(ask, model, i) for i in range(3)]
        assert bytes(pool.submit(model.logits, ids).result().memoryview()) == alone
        for other in others:
            other.result()


def test_two_models_run_beside_each_other(model):
    alone = ask(model, 3).token_ids
    with pio.load("demo", threads=1, kv_cache_dtype="float32") as second, ThreadPoolExecutor(2) as pool:
        expected = ask(second, 3).token_ids
        for _ in range(3):
            first, other = pool.submit(ask, model, 3), pool.submit(ask, second, 3)
            assert (first.result().token_ids, other.result().token_ids) == (alone, expected)


def test_a_dropped_stream_leaves_the_others_alone(model):
    alone = ask(model, 6).token_ids
    streams = [model.stream(PROMPTS[i], max_new_tokens=500, ignore_eos=True, temperature=0.0) for i in range(4)]
    for stream in streams:
        next(stream)
    del stream, streams
    assert ask(model, 6).token_ids == alone
