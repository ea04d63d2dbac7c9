import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio import ops
from pio.device import Device
from pio.errors import TensorError
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits
from pio.testing.reference import rope as reference
from pio.testing.strategies import sizes, tensors

THREADS = st.sampled_from((1, 2, 3))


def frequencies(half, base=1e4):
    return Tensor.from_list([base ** (-i / max(half, 1)) for i in range(half)])


@given(
    positions=st.lists(st.integers(0, 2**20), max_size=6),
    half=st.integers(0, 37),
    scale=st.sampled_from((1.0, 0.75)),
    threads=THREADS,
)
def test_rope_table(positions, half, scale, threads):
    at, inv_freq = Tensor.from_list(positions, "int32"), frequencies(half, 1e6)
    cos, sin = ops.rope_table(at.to(Device("cpu", threads)), inv_freq, scale=scale)
    expected_cos, expected_sin = reference.rope_table(positions, inv_freq.tolist(), scale)
    assert cos.shape == sin.shape == (len(positions), half)
    assert_close(cos, expected_cos, absolute=6e-8)
    assert_close(sin, expected_sin, absolute=6e-8)


def test_rope_table_rounds_the_angle_as_training_did():
    inv_freq = Tensor.from_list([0.1])
    cos, _ = ops.rope_table(Tensor.from_list([16_777_217, 999_983], "int32"), inv_freq)
    f = inv_freq.tolist()[0]  # the float32 nearest to 0.1; 16,777,217 is no float32 and becomes 16,777,216
    angles = Tensor.from_list([16_777_216 * f, 999_983 * f]).tolist()
    assert_close(cos, [[math.cos(a)] for a in angles], absolute=6e-8)
    assert abs(math.cos(999_983 * f) - cos[1].item()) > 1e-4, "the angle should have been rounded"


@given(data=st.data(), tokens=st.integers(0, 6), half=st.integers(0, 37), axes=st.integers(1, 4), threads=THREADS)
def test_rope_table_of_axes(data, tokens, half, axes, threads):
    place = st.integers(0, 2**18)
    positions = data.draw(st.lists(st.lists(place, min_size=tokens, max_size=tokens), min_size=axes, max_size=axes))
    chosen = data.draw(st.lists(st.integers(0, axes - 1), min_size=half, max_size=half))
    inv_freq = frequencies(half, 1e5)
    wide = Tensor.from_list([[*row, 7, 8, 9] for row in positions], "int32")  # a part of a larger table
    at = wide[:, :tokens].to(Device("cpu", threads))
    cos, sin = ops.rope_table(at, inv_freq, axes=Tensor.from_list(chosen, "int32"))
    expected_cos, expected_sin = reference.rope_table_of_axes(positions, inv_freq.tolist(), chosen)
    assert_close(cos, expected_cos, absolute=6e-8)
    assert_close(sin, expected_sin, absolute=6e-8)


def test_rope_table_refuses_axes_that_there_are_not():
    positions, inv_freq = Tensor.zeros((2, 3), "int32"), frequencies(2)
    for bad in ([0, 2], [-1, 0]):
        with pytest.raises(TensorError, match="rope_table: axes"):
            ops.rope_table(positions, inv_freq, axes=Tensor.from_list(bad, "int32"))
    with pytest.raises(TensorError, match="positions"):
        ops.rope_table(positions[0], inv_freq, axes=Tensor.from_list([0, 0], "int32"))
    with pytest.raises(TensorError, match="positions"):
        ops.rope_table(Tensor.zeros((3, 2), "int32").T, inv_freq, axes=Tensor.from_list([0, 0], "int32"))


def test_rope_table_writes_into_given_tensors():
    cos, sin = Tensor.zeros((2, 3)), Tensor.zeros((2, 3))
    found = ops.rope_table(Tensor.from_list([0, 5], "int32"), frequencies(3), out_cos=cos, out_sin=sin)
    assert found[0] is cos and found[1] is sin
    assert cos[0].tolist() == [1.0] * 3 and sin[0].tolist() == [0.0] * 3
    assert sin[1].tolist() != [0.0] * 3


@given(
    data=st.data(),
    shape=sizes((1, 6), (1, 4), (2, 75)),
    interleaved=st.booleans(),
    threads=THREADS,
)
def test_rope_turns_heads_inside_wider_tokens(data, shape, interleaved, threads):
    tokens, heads, dim = shape
    half = data.draw(st.integers(0, dim // 2))
    wide = data.draw(tensors((tokens, heads + 3, dim)))
    positions = data.draw(st.lists(st.integers(0, 5000), min_size=tokens, max_size=tokens))
    cos, sin = ops.rope_table(Tensor.from_list(positions, "int32"), frequencies(half))
    before = wide.tolist()
    x = wide[:, 2 : 2 + heads]
    expected = reference.rope([token[2 : 2 + heads] for token in before], cos.tolist(), sin.tolist(), interleaved)
    x = x.to(Device("cpu", threads))
    assert ops.rope(x, cos, sin, interleaved=interleaved) is x
    largest = max(abs(v) for token in before for head in token for v in head)
    assert_close(x, expected, absolute=2e-7 * largest)
    after = wide.tolist()
    assert [t[:2] + t[2 + heads :] for t in after] == [t[:2] + t[2 + heads :] for t in before]
    rest = [[head[2 * half :] for head in token] for token in after]
    assert rest == [[head[2 * half :] for head in token] for token in before], "the tail of a head was turned"


@given(data=st.data(), shape=sizes((1, 5), (1, 3), (2, 40)), interleaved=st.booleans())
def test_rope_turns_the_tails_of_heads(data, shape, interleaved):
    tokens, heads, dim = shape
    wide = data.draw(tensors((tokens, heads, 7 + dim)))
    before = wide.tolist()
    cos, sin = ops.rope_table(Tensor.from_list(list(range(3, 3 + tokens)), "int32"), frequencies(dim // 2))
    tails = [[head[7:] for head in token] for token in before]
    expected = reference.rope(tails, cos.tolist(), sin.tolist(), interleaved)
    x = ops.rope(wide[:, :, 7:], cos, sin, interleaved=interleaved)
    assert_close(x, expected, absolute=2e-7 * max(abs(v) for token in before for head in token for v in head))
    assert wide[:, :, :7].tolist() == [[head[:7] for head in token] for token in before]


@given(data=st.data(), shape=sizes((1, 5), (1, 3), (2, 60)), interleaved=st.booleans())
def test_rope_keeps_the_length_of_a_head(data, shape, interleaved):
    x = data.draw(tensors(shape))
    half = shape[2] // 2
    positions = Tensor.from_list(list(range(7, 7 + shape[0])), "int32")
    before = [[math.hypot(*head) for head in token] for token in x.tolist()]
    ops.rope(x, *ops.rope_table(positions, frequencies(half)), interleaved=interleaved)
    assert_close([[math.hypot(*head) for head in token] for token in x.tolist()], before, relative=1e-6)


@given(data=st.data(), half=st.integers(1, 33), interleaved=st.booleans(), shift=st.integers(0, 300))
def test_products_of_turned_heads_depend_on_their_distance_alone(data, half, interleaved, shift):
    first, distance = data.draw(st.integers(0, 300)), data.draw(st.integers(0, 50))
    x = data.draw(tensors((2, 1, 2 * half)))

    def product(*positions):
        turned = x.clone()
        table = ops.rope_table(Tensor.from_list(positions, "int32"), frequencies(half))
        query, key = ops.rope(turned, *table, interleaved=interleaved).tolist()
        return math.fsum(q * k for q, k in zip(query[0], key[0], strict=True))

    query, key = (math.hypot(*head[0]) for head in x.tolist())
    slack = 1e-4 * query * key  # an angle of 600 is known to 3e-5
    assert product(first, first + distance) == pytest.approx(
        product(first + shift, first + shift + distance), abs=slack
    )


WEIGHTS = st.sampled_from((None, "float32", "float16", "bfloat16"))


@given(
    data=st.data(), shape=sizes((1, 5), (1, 4), (1, 3), (2, 75)), kind=WEIGHTS, zero_centred=st.booleans(),
    interleaved=st.booleans(), elsewhere=st.booleans(), threads=THREADS,
)  # fmt: skip
def test_qk_norm_rope(data, shape, kind, zero_centred, interleaved, elsewhere, threads):
    tokens, heads, kv_heads, dim = shape
    half = data.draw(st.integers(0, dim // 2))
    wide = data.draw(tensors((tokens, heads, 2 * dim + 3))).to(Device("cpu", threads))
    k = data.draw(tensors((tokens, kv_heads + 1, dim)))
    norms = kind and tuple(data.draw(tensors((dim,))).astype(kind) for _ in range(2))
    cos, sin = ops.rope_table(Tensor.from_list(list(range(7, 7 + tokens)), "int32"), frequencies(half))
    q, keys = wide[:, :, 3 : 3 + dim], k[:, 1:]
    outside = [x.tolist() for x in (wide[:, :, :3], wide[:, :, 3 + dim :], k[:, :1])]
    weights = [[x + zero_centred for x in w.tolist()] for w in norms] if norms else (None, None)
    expected = [
        reference.qk_norm_rope(x.tolist(), w, cos.tolist(), sin.tolist(), 1e-5, interleaved)
        for x, w in zip((q, keys), weights, strict=True)
    ]
    apart = [x.contiguous() for x in (q.clone(), keys.clone())]
    for x, w in zip(apart, norms or (), strict=False):
        ops.rms_norm(x, w, 1e-5, out=x, zero_centred=zero_centred)
    for x in apart:
        ops.rope(x, cos, sin, interleaved=interleaved)
    out = Tensor.zeros((tokens, heads, dim)) if elsewhere else q
    found = ops.qk_norm_rope(
        q, keys, cos, sin, norms=norms, eps=1e-5, zero_centred=zero_centred, interleaved=interleaved, out_q=out
    )
    assert found[0] is out and found[1] is keys
    for x, right, alike in zip(found, expected, apart, strict=True):
        most = max(abs(v) for token in right for head in token for v in head)
        assert_close(x, right, absolute=4e-6 * most + 1e-12)
        assert bits(x.contiguous()) == bits(alike), "not what the two operations give"
    assert [x.tolist() for x in (wide[:, :, :3], wide[:, :, 3 + dim :], k[:, :1])] == outside


def test_norms_of_two_types():
    q, k = Tensor.full((3, 2, 6), 2.0), Tensor.full((3, 1, 6), 3.0)
    cos, sin = ops.rope_table(Tensor.from_list([1, 2, 3], "int32"), frequencies(3))
    norms = Tensor.full((6,), 1.5, "bfloat16"), Tensor.full((6,), 1.001)
    wanted = [ops.rope(ops.rms_norm(x, w, 1e-6), cos, sin) for x, w in zip((q, k), norms, strict=True)]
    found = ops.qk_norm_rope(q, k, cos, sin, norms=norms)
    assert [bits(x) for x in found] == [bits(x) for x in wanted]


def test_position_zero_turns_nothing():
    x = Tensor.from_list([[[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]])
    ops.rope(x, *ops.rope_table(Tensor.zeros((1,), "int32"), frequencies(3)))
    assert x.tolist() == [[[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]]


@pytest.mark.parametrize(
    ("shape", "table", "message"),
    [
        ((2, 6), (2, 3), r"x has shape \(2, 6\), expected \(tokens, heads, head_dim\)"),
        ((2, 1, 6), (3, 3), r"cos has shape \(3, 3\), expected \(2, any\)"),
        ((2, 1, 6), (2, 4), "cos has 4 angles a token, expected at most head_dim / 2 = 3"),
    ],
)
def test_rope_refuses_shapes_that_do_not_fit(shape, table, message):
    with pytest.raises(TensorError, match=message):
        ops.rope(Tensor.zeros(shape), Tensor.zeros(table), Tensor.zeros(table))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"q": (2, 6)}, r"q has shape \(2, 6\), expected \(tokens, heads, head_dim\)"),
        ({"k": (3, 1, 6)}, r"k has shape \(3, 1, 6\), expected \(2, heads, 6\)"),
        ({"k": (2, 1, 4)}, r"k has shape \(2, 1, 4\), expected \(2, heads, 6\)"),
        ({"cos": (2, 4), "sin": (2, 4)}, "cos has 4 angles a token, expected at most head_dim / 2 = 3"),
        ({"out_q": (2, 1, 6)}, r"out_q has shape \(2, 1, 6\), expected \(2, 3, 6\)"),
        ({"norms": ((6,), (5,))}, r"norms\[1\] has shape \(5,\), expected \(6\)"),
    ],
)
def test_qk_norm_rope_refuses_shapes_that_do_not_fit(given, message):
    shapes = {"q": (2, 3, 6), "k": (2, 1, 6), "cos": (2, 3), "sin": (2, 3)} | given
    made = {name: Tensor.zeros(shape) for name, shape in shapes.items() if name != "norms"}
    if "norms" in shapes:
        made["norms"] = tuple(map(Tensor.zeros, shapes["norms"]))
    with pytest.raises(TensorError, match=message):
        ops.qk_norm_rope(**made)


def test_rope_refuses_other_types_and_gaps():
    table = Tensor.zeros((2, 3))
    with pytest.raises(TensorError, match="x is float16"):
        ops.rope(Tensor.zeros((2, 1, 6), "float16"), table, table)
    with pytest.raises(TensorError, match="contiguous heads"):
        ops.rope(Tensor.zeros((2, 1, 12))[:, :, ::2], table, table)
    with pytest.raises(TensorError, match=r"sin has shape \(2, 2\)"):
        ops.rope(Tensor.zeros((2, 1, 6)), table, Tensor.zeros((2, 2)))
    with pytest.raises(TensorError, match="positions is float32, expected int32"):
        ops.rope_table(Tensor.zeros((2,)), table[0])
    with pytest.raises(TensorError, match="inv_freq is float16, expected float32"):
        ops.rope_table(Tensor.zeros((2,), "int32"), Tensor.zeros((3,), "float16"))
    with pytest.raises(TensorError, match="out_sin has shape"):
        ops.rope_table(Tensor.zeros((2,), "int32"), table[0], out_sin=table[:1])
