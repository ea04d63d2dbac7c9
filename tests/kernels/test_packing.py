import copy
import ctypes
import math
import pickle
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pio import ops
from pio.device import Device
from pio.errors import NumericalError, TensorError
from pio.kernels._formats import FORMATS
from pio.ops import quantized
from pio.ops.quantized import PackedWeight, form_of, packed_shape
from pio.tensor import Tensor
from pio.testing.compare import assert_close, bits
from pio.testing.reference import packing as reference
from pio.testing.strategies import FLOATS, indices, sizes, tensors

SHAPES = sizes((1, 37), (1, 140))
THREADS = st.sampled_from((1, 2, 3))
TOP = {"int8": 128, "int4": 8, "int4_zero_point": 15}


def single(x):
    return ctypes.c_float(x).value


def values(packed):
    """What is stored, by the twin, without the padding of a row's last pair."""
    rows, columns = packed.shape
    groups = reference.unpack(bits(packed.data), rows, columns, packed.form.name)
    return [[single(w) for group in row for w in group.weights][:columns] for row in groups]


@pytest.mark.parametrize("form", FORMATS)
@given(data=st.data(), shape=SHAPES, threads=THREADS)
def test_unpack_reads_what_the_layout_says(data, form, shape, threads):
    packed = ops.pack(data.draw(tensors(shape, special=(0.0,))).to(Device("cpu", threads)), form)
    assert ops.unpack(packed.to(Device("cpu", threads))).tolist() == values(packed)


@pytest.mark.parametrize("form", FORMATS)
@given(data=st.data(), shape=sizes((1, 21), (1, 75)))
def test_unpack_reads_any_bytes(data, form, shape):
    source = random.Random(data.draw(st.integers(0, 999)))
    wanted = packed_shape(shape, form)
    raw = bytearray(source.randbytes(wanted[0] * wanted[1] * wanted[2]))
    header = FORMATS[form].header_bytes
    for start in range(0, len(raw), wanted[2]):
        for at in range(start + 1, start + header, 2):
            raw[at] &= 0b10111111  # float16 below 2: neither infinite nor NaN
    packed = PackedWeight(Tensor.from_buffer(raw, "uint8", wanted), form, shape)
    assert ops.unpack(packed).tolist() == values(packed)


@pytest.mark.parametrize("form", FORMATS)
@given(data=st.data(), shape=sizes((1, 37), (1, 90), (1, 12)), threads=THREADS)
def test_unpack_takes_rows_by_index(data, form, shape, threads):
    rows, columns, count = shape
    packed = ops.pack(data.draw(tensors((rows, columns))), form)
    chosen, whole = data.draw(indices(count, rows)), values(packed)
    out = Tensor.full((count, columns), math.nan)
    assert ops.unpack(packed.to(Device("cpu", threads)), chosen, out=out) is out
    assert out.tolist() == [whole[i] for i in chosen.tolist()]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", FLOATS)
@given(data=st.data(), shape=SHAPES)
def test_pack_has_the_same_bits_however_it_is_split(data, kind, form, shape):
    w = data.draw(tensors(shape, kind))
    expected = bits(ops.pack(w.astype("float32").to(Device("cpu", 1)), form).data)
    used = Tensor.full(packed_shape(shape, form), 255, "uint8")  # what was there must not show through
    packed = ops.pack(w.to(Device("cpu", 3)), form, out=used)
    assert packed.data is used and bits(used) == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantized, "ROWS", 16)
        assert bits(ops.pack(w.to(Device("cpu", 2)), form).data) == expected


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (5, 32), (17, 33), (16, 64), (33, 97)])
def test_missing_rows_and_groups_are_zero(form, rows, columns):
    packed = ops.pack(Tensor.full((rows, columns), 3.0), form)
    blocks = packed.data.shape[0]
    whole = reference.unpack(bits(packed.data), 16 * blocks, columns, form)
    for r, row in enumerate(whole):
        for g, group in enumerate(row):
            if r >= rows or 32 * g >= columns:
                assert (group.scale, group.minimum, set(group.stored)) == (0.0, 0.0, {0})
            else:
                assert group.weights == pytest.approx([3.0] * 32, rel=2e-3)


KINDS = {
    "normal": lambda s: s.gauss(0.0, 0.02),
    "uniform": lambda s: s.uniform(-1.0, 1.0),
    "heavy": lambda s: s.gauss(0.0, 0.3) ** 3,
    "one large": lambda s: s.choice((4.0, *[0.001] * 31)) * s.gauss(0.0, 1.0),
    "all positive": lambda s: s.uniform(1.0, 2.0),
    "two values": lambda s: s.choice((1.0, -1.0)),
    "nearly constant": lambda s: 0.7 + s.gauss(0.0, 1e-5),
    "zeros": lambda s: 0.0,
    "some zeros": lambda s: s.choice((0.0, 0.0, s.gauss(0.0, 1.0))),
}
SPARSE = {"one large", "some zeros"}  # two or three numbers may have a common scale far from the largest one's own


def losses(form, group):
    """What packing loses, what the plain scale would, what the best of very many would, and float16's share."""
    (packed,) = reference.unpack(bits(ops.pack(Tensor.from_list([group]), form).data), 1, 32, form)
    lost = reference.loss(group, packed[0].weights)
    if form == "int4_zero_point":
        scale, minimum = reference.plain_line(group)
        plain, best = reference.rounded(group, scale, minimum, 0, 15), reference.least_line_loss(group)
    else:
        scale, minimum, top = reference.plain_scale(group, TOP[form]), 0.0, TOP[form]
        plain, best = reference.rounded(group, scale, 0.0, -top, top - 1), reference.least_loss(group, top)
    # scale and minimum are rounded to eleven bits, or to steps of 6e-8; sums are in float32
    each = (abs(minimum) + 1.2 * TOP[form] * abs(scale)) / 2048 + 3e-8 * (TOP[form] + 1)
    noise = math.sqrt(32 * each**2 + 5e-7 * math.fsum(w * w for w in group))
    return lost, reference.loss(group, plain), best, noise


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=min(settings().max_examples, 40))  # each searches long
@given(kind=st.sampled_from(sorted(KINDS)), seed=st.integers(0, 10**6), size=st.sampled_from((1.0, 1e-5, 1e-7, 3e3)))
def test_pack_loses_little(form, kind, seed, size):
    source = random.Random(seed)
    group = [single(KINDS[kind](source) * size) for _ in range(32)]
    lost, plain, best, noise = losses(form, group)
    assert math.sqrt(lost) <= math.sqrt(plain) + noise, "more than with the largest weight's scale"
    if kind not in SPARSE:
        assert math.sqrt(lost) <= 1.25 * math.sqrt(best) + noise, "more than with the best of many scales"


@pytest.mark.parametrize(
    ("form", "plain_share", "best_share"), [("int8", 0.9, 1.1), ("int4", 0.95, 1.01), ("int4_zero_point", 0.85, 1.1)]
)
def test_pack_is_near_the_best_on_average(form, plain_share, best_share):
    source = random.Random(5)
    found = [losses(form, [single(source.gauss(0.0, 0.02)) for _ in range(32)]) for _ in range(40)]
    lost, plain, best, _ = (math.fsum(column) for column in zip(*found, strict=True))
    assert lost < plain_share * plain and lost < best_share * best


@pytest.mark.parametrize("form", FORMATS)
def test_a_short_last_group_is_packed_as_well_as_a_whole_one(form):
    source = random.Random(2)
    row = [single(source.uniform(1.0, 1.5)) for _ in range(32 + 7)]
    found = ops.unpack(ops.pack(Tensor.from_list([row]), form)).tolist()[0]
    step = 0.5 / 15 if form == "int4_zero_point" else 1.5 / TOP[form]
    assert_close(found[32:], row[32:], absolute=0.75 * step)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, -1e-38, 1e-9, -2e-8])
def test_next_to_nothing_becomes_next_to_nothing(form, value):
    w = Tensor.from_list([[value] * 32 + [1.0] * 32])
    found = ops.unpack(ops.pack(w, form)).tolist()[0]
    assert_close(found, w.tolist()[0], absolute=[3e-8 * 8] * 32 + [1e-3] * 32)


@pytest.mark.parametrize("form", FORMATS)
def test_what_float16_holds_can_be_packed(form):
    row = [65504.0, -65504.0, 40000.0, -3.0] * 8
    found = ops.unpack(ops.pack(Tensor.from_list([row, [-65504.0] * 32]), form)).tolist()
    assert_close(found[0], row, absolute=[0.75 * 131008 / 15] * 32)
    assert_close(found[1], [-65504.0] * 32, relative=1e-3)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("value", [65520.0, -70000.0, 3.4e38, -3.4e38])
@pytest.mark.parametrize("threads", [1, 3])
def test_numbers_beyond_float16_are_refused(form, value, threads):
    rows = [[0.5] * 45 for _ in range(53)]
    rows[38][33] = rows[44][0] = value
    with pytest.raises(NumericalError, match=r"^pack: row 38 of weight holds a number beyond 65504"):
        ops.pack(Tensor.from_list(rows).to(Device("cpu", threads)), form)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantized, "ROWS", 16)
        with pytest.raises(NumericalError, match=r"^pack: row 38 of weight"):
            ops.pack(Tensor.from_list(rows).to(Device("cpu", threads)), form)


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_what_is_not_finite_is_refused(kind, value):
    rows = [[0.5] * 5 for _ in range(3)]
    rows[1][4] = value
    with pytest.raises(NumericalError, match=r"^pack: weight holds NaN or infinity at element 9"):
        ops.pack(Tensor.from_list(rows, kind), "int4")


@pytest.mark.parametrize("form", FORMATS)
@given(data=st.data(), shape=sizes((1, 50), (1, 70)))
def test_first_rows_are_a_view(data, form, shape):
    packed = ops.pack(data.draw(tensors(shape)), form)
    rows = data.draw(st.integers(0, shape[0]))
    some = packed.first(rows)
    assert some.shape == (rows, shape[1]) and some.form is packed.form
    assert some.data.storage is packed.data.storage
    assert ops.unpack(some).tolist() == ops.unpack(packed).tolist()[:rows]


def test_first_refuses_rows_that_are_not_there():
    packed = ops.pack(Tensor.full((5, 3), 1.0), "int4")
    for rows in (6, 16, 17, -1):
        with pytest.raises(TensorError, match=rf"first\({rows}\) of 5 rows, expected 0 to 5"):
            packed.first(rows)


def test_a_packed_weight_describes_itself():
    packed = ops.pack(Tensor.zeros((17, 65)), "int4")
    assert repr(packed) == "PackedWeight(int4, (17, 65))"
    assert packed.nbytes == packed.data.nbytes == 2 * 2 * (64 + 2 * 256)
    for name in FORMATS:
        assert form_of(packed_shape((3, 5), name)) == name
    assert form_of((1, 2)) is None and form_of((1, 1, 7)) is None
    for lose in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TensorError, match="cannot be pickled or copied"):
            lose(packed)


def test_a_packed_weight_refuses_other_data():
    data = Tensor.zeros(packed_shape((20, 70), "int4"), "uint8")
    PackedWeight(data, "int4", (20, 70))
    for shape, form in (((33, 70), "int4"), ((20, 64), "int4"), ((20, 70), "int8"), ((20, 70), "int4_zero_point")):
        with pytest.raises(TensorError, match=r"data is uint8 \(2, 2, 576\), expected contiguous uint8"):
            PackedWeight(data, form, shape)
    with pytest.raises(TensorError, match="data is int8"):
        PackedWeight(Tensor.zeros(data.shape, "int8"), "int4", (20, 70))
    with pytest.raises(TensorError, match="expected contiguous"):
        PackedWeight(Tensor.zeros((2, 2, 1152), "uint8")[:, :, ::2], "int4", (20, 70))
    with pytest.raises(TensorError, match="unknown format 'int3'; known ones are int8, int4, int4_zero_point"):
        PackedWeight(data, "int3", (20, 70))
    with pytest.raises(TensorError, match="expected no negative sizes"):
        PackedWeight(Tensor.zeros((0, 1, 576), "uint8"), "int4", (-3, 20))
    with pytest.raises(TensorError, match="data is a list"):
        PackedWeight([1], "int4", (20, 70))


def test_pack_refuses_what_does_not_fit():
    w = Tensor.zeros((4, 6))
    with pytest.raises(TensorError, match="unknown format 'int5'"):
        ops.pack(w, "int5")
    with pytest.raises(TensorError, match="weight is int32, expected one of float32, float16, bfloat16"):
        ops.pack(w.astype("int32"), "int4")
    with pytest.raises(TensorError, match=r"weight has shape \(6,\)"):
        ops.pack(w[0], "int4")
    with pytest.raises(TensorError, match="weight is a strided view"):
        ops.pack(w.T, "int4")
    with pytest.raises(TensorError, match="out is float32, expected uint8"):
        ops.pack(w, "int4", out=w)
    with pytest.raises(TensorError, match=r"out has shape \(1, 1, 640\), expected \(1, 1, 576\)"):
        ops.pack(w, "int4", out=Tensor.zeros((1, 1, 640), "uint8"))
    with pytest.raises(TensorError, match="out is read-only memory"):
        ops.pack(w, "int4", out=Tensor.from_buffer(bytes(576), "uint8", (1, 1, 576)))
    memory = bytearray(672)
    weight = Tensor.from_buffer(memoryview(memory)[576:], "float32", (4, 6))
    beside, over = (Tensor.from_buffer(memoryview(memory)[n:][:576], "uint8", (1, 1, 576)) for n in (0, 1))
    ops.pack(weight, "int4", out=beside)
    with pytest.raises(TensorError, match="out shares memory with weight"):
        ops.pack(weight, "int4", out=over)


def test_unpack_refuses_what_does_not_fit():
    packed = ops.pack(Tensor.zeros((4, 6)), "int4")
    with pytest.raises(TensorError, match=r"packed is a Tensor, expected a PackedWeight; make one with ops\.pack"):
        ops.unpack(packed.data)
    with pytest.raises(TensorError, match=r"indices\[1\] is 4, expected 0 to 3"):
        ops.unpack(packed, Tensor.from_list([0, 4], "int32"))
    with pytest.raises(TensorError, match="indices is float32, expected int32 or int64"):
        ops.unpack(packed, Tensor.zeros((2,)))
    with pytest.raises(TensorError, match=r"out has shape \(4, 7\), expected \(4, 6\)"):
        ops.unpack(packed, out=Tensor.zeros((4, 7)))
    with pytest.raises(TensorError, match="out is read-only memory"):
        ops.unpack(packed, out=Tensor.from_buffer(bytes(96), "float32", (4, 6)))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
def test_nothing_is_packed_to_nothing(form, shape):
    packed = ops.pack(Tensor.zeros(shape), form)
    assert packed.nbytes == 0 and ops.unpack(packed).shape == shape
