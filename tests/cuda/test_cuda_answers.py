"""What requests can ask of a model on a GPU: they get what they get on the CPU."""

from collections import Counter

import pytest

pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

from drafters import EveryDraft, RandomDrafter
from gpu_models import DENSE, RECURRENT, greedy, load, prompt, said

from pio.ops.sampling import Sampler

REQUESTS = (
    {"temperature": 0.0, "logprobs": 4},
    {"temperature": 0.8, "seed": 5, "top_k": 20, "top_p": 0.9, "min_p": 0.01, "logprobs": 0},
    {"temperature": 0.0, "repetition_penalty": 1.4, "presence_penalty": 0.5, "frequency_penalty": 0.3, "logprobs": 2},
    {"temperature": 1.2, "seed": 6, "logit_bias": {3: 4.0, 9: -2.0}, "logprobs": 1},
    {"temperature": 0.0, "suppress_tokens": list(range(0, 90, 2)), "begin_suppress_tokens": [1, 3], "logprobs": 3},
    {"temperature": 0.0, "no_repeat_ngram_size": 1, "bad_words_ids": [[5], [7, 9]], "logprobs": 3},
)


def test_every_field_together(driver):
    """One batch of all of them, in which prompts and answers of several steps meet."""
    options = {"max_batch_sequences": len(REQUESTS), "cache_tokens": 400}
    found = []
    for device in ("cpu", "cuda"):
        with load(DENSE, device, **options) as model:
            fields = {"max_new_tokens": 3, "ignore_eos": True}
            handles = [
                model.submit(prompt(model, 3 + i, 5 + i), **fields, **request) for i, request in enumerate(REQUESTS)
            ]
            found.append([handle.result() for handle in handles])
    for wanted, there in zip(*found, strict=True):
        assert there.token_ids == wanted.token_ids
        for one, other in zip(there.logprobs, wanted.logprobs, strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
            assert [p for _, p in one.top] == pytest.approx([p for _, p in other.top], abs=1e-3)


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_token_is_one_copy_there_a_graph_a_choice_and_one_copy_back(driver, request_):
    """Penalties, masks and lists go with the batch: what changes from token to token is in one copy."""
    made = []
    with load(DENSE) as model:
        fields = {"ignore_eos": True, **request_}
        for tokens in (3, 3, 4):  # the first time loads kernels
            driver.calls.clear()
            model.generate(prompt(model, 3, 5), max_new_tokens=tokens, **fields)
            made.append(Counter(driver.calls))
    more = made[2] - made[1]
    del more["enter"]
    assert more == {"copy_in": 1, "run_graph": 1, "launch": 1, "copy_out": 1, "wait": 1}


def test_answers_to_one_prompt_choose_from_its_row_together(driver):
    """Of all but the first nobody knew before the step, so how they choose goes there in a copy of its own."""
    found = []
    for device in ("cpu", "cuda"):
        with load(DENSE, device, max_batch_sequences=3, cache_tokens=400) as model:
            fields = {"max_new_tokens": 3, "ignore_eos": True, "temperature": 1.1, "seed": 4, "n": 3}
            fields = {"max_new_tokens": 3, "ignore_eos": True, "temperature": 1.1, "seed": 4, "n": 3}
            answers = model.generate(prompt(model, 3, 6), **fields).samples
            found.append([answer.token_ids for answer in answers])
    assert found[0] == found[1] and len(set(map(tuple, found[0]))) == 3


@pytest.mark.parametrize("case", [DENSE, RECURRENT])
def test_drafts_change_no_bit(driver, case):
    """Right and wrong ones: states of recurrent layers take in the tokens that stand, and no others."""
    fields = {"logprobs": 5, "tokens": 7}
    with load(case) as model:
        ids = prompt(model, 3, 9)
        wanted = greedy(model, ids, **fields)
    with load(case, speculation="auto", max_draft_tokens=4) as model:
        speculation = model.loaded.manager.speculation
        speculation.gate = EveryDraft()
        speculation.drafter = RandomDrafter(2, model.metadata.vocab_size, lambda sequence: wanted.token_ids)
        assert said(greedy(model, ids, **fields)) == said(wanted)
        stats = model.stats()
        assert 0 < stats.accepted_tokens < stats.drafted_tokens


def test_the_gate_sees_what_steps_take_on_the_gpu(driver, monkeypatch):
    """And not what it takes to ask for them."""
    waited = []
    with load(DENSE, speculation="auto") as model:
        runner = model.loaded.manager._worker._steps._runner
        gate = model.loaded.manager.speculation.gate
        forward = runner.forward

        def asked(plan):
            logits = forward(plan)
            assert not runner.computed, "nobody has waited by then"
            return logits

        monkeypatch.setattr(runner, "forward", asked)
        monkeypatch.setattr(gate, "note", lambda *given: waited.append(given))
        greedy(model, prompt(model, 3, 5), 3)
    assert waited and all(seconds > 0 for *_, seconds in waited)


def test_a_commit_is_done_before_the_gate_hears_of_its_step(driver, monkeypatch):
    """Or its time would be that of the next step, which may have another size."""
    left, committed = [], []
    with load(RECURRENT, speculation="auto", max_draft_tokens=2) as model:
        speculation, cache = model.loaded.manager.speculation, model.loaded.manager._worker._steps._runner._cache
        speculation.gate = EveryDraft()
        speculation.drafter = RandomDrafter(2, model.metadata.vocab_size)
        speculation.drafter.always = True
        commit, waiting = cache.commit, lambda: sum(len(queue.work) for queue in driver._queues.values())
        monkeypatch.setattr(cache, "commit", lambda *given: (commit(*given), committed.append(waiting())))
        monkeypatch.setattr(speculation.gate, "note", lambda *_: left.append(waiting()))
        greedy(model, prompt(model, 3, 5), 4)
    assert committed and all(committed) and left and not any(left)


def test_an_answer_in_a_shape(driver):
    pytest.importorskip("llguidance")
    found = []
    for device in ("cpu", "cuda"):
        with load("qwen3_vl/video", device) as model:
            fields = {"response_format": ["yes", "no"], "temperature": 0.0, "max_new_tokens": 8}
            found.append(model.generate("Is it?", **fields).token_ids)
            assert model.detokenize(found[-1]) in ("yes", "no")
    assert found[0] == found[1]


SHAPED = (
    {"response_format": ["yes", "no", "perhaps"], "temperature": 0.0, "logprobs": 2},
    {"response_format": "regex:[a-z]{2,9}", "temperature": 1.3, "seed": 5, "top_k": 40},
    {"response_format": "regex:(?s:.*)", "temperature": 1.0, "seed": 6},
    {"temperature": 0.0, "frequency_penalty": 0.5},
    {"response_format": "regex:[0-9 ]{6}", "temperature": 0.8, "seed": 7, "repetition_penalty": 1.4, "logprobs": 1},
    {"response_format": "regex:[ -~]{3,}", "temperature": 0.0, "presence_penalty": 0.7, "no_repeat_ngram_size": 1},
)


def test_answers_in_shapes_together(driver, monkeypatch):
    """Of some answers tokens are refused, of others none: they are what they are on the CPU, where each runs alone."""
    pytest.importorskip("llguidance")
    options, sample, found = {"context_length": 64, "cache_tokens": 400}, Sampler.sample, []
    for device, together in (("cpu", 1), ("cuda", len(SHAPED))):
        chosen = []
        with load("qwen3_vl/video", device, max_batch_sequences=together, **options) as model:
            monkeypatch.setattr(Sampler, "sample", lambda *given, n=chosen: (n.append(len(given[2])), sample(*given)))
            handles = [model.submit("Is it?", max_new_tokens=4, **request) for request in SHAPED]
            found.append([handle.result() for handle in handles])
        tokens = sum(len(answer.token_ids) for answer in found[-1])
        assert tokens < sum(chosen) < 2 * tokens
    for wanted, there in zip(*found, strict=True):
        assert there.token_ids == wanted.token_ids
        for one, other in zip(there.logprobs or (), wanted.logprobs or (), strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
            assert [p for _, p in one.top] == pytest.approx([p for _, p in other.top], abs=1e-3)
