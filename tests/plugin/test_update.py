"""Changing a loaded model's options while others use it."""

from concurrent.futures import ThreadPoolExecutor, wait

import pytest
from hooked_plugin import GREEDY, PROMPT, load

import pio


@pytest.fixture
def model():
    with load("demo") as loaded:
        yield loaded


CALLS = {
    "generate": lambda model: model.generate_text(PROMPT, **GREEDY),
    "stream": lambda model: "".join(model.stream(PROMPT, **GREEDY)),
    "logits": lambda model: model.logits([5, 6, 7]).tolist(),
    "tokenize": lambda model: model.tokenize(PROMPT),
}


def test_calls_wait_for_the_new_model(model):
    expected = {name: call(model) for name, call in CALLS.items()}
    with ThreadPoolExecutor(len(CALLS)) as pool:
        started = {}

        def call_meanwhile():
            started.update({name: pool.submit(call, model) for name, call in CALLS.items()})
            assert not wait(started.values(), timeout=0.2).done, "they wait for as long as it takes"

        model.during_build = call_meanwhile
        model.update(prefill_chunk=5)
        assert {name: future.result(60) for name, future in started.items()} == expected
    assert model.runtime.prefill_chunk == 5


@pytest.mark.parametrize("name", ["generate", "logits"])
def test_a_model_that_is_replaced_under_a_call_is_not_closed_for_it(model, monkeypatch, name):
    expected = CALLS[name](model)
    prompts = model.loaded.prompts
    encode = prompts.encode

    def replaced_meanwhile(*given, **variables):
        model.update(prefill_chunk=7)
        return encode(*given, **variables)

    monkeypatch.setattr(prompts, "encode", replaced_meanwhile)
    assert CALLS[name](model) == expected


def test_requests_that_run_are_cancelled(model):
    handle = model.submit(PROMPT, max_new_tokens=2000, ignore_eos=True)
    events = handle.events()  # dropped, it would cancel the request itself
    next(events)
    model.update(prefill_chunk=5)
    with pytest.raises(pio.CancelledError):
        handle.result(60)


@pytest.mark.parametrize("error", [KeyboardInterrupt, pio.OutOfMemoryError])
def test_an_update_that_fails_leaves_the_model_as_it_was(model, error):
    before, expected = model.runtime, CALLS["generate"](model)
    times = []

    def fail_once():
        times.append(1)
        if len(times) == 1:
            raise error

    model.during_build = fail_once
    with pytest.raises(error):
        model.update(prefill_chunk=5)
    assert model.runtime == before and CALLS["generate"](model) == expected


def test_after_cleanup_nothing_is_waited_for(model):
    model.cleanup()
    with pytest.raises(pio.PioError, match="not loaded"):
        model.generate(PROMPT)
