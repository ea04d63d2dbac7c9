from __future__ import annotations

import gc
import threading
import weakref
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from toy_manager import GREEDY, PROMPTS, ids, make, run_python, worker_threads
from toy_model import EOS, STEP, VOCAB, ToyCache, ToyDetokenizer, ToyManager, ToyModel, toy_greedy, toy_logits, toy_text

from pio.engine.sampling_params import SamplingParams
from pio.errors import CancelledError, CapacityError, ConfigError, PioError

# Answers


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_answers_are_the_models(prompt: list[int]) -> None:
    manager = make()
    assert ids(manager.submit(prompt, GREEDY)) == toy_greedy(prompt, 9)
    manager.close()


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 12)), min_size=1, max_size=8),
    st.integers(9, 30),
    st.sampled_from([{}, {"prefill_chunk": 1}, {"prefill_chunk": 5, "max_batch_sequences": 2}]),
)
def test_what_runs_beside_an_answer_changes_nothing(
    requests: list[tuple[int, int]], num_blocks: int, options: dict[str, int]
) -> None:
    """Few blocks force sequences out and in again; small chunks split prompts anywhere."""
    manager = make(num_blocks=num_blocks, **options)
    params = [GREEDY.model_copy(update={"max_new_tokens": n}) for _, n in requests]
    handles = [manager.submit(PROMPTS[i], p) for (i, _), p in zip(requests, params, strict=True)]
    logits = manager.submit_logits(PROMPTS[2])
    for (i, n), handle in zip(requests, handles, strict=True):
        assert ids(handle) == toy_greedy(PROMPTS[i], n)
    assert logits.result(STEP).tolist() == [
        pytest.approx(toy_logits(PROMPTS[2][: i + 1])) for i in range(len(PROMPTS[2]))
    ]
    manager.close()


def test_preemption_happens_and_changes_no_token() -> None:
    model = ToyModel()
    model.slow = True  # until all are there
    manager = make(model, num_blocks=8)
    params = GREEDY.model_copy(update={"max_new_tokens": 16})
    prompts = [[i, i + 1, i + 2] for i in range(4)]
    handles = [manager.submit(p, params) for p in prompts]
    model.slow = False
    model.step()
    assert [ids(h) for h in handles] == [toy_greedy(p, 16) for p in prompts]
    again = [tokens for step in model.steps for tokens, past in step if past == 0 and len(tokens) > 3]
    assert again, "the pool is too large to test anything"
    manager.close()


def test_first_come_first_served() -> None:
    model = ToyModel(max_batch_sequences=1)
    manager = make(model)
    handles = [manager.submit([i, i], GREEDY) for i in range(9)]
    for handle in handles:
        handle.result(STEP)
    assert [tokens[0] for step in model.steps for tokens, past in step if past == 0] == list(range(9))
    manager.close()


def test_twelve_threads_get_what_they_get_alone() -> None:
    manager = make(num_blocks=24)
    sampled = [SamplingParams(seed=i, max_new_tokens=5 + i, ignore_eos=True, top_k=9) for i in range(12)]
    alone = [ids(manager.submit(PROMPTS[i % 6], sampled[i])) for i in range(12)]
    found: dict[int, list[list[int]]] = {i: [] for i in range(12)}
    start = threading.Barrier(12)

    def call(i: int) -> None:
        start.wait(STEP)
        for _ in range(4):
            found[i].append(ids(manager.submit(PROMPTS[i % 6], sampled[i])))

    threads = [threading.Thread(target=call, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: [alone[i]] * 4 for i in range(12)}
    assert len(worker_threads()) == 1
    manager.close()


# Seeds and samples


def test_the_same_seed_gives_the_same_answer() -> None:
    manager = make()
    params = SamplingParams(seed=11, max_new_tokens=12, ignore_eos=True)
    first = ids(manager.submit([1, 2], params))
    assert ids(manager.submit([1, 2], params)) == first
    assert ids(manager.submit([1, 2], params.model_copy(update={"seed": 12}))) != first
    unseeded = manager.submit([1, 2], params.model_copy(update={"seed": None})).result(STEP)
    assert ids(manager.submit([1, 2], params.model_copy(update={"seed": unseeded.seed}))) == unseeded.token_ids
    manager.close()


def test_several_answers_of_one_prompt() -> None:
    manager = make()
    params = SamplingParams(seed=5, n=3, max_new_tokens=8, ignore_eos=True)
    handle = manager.submit([3, 1], params)
    result = handle.result(STEP)
    assert (result.usage.prompt_tokens, result.usage.completion_tokens) == (2, 3 * 8)
    assert [s.usage.completion_tokens for s in result.samples] == [8, 8, 8]
    assert len(result.samples) == 3
    assert result.samples[0].token_ids == result.token_ids
    assert len({tuple(s.token_ids) for s in result.samples}) == 3
    for sample in result.samples:  # each can be drawn again, alone
        again = SamplingParams(seed=sample.seed, max_new_tokens=8, ignore_eos=True)
        assert ids(manager.submit([3, 1], again)) == sample.token_ids
    assert sorted({event.sample for event in handle.events()}) == [0, 1, 2]
    with pytest.raises(ConfigError, match="n=3"):
        iter(handle)
    manager.close()


# Ends


def test_ends_by_length_token_and_context() -> None:
    manager = make(ToyModel(max_positions=20))
    result = manager.submit([1, 2, 3], GREEDY).result(STEP)
    assert (result.finish_reason, result.stop_reason, result.usage.total_tokens) == ("length", None, 12)
    stop = result.token_ids[4]
    at = result.token_ids.index(stop)
    for ignore_eos in (True, False):
        params = GREEDY.model_copy(update={"stop_token_ids": (stop,), "ignore_eos": ignore_eos})
        found = manager.submit([1, 2, 3], params).result(STEP)
        assert (found.finish_reason, found.stop_reason) == ("stop", stop)
        assert found.token_ids == result.token_ids[: at + 1]
        assert found.text == "".join(toy_text(t) for t in result.token_ids[:at])
    long = manager.submit([1, 2, 3], GREEDY.model_copy(update={"max_new_tokens": 1000})).result(STEP)
    assert (long.finish_reason, len(long.token_ids)) == ("length", 17)
    manager.close()


def test_the_models_end_token_ends_unless_ignored() -> None:
    manager = make()
    forced = GREEDY.model_copy(update={"logit_bias": {EOS: 100.0}, "ignore_eos": False})
    result = manager.submit([1], forced).result(STEP)
    assert (result.token_ids, result.text, result.stop_reason, result.finish_reason) == ([EOS], "", EOS, "stop")
    kept = forced.model_copy(update={"include_stop": True, "skip_special_tokens": False})
    assert manager.submit([1], kept).result(STEP).text == toy_text(EOS)
    ignored = manager.submit([1], forced.model_copy(update={"ignore_eos": True})).result(STEP)
    assert ignored.token_ids == [EOS] * 9
    manager.close()


@given(st.integers(0, 5), st.integers(0, 12), st.integers(1, 4), st.booleans(), st.integers(1, 12))
def test_stop_strings_end_the_text_wherever_tokens_meet(
    which: int, first: int, length: int, include: bool, most: int
) -> None:
    tokens = toy_greedy(PROMPTS[which], most)
    assume(EOS not in tokens)  # hidden, it would part a stop text; test_stops has those
    whole = "".join(map(toy_text, tokens))
    stop = whole[first : first + length] or "~"
    params = GREEDY.model_copy(update={"stop": (stop,), "include_stop": include, "max_new_tokens": most})
    manager = make()
    handle = manager.submit(PROMPTS[which], params)
    pieces = list(handle)
    result = handle.result(STEP)
    expected, found, _ = whole.partition(stop)
    assert result.text == "".join(pieces) == expected + (found if include else "")
    assert all(pieces)
    assert (result.stop_reason, result.finish_reason) == ((stop, "stop") if found else (None, "length"))
    assert tokens[: len(result.token_ids)] == result.token_ids
    manager.close()


def test_without_a_tokenizer_there_are_tokens_and_no_text() -> None:
    manager = ToyManager(ToyModel(), ToyCache(9, 4))
    result = manager.submit([1, 2], GREEDY).result(STEP)
    assert (result.text, result.token_ids) == ("", toy_greedy([1, 2], 9))
    with pytest.raises(ConfigError, match="stop: this model has no tokenizer"):
        manager.submit([1], SamplingParams(stop="x"))
    manager.close()


def test_logprobs_come_with_the_tokens() -> None:
    manager = make()
    params = GREEDY.model_copy(update={"logprobs": 3, "repetition_penalty": 1.5})
    handle = manager.submit([1, 2], params)
    events = list(handle.events())
    result = handle.result(STEP)
    assert result.logprobs == [e.logprobs for e in events]
    assert [e.token_id for e in events] == result.token_ids
    tokens = [1, 2]
    for entry in result.logprobs or ():
        raw = toy_logits(tokens)  # before penalties
        ranked = sorted(range(VOCAB), key=lambda i: (-raw[i], i))[:3]
        assert [i for i, _ in entry.top] == ranked
        chances = dict(entry.top)
        assert entry.text == toy_text(entry.token_id)
        assert entry.logprob == pytest.approx(chances.get(entry.token_id, entry.logprob))
        assert chances[ranked[0]] - chances[ranked[2]] == pytest.approx(raw[ranked[0]] - raw[ranked[2]], abs=1e-5)
        tokens.append(entry.token_id)
    zero = manager.submit([1, 2], GREEDY.model_copy(update={"logprobs": 0})).result(STEP)
    assert [e.top for e in zero.logprobs or ()] == [()] * 9
    assert manager.submit([1, 2], GREEDY).result(STEP).logprobs is None
    manager.close()


def test_penalties_follow_the_answer() -> None:
    manager = make()
    params = GREEDY.model_copy(update={"presence_penalty": 2.0, "frequency_penalty": 2.0, "max_new_tokens": 14})
    answer: list[int] = []
    for _ in range(14):
        logits = [
            x - (2.0 + 2.0 * answer.count(t) if t in answer else 0) for t, x in enumerate(toy_logits([1, 2, *answer]))
        ]
        answer.append(logits.index(max(logits)))
    assert ids(manager.submit([1, 2], params)) == answer
    manager.close()


def test_timings_add_up() -> None:
    manager = make()
    t = manager.submit([1, 2], GREEDY).result(STEP).timings
    assert min(t.queue, t.prefill, t.decode, t.tokens_per_second) > 0
    assert t.time_to_first_token == pytest.approx(t.queue + t.prefill)
    assert t.tokens_per_second == pytest.approx(8 / t.decode)
    one = manager.submit([1], GREEDY.model_copy(update={"max_new_tokens": 1})).result(STEP).timings
    assert (one.decode, one.tokens_per_second) == (0, 0)
    manager.close()


# Cancelling


def test_cancel_while_waiting_in_the_prompt_and_in_the_answer(slow: tuple[ToyModel, ToyManager]) -> None:
    model, manager = slow
    params = GREEDY.model_copy(update={"max_new_tokens": 30})
    running = [manager.submit([0], params)]
    model.wait_for_step()
    running += [manager.submit([i], params) for i in (1, 2)]
    model.step()
    model.wait_for_step()
    prompt = manager.submit(list(range(30)), params)  # 16 tokens a step
    waiting = manager.submit([8], params)  # four at once
    model.step()
    model.wait_for_step()
    assert [len(tokens) for tokens, _ in model.steps[-1]] == [1, 1, 1]
    # now it stands in the first chunk of the prompt, beside three answers
    for handle in (waiting, prompt, running[1]):
        handle.cancel()
        with pytest.raises(CancelledError):  # at once, whatever the model is doing
            handle.result(STEP)
        assert handle.done
    model.step(200)
    assert ids(running[0]) == toy_greedy([0], 30)
    assert ids(running[2]) == toy_greedy([2], 30)
    assert [len(tokens) for tokens, _ in model.steps[2]] == [1, 1, 1, 13]
    assert [len(tokens) for tokens, _ in model.steps[3]] == [1, 1]
    assert all(tokens != [8] for step in model.steps for tokens, past in step if past == 0)
    assert ids(manager.submit(list(range(30)), GREEDY)) == toy_greedy(list(range(30)), 9)


def test_cancel_is_too_late_for_a_finished_request() -> None:
    manager = make()
    handle = manager.submit([1], GREEDY)
    result = handle.result(STEP)
    handle.cancel()
    assert handle.result(0) == result
    manager.close()


@pytest.mark.parametrize("how", ["close", "drop", "never begun"])
def test_an_abandoned_stream_cancels_its_request(slow: tuple[ToyModel, ToyManager], how: str) -> None:
    model, manager = slow
    handle = manager.submit([1], GREEDY.model_copy(update={"max_new_tokens": 50}))
    stream = iter(handle)
    if how != "never begun":
        model.step(4)
        next(stream)
    if how == "close":
        stream.close()
        assert list(stream) == [], "closed as a generator is"
    del stream
    gc.collect()
    with pytest.raises(CancelledError):
        handle.result(STEP)
    model.step(200)
    assert ids(manager.submit([2], GREEDY)) == toy_greedy([2], 9)
    assert max(len(step) for step in model.steps) == 1, "it ran on beside the next request"


def test_a_stream_that_was_read_to_its_end_cancels_nothing() -> None:
    manager = make()
    handle = manager.submit([1, 2], GREEDY)
    assert "".join(handle) == handle.result(0).text == "".join(handle)
    manager.close()


def test_a_result_that_does_not_come_in_time(slow: tuple[ToyModel, ToyManager]) -> None:
    model, manager = slow
    handle = manager.submit([1], GREEDY)
    with pytest.raises(TimeoutError, match="goes on"):
        handle.result(0)
    model.step(100)
    assert ids(handle) == toy_greedy([1], 9)


# Errors


@pytest.mark.parametrize("error", [ValueError("poison"), CapacityError("poison"), BaseException("poison")])
def test_an_error_reaches_those_it_concerns_and_nobody_else(
    slow: tuple[ToyModel, ToyManager], error: BaseException
) -> None:
    model, manager = slow
    model.poison, model.error = 33, error
    beside = manager.submit([1], GREEDY)
    model.wait_for_step()
    bad = manager.submit([2, 33], GREEDY)
    behind = [manager.submit([i], GREEDY) for i in (4, 5, 6, 7)]
    model.step(100)
    for handle in (beside, bad):
        with pytest.raises(PioError, match="poison") as found:
            handle.result(STEP)
        if isinstance(error, PioError):
            assert found.value is error
        else:
            assert found.value.__cause__ is error
            assert "poison" in error.__notes__[-1]  # the traceback as text: the frames would hold the model
        with pytest.raises(PioError, match="poison"):
            list(handle)
    assert [ids(h) for h in behind[2:]] == [toy_greedy([i], 9) for i in (6, 7)]
    assert ids(manager.submit([1], GREEDY)) == toy_greedy([1], 9)


@pytest.mark.parametrize("broken", ["settle", "keep", "remove"])
def test_an_error_behind_a_step_leaves_answers_that_are_complete(
    slow: tuple[ToyModel, ToyManager], broken: str
) -> None:
    """Whoever clears up behind a step may fail; who has all of his tokens by then has his answer."""
    model, manager = slow
    complete = manager.submit([1], GREEDY.model_copy(update={"max_new_tokens": 2}))
    model.wait_for_step()
    other = manager.submit([2], GREEDY)
    model.step()
    model.wait_for_step()
    worker: Any = manager._worker
    owner: Any = worker._steps.scheduler.cache if broken == "keep" else worker._steps.scheduler

    def fail(*_: Any) -> None:
        delattr(owner, broken)  # the next one works
        raise RuntimeError("lost")

    setattr(owner, broken, fail)
    model.step(100)
    assert ids(complete) == toy_greedy([1], 2)
    with pytest.raises(PioError, match="lost"):
        other.result(STEP)
    assert ids(manager.submit([3], GREEDY)) == toy_greedy([3], 9)
    stats = manager.stats()
    assert (stats.finished, stats.dropped, stats.free_blocks) == (2, 1, stats.blocks)


def test_logits_that_are_not_finite_end_one_request() -> None:
    model = ToyModel()
    model.not_finite = 33
    manager = make(model)
    good, bad = manager.submit([1], GREEDY), manager.submit([33], GREEDY)
    with pytest.raises(PioError, match="nan for token id 3"):
        bad.result(STEP)
    assert ids(good) == toy_greedy([1], 9)
    manager.close()


def test_a_broken_tokenizer_ends_one_request() -> None:
    class Broken(ToyDetokenizer):
        def push(self, token_id: int) -> str:
            raise BaseException("panic")

    made = iter([Broken, ToyDetokenizer])
    manager = ToyManager(ToyModel(), ToyCache(30, 4), detokenizer=lambda skip: next(made)(skip))
    bad, good = manager.submit([1], GREEDY), manager.submit([2], GREEDY)
    with pytest.raises(PioError, match="panic"):
        bad.result(STEP)
    assert ids(good) == toy_greedy([2], 9)
    manager.close()


@pytest.mark.parametrize(
    ("prompt", "error", "words"),
    [
        ([], ConfigError, "no tokens"),
        ([1, VOCAB], ConfigError, f"token id {VOCAB} at index 1 .* 0 to {VOCAB - 1}"),
        ([-1], ConfigError, "token id -1 at index 0"),
        ([1.5], ConfigError, "token ids"),
        ("text", ConfigError, "token ids"),
        ([2**40], ConfigError, "token ids"),
        ([1] * 64, CapacityError, "64 tokens, and the context holds 64 with the answer"),
    ],
)
def test_prompts_that_cannot_run_are_refused_at_once(prompt: Any, error: type[PioError], words: str) -> None:
    manager = make()
    with pytest.raises(error, match=words):
        manager.submit(prompt, GREEDY)
    assert not worker_threads()
    manager.close()


def test_a_prompt_that_fits_the_context_but_never_the_cache() -> None:
    manager = make(num_blocks=5)
    with pytest.raises(CapacityError, match="the cache holds 20"):
        manager.submit([1] * 20, GREEDY)
    assert len(ids(manager.submit([1] * 19, GREEDY))) == 1
    assert manager.submit_logits([1] * 20).result(STEP).shape == (20, VOCAB)
    manager.close()


def test_params_that_do_not_fit_the_model() -> None:
    manager = make()
    for field, value in (("stop_token_ids", [VOCAB]), ("logit_bias", {VOCAB: 1.0})):
        with pytest.raises(ConfigError, match=f"{field}: token id {VOCAB}"):
            manager.submit([1], SamplingParams(**{field: value}))  # type: ignore[arg-type]
    for name, value in (("max_batch_tokens", 17), ("max_batch_sequences", 0), ("prefill_chunk", 99)):
        with pytest.raises(ConfigError, match=name):
            make(**{name: value})
    manager.close()


# Closing


def test_close_cancels_joins_and_refuses(slow: tuple[ToyModel, ToyManager]) -> None:
    model, manager = slow
    handles: list[Any] = [manager.submit([i], GREEDY) for i in range(6)]
    handles.append(manager.submit_logits([1, 2]))
    model.wait_for_step()
    closing = threading.Thread(target=manager.close)
    closing.start()
    model.step(100)
    closing.join()
    for handle in handles[1:]:
        with pytest.raises(CancelledError, match="closed"):
            handle.result(STEP)
    manager.close()
    assert not worker_threads()
    for call in (manager.submit, manager.submit_logits):
        with pytest.raises(PioError, match="closed"):
            call([1])


def test_a_manager_nobody_holds_ends_its_thread_and_lets_go_of_the_model() -> None:
    model = ToyModel()
    manager = make(model)
    handle = manager.submit([1], GREEDY)
    (thread,) = worker_threads()
    gone = weakref.ref(model)
    del manager, model
    assert ids(handle) == toy_greedy([1], 9)  # a handle keeps it at work
    del handle
    gc.collect()
    thread.join(STEP)
    assert not thread.is_alive()
    assert gone() is None


def test_an_error_does_not_hold_the_model() -> None:
    model = ToyModel()
    model.poison = 3
    manager = make(model)
    with pytest.raises(PioError) as found:
        manager.submit([3], GREEDY).result(STEP)
    manager.close()
    gone = weakref.ref(model)
    error = found.value.__cause__
    del manager, model, found
    gc.collect()
    assert gone() is None
    assert str(error) == "poison"


def test_the_interpreter_leaves_while_a_request_runs() -> None:
    done = run_python(
        """
        def go_on() -> None:
            threading.main_thread().join()  # until the interpreter leaves
            model.step(1000)

        threading.Thread(target=go_on).start()
        print("left")
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "left\n", "")


def test_ctrl_c_interrupts_a_wait_and_ends_the_request() -> None:
    done = run_python(
        """
        import signal
        from own_signals import send_to_main
        from pio.errors import CancelledError

        def press() -> None:
            main = threading.main_thread().ident
            while not sys._current_frames()[main].f_code.co_filename.endswith("waiters.py"):  # until it waits
                pass
            send_to_main(signal.SIGINT)

        threading.Thread(target=press).start()
        try:
            handle.result()
        except KeyboardInterrupt:
            print("interrupted")
        try:
            handle.result()
        except CancelledError:
            print("cancelled")
        model.step(1000)
        manager.close()
        """
    )
    assert (done.returncode, done.stdout) == (0, "interrupted\ncancelled\n")


def test_steps_do_not_depend_on_the_past(slow: tuple[ToyModel, ToyManager]) -> None:
    """Two requests in a row leave nothing behind: the same steps again."""
    model, manager = slow
    model.step(100)
    for _ in range(2):
        ids(manager.submit([3, 4, 5], GREEDY))
    half = len(model.steps) // 2
    assert model.steps[:half] == model.steps[half:]
    assert all(len(a) == len(b) == 1 for a, b in pairwise(model.steps))


def test_numbers_that_mean_all_may_be_of_any_size() -> None:
    manager = ToyManager(ToyModel(), ToyCache(40, 4))
    fields = SamplingParams(seed=5, max_new_tokens=9, ignore_eos=True)
    expected = manager.submit([3, 4], fields).result(STEP).token_ids
    large = fields.model_copy(update={"top_k": 10**20, "no_repeat_ngram_size": 10**20})
    assert manager.submit([3, 4], large).result(STEP).token_ids == expected
    manager.close()
