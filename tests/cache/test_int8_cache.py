"""A model whose keys and values are kept in eight bits."""

import pytest

import pio

TEXT = '''class Point:
    """A place on a plane."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __repr__(self):
        return f"Point({self.x}, {self.y})"
'''
WEIGHTS = [{"kv_cache_dtype": "int8"}, {"quantize": "int4"}]


@pytest.mark.parametrize("options", WEIGHTS, ids=["bfloat16", "int4"])
def test_logits_do_not_depend_on_chunks_or_threads(options):
    found = set()
    for steps in ({}, {"prefill_chunk": 1, "max_batch_sequences": 1}, {"prefill_chunk": 7}, {"threads": 1}):
        with pio.load("demo", context_length=256, **options, **steps) as model:
            ids = model.tokenize(TEXT)
            assert 64 < len(ids) < 256  # three blocks of the cache
            found.add(bytes(model.logits(ids).memoryview()))
    assert len(found) == 1


@pytest.mark.parametrize("options", WEIGHTS, ids=["bfloat16", "int4"])
def test_an_answer_is_what_its_own_logits_say(options):
    """What was written token by token, behind a prompt in chunks, is what one pass writes."""
    with pio.load("demo", context_length=256, prefill_chunk=9, **options) as model:
        ids = model.tokenize(TEXT[:70])
        made = model.generate(ids, max_new_tokens=40, temperature=0.0, ignore_eos=True)
        rows = model.logits([*ids, *made.token_ids[:-1]]).tolist()[len(ids) - 1 :]
        assert [max(range(len(row)), key=row.__getitem__) for row in rows] == list(made.token_ids)


def test_eight_bits_are_near_sixteen():
    rows = []
    for kind in ("float32", "float16", "int8"):
        with pio.load("demo", context_length=256, kv_cache_dtype=kind) as model:
            rows.append([x for row in model.logits(model.tokenize(TEXT)).tolist() for x in row])
    exact, half, eight = rows
    assert half != exact and eight != half
    size = sum(x * x for x in exact)
    assert sum((a - b) ** 2 for a, b in zip(eight, exact, strict=True)) < 1e-4 * size


@pytest.mark.parametrize(
    ("options", "format"),
    [
        ({"quantize": "int8"}, "int8"),
        ({"quantize": "int4", "profile": "performance"}, "int8"),
        ({"quantize": "int4", "profile": "memory_efficient"}, "float16"),
        ({"quantize": "int4", "profile": "accuracy"}, "float32"),
        ({"quantize": "int4", "kv_cache_dtype": "bfloat16"}, "bfloat16"),
        ({"kv_cache_dtype": pio.int8}, "int8"),
        ({"profile": "memory_efficient", "kv_cache_dtype": "int8"}, "int8"),
        ({}, "float16"),
    ],
)
def test_what_is_kept_in_eight_bits(options, format):
    with pio.load("demo", **options) as model:
        cache = model.loaded.cache
        keys, values = cache.layer(5)
        assert keys.format == values.format == cache.format.dtype.name == format
        bits = 2 * 6 * 2 * 64 * 8 * keys.dtype.itemsize  # layers, heads and their width
        if format == "int8":
            assert keys.dtype is values.dtype is pio.uint8  # scales lie among the numbers
            bits = 6 * 2 * 8 * (64 + 2 * 2 + 64 + 4)  # a float16 scale for each 32 of a key, a float32 one for a value
        assert model.metadata.memory["cache"] == cache.nbytes == cache.num_blocks * 32 * bits // 8


def test_a_smaller_cache_fits_where_another_does_not():
    tokens = 1 << 11
    with pio.load("demo", context_length=tokens, kv_cache_dtype="int8") as model:
        limit = sum(model.metadata.memory.values()) + (1 << 20)
    with pio.load("demo", context_length=tokens, kv_cache_dtype="int8", memory_limit=limit) as model:
        assert model.generate("def f(", max_new_tokens=3).token_ids
        with pytest.raises(pio.OutOfMemoryError, match="cache"):
            model.update(kv_cache_dtype="float16")
        assert model.runtime.kv_cache_dtype == "int8"
