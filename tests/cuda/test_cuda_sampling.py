"""Tokens that a GPU chooses beside those that the CPU chooses, from the same logits and the same records."""

import math
import random
from array import array

import pytest
from gpu_case import run
from hypothesis import given, settings
from hypothesis import strategies as st

from pio.dtypes import int64
from pio.kernels import _sampling_record as fields
from pio.kernels.cuda import sampling
from pio.ops.bans import Bans
from pio.ops.penalties import Penalties
from pio.ops.sampling import RUNGS, Choice, Sampler
from pio.tensor import Tensor


def touched(choice):
    """All memory that a record says where it lies."""
    found = [choice.record, choice._lists]
    tensors = []
    if choice.penalties is not None:
        p = choice.penalties
        tensors += [p.ids, p.counts, p.bias_ids, p.biases]
        if p.bans is not None:
            found += [*p.bans.lists, *([] if p.bans.mask is None else [p.bans.mask.words])]
    return [*tensors, *[Tensor.from_buffer(a) for a in found if len(a)]]


def outcome(choice):
    first, count = fields.LIKELIEST // 8, choice.record[fields.NUM_LIKELIEST // 8]
    ids, floats = choice.record[first : first + 2 * count : 2], array("d", bytes(choice.record))
    return (
        choice.record[fields.TOKEN // 8],
        floats[fields.LOGPROB // 8],
        list(ids),
        floats[first + 1 : first + 2 * count : 2],
    )


def forget(choice):
    for word in range(fields.TOKEN // 8, len(choice.record)):
        choice.record[word] = -77 if word == fields.TOKEN // 8 else 0


def choose(logits, choices, multiprocessors=2, rungs=RUNGS):
    """Choose on the CPU and then on a GPU; both must agree."""
    count, n = len(choices), logits.shape[1]
    for choice in choices:
        forget(choice)
    Sampler(n).sample(logits, choices)
    wanted = [outcome(choice) for choice in choices]
    for choice in choices:
        forget(choice)
    records = Tensor.from_list([choice.address for choice in choices], int64)
    row, maxima, sums = (Tensor.full((count, m), math.nan) for m in (n, -(-n // 64), -(-n // 64)))
    run(
        sampling.sample,
        *(records, count, logits, n, row, maxima, sums, 0, *rungs),
        touching=[t for choice in choices for t in touched(choice)],
        reading=(logits, records),
        multiprocessors=multiprocessors,
    )
    found = [outcome(choice) for choice in choices]
    for (token, logprob, ids, others), (right, chance, places, chances) in zip(found, wanted, strict=True):
        assert token == right
        assert ids == places
        assert [logprob, *others] == pytest.approx([chance, *chances], abs=1e-9)
    return found


@st.composite
def choice_of(draw, n):
    options = {
        "temperature": draw(st.sampled_from((0.0, 0.3, 1.0, 2.5))),
        "top_k": draw(st.sampled_from((0, 1, 5, 40, n, n + 3))),
        "top_p": draw(st.sampled_from((1.0, 0.9, 0.5, 1e-3))),
        "min_p": draw(st.sampled_from((0.0, 0.05, 1.0))),
        "logprobs": draw(st.sampled_from((None, 0, 3, n + 2))),
    }
    if draw(st.booleans()):
        token = st.integers(0, n - 1)
        bans = None
        if draw(st.booleans()):
            always, sequences = draw(st.lists(token, max_size=3)), draw(st.lists(token, min_size=1, max_size=3))
            if draw(st.booleans()):  # nearly everything, as where a grammar says what may come
                always = [t for t in range(n) if t not in always]
            bans = Bans([sequences[0]] * 4, n, always=always, sequences=[[sequences[0], t] for t in sequences], ngram=2)
        penalties = Penalties(
            draw(st.lists(token, max_size=9)),
            6,
            n,
            repetition=draw(st.sampled_from((1.0, 1.3))),
            presence=draw(st.sampled_from((0.0, 0.7))),
            frequency=draw(st.sampled_from((0.0, 0.3))),
            bias=dict.fromkeys(draw(st.lists(token, max_size=3)), 1.25),
            bans=bans,
        )
        for t in draw(st.lists(token, max_size=5)):
            penalties.count(t)
        options["penalties"] = penalties
    return Choice(**options)


def rows_of(source, rows, n, spread=2.0, special=()):
    values = [source.gauss(0.0, spread) for _ in range(rows * n)]
    for _ in range(3 if special else 0):
        values[source.randrange(rows * n)] = source.choice(special)
    return Tensor.from_list(values).reshape(rows, n)


@settings(max_examples=25)
@given(n=st.sampled_from((1, 2, 63, 64, 65, 333, 900)), rows=st.integers(1, 3), data=st.data())
def test_the_same_tokens_as_on_the_cpu(n, rows, data):
    source = random.Random(data.draw(st.integers(0, 2**32)))
    logits = rows_of(source, rows, n, special=data.draw(st.sampled_from(((), (-math.inf,), (7.5,)))))
    choices = [data.draw(choice_of(n)) for _ in range(data.draw(st.integers(1, 4)))]
    for choice in choices:
        choice.aim(source.randrange(rows), source.choice((0.0, source.random(), 1 - 2**-53)))
    choose(logits, choices, data.draw(st.integers(1, 3)))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_rows_from_which_nothing_can_be_chosen(bad):
    n = 150
    logits = rows_of(random.Random(3), 2, n)
    (logits if bad == -math.inf else logits[1, 140]).fill_(bad)
    choices = [Choice(), Choice(0.7), Choice(0.7, 4, logprobs=2), Choice(logprobs=0)]
    for i, choice in enumerate(choices):
        choice.aim(i % 2, 0.3)
    everything = Choice(penalties=Penalties([], 1, n, bans=Bans([], n, always=range(n))))
    everything.aim(0, 0.3)
    found = [token for token, *_ in choose(logits, [*choices, everything])]
    broken = fields.NOTHING_LEFT if bad == -math.inf else fields.NOT_FINITE
    assert (found[1], found[3], found[4]) == (broken, broken, fields.NOTHING_LEFT)


@pytest.mark.parametrize(
    ("options", "spread", "n"),
    [
        ({"temperature": 1.0}, 1.0, 6000),  # in the order of tokens
        ({"temperature": 1.0, "top_p": 0.5}, 3.0, 6000),  # among few
        ({"temperature": 1.0, "top_p": 0.8}, 1.0, 6000),  # among many
        ({"temperature": 2.0, "top_p": 0.97}, 1.0, 6000),  # among too many to sort
        ({"temperature": 2.0, "top_p": 0.97, "min_p": 0.3}, 1.0, 6000),
        ({"temperature": 1.0, "min_p": 1e-5}, 0.5, 5000),
        ({"temperature": 1.0, "top_k": 4500, "top_p": 0.99}, 0.5, 5000),
        ({"temperature": 1.0, "top_k": 3000}, 0.0, 5000),  # all alike
        ({"temperature": 1.0, "top_p": 0.9}, 0.0, 5000),
    ],
)
def test_large_vocabularies(options, spread, n):
    source = random.Random(repr(options))
    logits = rows_of(source, 1, n, spread)
    choices = [Choice(**options) for _ in range(2)]
    for choice in choices:
        choice.aim(0, source.random())
    choose(logits, choices)


def test_a_row_does_not_depend_on_others_or_on_the_gpu():
    source = random.Random(5)
    logits = rows_of(source, 3, 700)
    choices = [Choice(0.9, 0, 0.9, logprobs=3) for _ in range(3)]
    for i, choice in enumerate(choices):
        choice.aim(i, source.random())
    together = choose(logits, choices, 1)
    alone = Choice(0.9, 0, 0.9, logprobs=3)
    alone.aim(0, choices[2]._floats[fields.U // 8])
    (found,) = choose(logits[2:3].clone(), [alone], 3)
    assert (found[0], found[1].hex(), [p.hex() for p in found[3]]) == (
        together[2][0],
        together[2][1].hex(),
        [p.hex() for p in together[2][3]],
    )
