"""Tensors: construction, views against nested lists, numbers and copies."""

import copy
import gc
import math
import pickle
import struct
from array import array
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio import dtypes
from pio.dtypes import bfloat16, float16, float32, int8, int32, int64, uint8
from pio.errors import ConfigError, TensorError
from pio.memory import layout
from pio.memory.allocation import allocated_bytes
from pio.tensor import Tensor, row_major


def settled_bytes():
    gc.collect()  # what earlier tests left in cycles must not vanish during this one
    return allocated_bytes()


# A view in plain Python: a shape, and a function from an index to the value.


def nested(shape, value):
    if not shape:
        return value(())
    return [nested(shape[1:], lambda rest, i=i: value((i, *rest))) for i in range(shape[0])]


def taken(shape, value, key):
    """Index axis by axis; ``key`` has an int or a slice for each of the first axes."""
    picks = [range(n)[k] for n, k in zip(shape, key, strict=False)]
    picks += [range(n) for n in shape[len(key) :]]
    kept = [axis for axis, pick in enumerate(picks) if isinstance(pick, range)]

    def at(index):
        places = list(picks)
        for axis, i in zip(kept, index, strict=True):
            places[axis] = picks[axis][i]
        return value(tuple(places))

    return tuple(len(picks[axis]) for axis in kept), at


def permuted(shape, value, order):
    def at(index):
        places = [0] * len(order)
        for to, axis in enumerate(order):
            places[axis] = index[to]
        return value(tuple(places))

    return tuple(shape[axis] for axis in order), at


def bounds():
    return st.none() | st.integers(-7, 7)


slices = st.builds(slice, bounds(), bounds(), st.sampled_from([None, 1, 2, 3, -1, -2, -3]))
shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)


@st.composite
def views(draw):
    """Return a tensor seen through a chain of views, and the same view in plain Python."""
    shape = draw(shapes)
    start = tensor = Tensor.from_list(list(range(math.prod(shape))), int32).reshape(shape)
    steps = row_major(shape)

    def value(index):
        return sum(i * step for i, step in zip(index, steps, strict=True))

    for _ in range(draw(st.integers(0, 4))):
        if draw(st.booleans()):
            order = draw(st.permutations(range(len(shape))))
            tensor = tensor.transpose(*order)
            shape, value = permuted(shape, value, order)
        else:
            key = tuple(
                draw(slices | st.integers(-n, n - 1) if n else slices)
                for n in shape[: draw(st.integers(0, len(shape)))]
            )
            tensor = tensor[key]
            shape, value = taken(shape, value, key)
    return start, tensor, shape, value


@given(views())
def test_chains_of_views_equal_nested_lists(case):
    start, tensor, shape, value = case
    assert tensor.shape == shape
    assert tensor.tolist() == nested(shape, value)
    assert tensor.storage is start.storage
    assert (tensor.size, tensor.nbytes, tensor.ndim) == (math.prod(shape), 4 * math.prod(shape), len(shape))


@given(views())
def test_every_element_of_a_view_lies_inside_its_storage(case):
    _, tensor, shape, value = case
    places = [
        tensor.address + 4 * sum(i * s for i, s in zip(index, tensor.strides, strict=True))
        for index in product(*map(range, shape))
    ]
    storage = tensor.storage
    assert all(storage.address <= place <= storage.address + storage.nbytes - 4 for place in places)
    low, high = layout.span(shape, tensor.strides)
    if places:
        assert (tensor.address + 4 * low, tensor.address + 4 * high) == (min(places), max(places) + 4)
    in_order = [value(index) for index in product(*map(range, shape))]
    contiguous = not in_order or in_order == list(range(in_order[0], in_order[0] + len(in_order)))
    assert tensor.is_contiguous == contiguous
    offsets = list(layout.offsets(shape, tensor.strides))
    assert [tensor.address + 4 * offset for offset in offsets] == places
    assert [layout.offset_of(i, shape, tensor.strides) for i in range(len(places))] == offsets


def factorings(size):
    """Return shapes with that many elements."""
    found = [(size,), (1, size), (size, 1)]
    for n in range(2, size):
        if size % n == 0:
            found += [(n, size // n), (n, 1, size // n)]
            found += [(n, m, size // n // m) for m in range(2, size // n) if (size // n) % m == 0]
    return found


@given(views(), st.data())
def test_reshape_is_a_view_where_one_exists(case, data):
    np = pytest.importorskip("numpy")
    start, tensor, _, _ = case
    new = data.draw(st.sampled_from(factorings(tensor.size)) if tensor.size else st.sampled_from([(0, 3), (2, 0, 5)]))
    twin = np.from_dlpack(tensor)
    try:
        expected = np.reshape(twin, new, copy=False).tolist()
    except ValueError:
        with pytest.raises(TensorError, match=r"call \.contiguous\(\) first"):
            tensor.reshape(new)
        assert not tensor.is_contiguous
    else:
        out = tensor.reshape(*new)
        assert out.tolist() == expected and out.shape == new
        assert out.storage is start.storage


def test_reshape_infers_one_length():
    tensor = Tensor.from_list(list(range(30)), int64)
    assert tensor.reshape(5, -1, 2).shape == (5, 3, 2)
    assert tensor.reshape([-1]).shape == (30,)
    assert tensor[:1].reshape(()).tolist() == 0
    assert tensor[:1].reshape().shape == ()
    assert Tensor.zeros((0, 7)).reshape(3, -1).shape == (3, 0)
    for bad in [(7, -1), (-1, -1), (4, 7), (-30,), (-2, -15), (0, -1)]:
        with pytest.raises(TensorError, match="30 elements"):
            tensor.reshape(*bad)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (3, "index 3 is out of range for axis 0 with 3 elements"),
        ((0, -6), "index -6 is out of range for axis 1"),
        ((0, 0, 0), "3 indices"),
        ((..., ...), "more than one ellipsis"),
        (None, "found None"),
        (True, "found True"),
        (1.0, r"found 1\.0"),
        ("a", "found 'a'"),
        (slice(None, None, 0), "zero"),
        (slice("a", None), "slice"),
    ],
)
def test_bad_indices_are_refused(key, words):
    with pytest.raises(TensorError, match=words):
        Tensor.zeros((3, 5))[key]


def test_ellipsis_and_iteration():
    tensor = Tensor.from_list([[[1, 2], [3, 4], [5, 6]]], int8)
    assert tensor[..., 1].tolist() == [[2, 4, 6]]
    assert tensor[0, ...].tolist() == [[1, 2], [3, 4], [5, 6]]
    assert tensor[0, ..., ::-1, 0].tolist() == [5, 3, 1]
    assert tensor[0, 1, 1, ...].tolist() == 4
    assert [row.tolist() for row in tensor[0]] == [[1, 2], [3, 4], [5, 6]]
    assert (len(tensor), len(tensor[0])) == (1, 3)
    assert tensor.T.shape == (2, 3, 1) and tensor.transpose(-1, 0, 1).shape == (2, 1, 3)
    with pytest.raises(TensorError, match="no length"):
        len(tensor[0, 0, 0])
    for axes in [(0, 1), (0, 0, 1), (0, 1, 3), (0, 1, -4)]:
        with pytest.raises(TensorError, match="transpose 3 dimensions"):
            tensor.transpose(*axes)


def half_value(bits):
    sign, exponent, fraction = -1 if bits >> 15 else 1, bits >> 10 & 31, bits & 1023
    if exponent == 31:
        return math.nan if fraction else sign * math.inf
    return sign * (fraction / 1024 * 2.0**-14 if exponent == 0 else (1 + fraction / 1024) * 2.0 ** (exponent - 15))


def brain_value(bits):
    sign, exponent, fraction = -1 if bits >> 15 else 1, bits >> 7 & 255, bits & 127
    if exponent == 255:
        return math.nan if fraction else sign * math.inf
    return sign * (fraction / 128 * 2.0**-126 if exponent == 0 else (1 + fraction / 128) * 2.0 ** (exponent - 127))


@pytest.mark.parametrize(
    ("dtype", "value"), [(float16, half_value), (bfloat16, brain_value)], ids=["float16", "bfloat16"]
)
def test_every_16_bit_float_decodes_and_encodes(dtype, value):
    bits = array("H", range(65536))
    numbers = Tensor.from_buffer(bits, dtype).tolist()
    expected = [value(b) for b in bits]
    assert [str(n) for n in numbers] == [str(e) for e in expected]  # signs of zeros too, NaN equal to NaN
    back = Tensor.from_list(numbers, dtype).memoryview().tolist()
    assert all(b == c for b, c, e in zip(bits, back, expected, strict=True) if e == e)
    assert all(value(c) != value(c) for c, e in zip(back, expected, strict=True) if e != e)


def nearest(x, mantissa, low, high):
    """Round by exact fractions: ``mantissa`` bits after the leading one, exponents ``low`` to ``high``."""
    if math.isinf(x) or x == 0:
        return x
    exact = Fraction(x)
    exponent = max(math.frexp(x)[1] - 1, low)
    unit = Fraction(2) ** (exponent - mantissa)
    rounded = round(exact / unit) * unit  # Python rounds ties to even
    if abs(rounded) >= Fraction(2) ** (high + 1):
        return math.copysign(math.inf, x)
    return math.copysign(float(rounded), x)


ties = st.builds(
    lambda m, e, tail: math.ldexp(m + 0.5 + tail, e),
    st.integers(-2048, 2048),
    st.integers(-150, 120),
    st.sampled_from([0.0, 2.0**-40, -(2.0**-40), 2.0**-17, -(2.0**-17)]),
)
reals = st.floats(allow_nan=False) | st.floats(width=32, allow_nan=False) | st.floats(-7e4, 7e4) | ties


@given(st.lists(reals, min_size=1, max_size=7))
def test_floats_are_rounded_once_to_nearest_even(values):
    assert Tensor.from_list(values, bfloat16).tolist() == [nearest(v, 7, -126, 127) for v in values]
    assert Tensor.from_list(values, float16).tolist() == [nearest(v, 10, -14, 15) for v in values]
    assert Tensor.from_list(values, float32).tolist() == [nearest(v, 23, -126, 127) for v in values]


def test_a_nan_stays_a_nan_although_its_low_bits_are_cut():
    signalling = struct.unpack("d", struct.pack("Q", 0x7FF0000000000001))[0]
    for dtype in (bfloat16, float16, float32):
        values = Tensor.from_list([math.nan, signalling, -math.nan], dtype).tolist()
        assert all(math.isnan(v) for v in values)


@pytest.mark.parametrize(
    ("values", "dtype", "words"),
    [
        ([[1, 2], [3]], float32, "ragged list: at depth 1 expected 2 elements, found 1"),
        ([[1, 2], 3], float32, "found the number 3"),
        ([1, [2]], float32, "cannot store"),
        ([[[1]], [[2, 3]]], float32, "depth 2 expected 1 elements, found 2"),
        ([1, "a"], float16, "cannot store these values as float16"),
        ([1, "a"], bfloat16, "cannot store"),
        ([1, None], float32, "cannot store"),
        ([1.5], int32, "cannot store"),
        ([128], int8, "cannot store"),
        ([-1], uint8, "cannot store"),
        ([2**31], int32, "cannot store"),
        ([2**63], int64, "cannot store"),
        ([10**400], float32, "cannot store"),
        ([10**400], float16, "cannot store"),
    ],
)
def test_bad_lists_are_refused(values, dtype, words):
    with pytest.raises(TensorError, match=words):
        Tensor.from_list(values, dtype)


def test_a_list_that_contains_itself_is_refused():
    values = []
    values.append(values)
    with pytest.raises(TensorError, match="64 deep"):
        Tensor.from_list(values)


def test_lists_of_awkward_shapes():
    assert Tensor.from_list([]).shape == (0,)
    assert Tensor.from_list([[], [], []]).shape == (3, 0)
    assert Tensor.from_list(((1, 2, 3), range(3))).tolist() == [[1.0, 2.0, 3.0], [0.0, 1.0, 2.0]]
    assert Tensor.from_list(7, int64).shape == ()
    assert Tensor.from_list([-(2**63), 2**63 - 1], int64).tolist() == [-(2**63), 2**63 - 1]
    assert Tensor.from_list([[2**24 + 1]], "float32").tolist() == [[2.0**24]]
    assert Tensor.zeros((2, 0, 3)).tolist() == [[], []]


def test_shapes_are_checked():
    assert Tensor.zeros(3).shape == (3,)
    for shape, words in [((2, -1), "negative"), ("ab", "sequence of integers"), ((1.5,), "sequence of integers")]:
        with pytest.raises(TensorError, match=words):
            Tensor.empty(shape)
    with pytest.raises(ConfigError, match="float31"):
        Tensor.zeros(3, "float31")


@pytest.mark.parametrize(
    ("code", "dtype"), [("f", float32), ("b", int8), ("B", uint8), ("i", int32), ("q", int64), ("l", int64)]
)
def test_arrays_are_wrapped_in_place(code, dtype):
    source = array(code, [3, 1, 4, 1, 5, 9])
    if source.itemsize != dtype.itemsize:
        pytest.skip("the size of l differs here")
    tensor = Tensor.from_buffer(source, shape=(2, -1))
    assert (tensor.dtype, tensor.shape, tensor.address) == (dtype, (2, 3), source.buffer_info()[0])
    tensor[1, 2].fill_(77)
    assert source[5] == 77
    with pytest.raises(BufferError):
        source.append(1)
    del tensor
    source.append(1)


def test_bytes_are_reinterpreted_in_place():
    source = bytearray(struct.pack("<5f", 1, 2, 3, 4, 5) + b"xyz")
    tensor = Tensor.from_buffer(memoryview(source)[4:20], float32, shape=(2, 2))
    assert tensor.tolist() == [[2.0, 3.0], [4.0, 5.0]]
    unaligned = Tensor.from_buffer(memoryview(b"?" + bytes(source[:20])).toreadonly()[1:], "float32")
    assert unaligned.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0] and unaligned.readonly
    assert Tensor.from_buffer(b"\xff\x01", int8).tolist() == [-1, 1]
    assert Tensor.from_buffer(b"").shape == (0,)
    with pytest.raises(TensorError, match="a buffer of 23 bytes cannot be read as int64 of 8 bytes each"):
        Tensor.from_buffer(source, int64)


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        (array("d", [1]), {}, "format 'd'"),
        (array("H", [1]), {}, "format 'H'"),
        (array("f", [1]), {"dtype": int32}, "not int32"),
        (array("f", [1]), {"dtype": float16}, "only bytes can"),
        (array("d", [1]), {"dtype": float32}, "only bytes can"),
        (memoryview(bytearray(9))[::2], {"dtype": float16}, "with gaps"),
        (array("f", [1, 2]), {"shape": (3,)}, "2 elements"),
        ([1, 2], {}, "list as a buffer"),
    ],
)
def test_unfit_buffers_are_refused(source, options, words):
    with pytest.raises(TensorError, match=words):
        Tensor.from_buffer(source, **options)


def test_strided_buffers_are_wrapped_in_place():
    source = bytearray(range(11))
    tensor = Tensor.from_buffer(memoryview(source)[9:1:-3])
    assert (tensor.tolist(), tensor.strides) == ([9, 6, 3], (-3,))
    tensor[2].fill_(200)
    assert source[3] == 200


def test_numpy_buffers_are_wrapped_in_place():
    np = pytest.importorskip("numpy")
    source = np.arange(42, dtype=np.float16).reshape(6, 7)
    tensor = Tensor.from_buffer(source[::-2, 1:6:2])
    assert (tensor.dtype, tensor.strides) == (float16, (-14, 2))
    assert tensor.tolist() == source[::-2, 1:6:2].tolist()
    tensor[0, 0].fill_(1.5)
    assert source[5, 1] == 1.5
    assert Tensor.from_buffer(np.array(3, dtype=np.int64)).item() == 3
    assert Tensor.from_buffer(np.broadcast_to(np.float32(2), (2, 3))).tolist() == [[2.0] * 3] * 2
    assert np.asarray(Tensor.from_list([[1, 2, 3]]).memoryview()).tolist() == [[1, 2, 3]]
    record = np.zeros(3, dtype=[("a", "i1"), ("b", "i4")])
    with pytest.raises(TensorError, match="multiples of 4"):
        Tensor.from_buffer(record["b"])
    with pytest.raises(TensorError, match=r"format '>[il]'"):
        Tensor.from_buffer(np.zeros(3, dtype=">i4"))


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=str)
def test_memoryviews_share_memory(dtype):
    tensor = Tensor.from_list([[1, 2, 3], [4, 5, 6]], dtype)
    view = tensor[1:].memoryview()
    assert (view.shape, view.format, view.readonly) == ((1, 3), dtype.format, False)
    tensor[1, 2].fill_(0)
    assert view[0, 2] == 0
    assert Tensor.from_buffer(view, dtype).tolist() == [[4, 5, 0]]
    del tensor
    assert view.nbytes == 3 * dtype.itemsize


def test_memoryviews_of_special_shapes():
    assert Tensor.from_list(3).memoryview()[()] == 3.0
    assert Tensor.zeros((3, 0)).memoryview().shape == (0,)
    assert Tensor.from_buffer(b"ab").memoryview().readonly
    with pytest.raises(TensorError, match="contiguous"):
        Tensor.zeros((2, 3)).T.memoryview()


def test_item_and_truth_need_one_element():
    assert Tensor.from_list([[[2.5]]]).item() == 2.5
    assert Tensor.from_list([0.5, -3], bfloat16)[1].item() == -3.0
    assert Tensor.from_list([3])
    assert not Tensor.from_list(0.0)
    for tensor in (Tensor.zeros(2), Tensor.zeros(0)):
        with pytest.raises(TensorError, match="exactly one"):
            tensor.item()
        with pytest.raises(TensorError, match="neither true nor false"):
            bool(tensor)
    assert Tensor.zeros(1) != Tensor.zeros(1)
    assert len({Tensor.zeros(1), Tensor.zeros(1)}) == 2


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (2, 0), (1031,)])
@pytest.mark.parametrize("value", [0, 3, -1])
def test_fill_sets_every_element_and_nothing_else(dtype, shape, value):
    if value < 0 and dtype is uint8:
        value = 255
    around = Tensor.zeros(math.prod(shape) + 2, dtype)
    inside = around[1:-1].reshape(shape)
    assert inside.fill_(value) is inside
    assert around.tolist() == [0] + [value] * math.prod(shape) + [0]
    assert Tensor.full(shape, value, dtype).tolist() == nested(shape, lambda _: value)


def test_fill_walks_strides():
    tensor = Tensor.zeros((3, 5), int32)
    tensor[::-2, 1::3].fill_(7)
    assert tensor.tolist() == [[0, 7, 0, 0, 7], [0, 0, 0, 0, 0], [0, 7, 0, 0, 7]]
    with pytest.raises(TensorError, match="cannot store"):
        tensor.fill_(1.5)


@given(views())
def test_contiguous_and_clone_copy_the_view(case):
    _, tensor, shape, value = case
    made = tensor.contiguous()
    assert (made is tensor) == tensor.is_contiguous
    cloned = tensor.clone()
    assert made.tolist() == cloned.tolist() == nested(shape, value)
    assert cloned.strides == row_major(shape) and cloned.storage is not tensor.storage


@given(views())
def test_copy_into_a_view_changes_only_it(case):
    start, tensor, shape, value = case
    before = start.reshape(-1).tolist() if start.size else []
    source = Tensor.from_list([-1 - i for i in range(tensor.size)], int32).reshape(shape)
    assert tensor.copy_(source) is tensor
    changed = {value(index): -1 - i for i, index in enumerate(product(*map(range, shape)))}
    assert (start.reshape(-1).tolist() if start.size else []) == [changed.get(v, v) for v in before]


def test_copies_may_overlap():
    tensor = Tensor.from_list(list(range(9)), int32)
    tensor[2:].copy_(tensor[:-2])
    assert tensor.tolist() == [0, 1, 0, 1, 2, 3, 4, 5, 6]
    tensor.copy_(tensor[::-1])
    assert tensor.tolist() == [6, 5, 4, 3, 2, 1, 0, 1, 0]
    square = Tensor.from_list([[1, 2, 3], [4, 5, 6], [7, 8, 9]], int8)
    square.copy_(square.T)
    assert square.tolist() == [[1, 4, 7], [2, 5, 8], [3, 6, 9]]


def test_large_strided_copies_use_the_compiled_loop():
    source = Tensor.from_list([[100 * i + j for j in range(37)] for i in range(23)], int32)
    made = source.T.contiguous()  # 851 runs of one element
    assert made.tolist() == [[100 * i + j for i in range(23)] for j in range(37)]


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=str)
def test_conversion_from_float32_and_back(dtype):
    source = Tensor.from_list([[1, 2, 3], [40, 50, 60]])
    made = source[:, ::-1].astype(dtype)
    assert (made.dtype, made.tolist()) == (dtype, [[3, 2, 1], [60, 50, 40]])
    assert made.T.astype("float32").tolist() == [[3, 60], [2, 50], [1, 40]]
    assert source.astype(dtype).contiguous().is_contiguous
    assert source.astype(float32) is source


def test_conversion_in_place_over_the_same_memory():
    source = Tensor.from_list([1.0, 2.0, 3.0, 4.0, 5.0])
    bits = Tensor.from_buffer(source.memoryview().cast("B"), int32)
    bits.copy_(source)
    assert bits.tolist() == [1, 2, 3, 4, 5]


def test_copies_check_shapes_and_access():
    tensor = Tensor.zeros((2, 3))
    with pytest.raises(TensorError, match=r"\(3, 2\) into shape \(2, 3\)"):
        tensor.copy_(tensor.T)
    frozen = Tensor.from_buffer(b"abc")
    for write in (lambda: frozen.fill_(1), lambda: frozen[1:].copy_(Tensor.zeros(2, uint8))):
        with pytest.raises(TensorError, match="read-only"):
            write()
    mine = frozen.clone()
    assert mine.fill_(7).tolist() == [7, 7, 7] and not mine.readonly
    assert frozen.tolist() == [97, 98, 99]


def test_pickling_carries_the_elements():
    before = settled_bytes()
    tensor = Tensor.from_list([[1, 2, 3], [4, 5, 6]], bfloat16)
    for made in (pickle.loads(pickle.dumps(tensor.T)), copy.deepcopy(tensor.T)):
        assert (made.dtype, made.shape, made.tolist()) == (bfloat16, (3, 2), [[1, 4], [2, 5], [3, 6]])
        assert made.storage is not tensor.storage
    assert pickle.loads(pickle.dumps(Tensor.zeros((2, 0)))).shape == (2, 0)
    del tensor, made
    assert allocated_bytes() == before


def test_repr_is_short():
    assert repr(Tensor.from_list([[1.5, 2], [3, -4]])) == "Tensor(float32, shape=(2, 2), [1.5, 2, 3, -4])"
    big = Tensor.full((100000, 1000), 3, int8)[::-1]
    assert repr(big) == "Tensor(int8, shape=(100000, 1000), [3, 3, 3, 3, 3, 3, ...])"
    assert repr(Tensor.zeros((2, 0), bfloat16)) == "Tensor(bfloat16, shape=(2, 0), [])"
    assert repr(Tensor.from_list(7, int64)) == "Tensor(int64, shape=(), [7])"


@pytest.mark.parametrize(
    ("shape", "strides"), [((), ()), ((7,), (1,)), ((2, 3), (3, 1)), ((2, 3, 5, 7), (105, 35, 7, 1)), ((3, 0), (0, 1))]
)
def test_row_major(shape, strides):
    assert row_major(shape) == strides


def test_mathematics_is_delegated():
    a = Tensor.from_list([[1, 2, 3], [4, 5, 6]])
    b = Tensor.from_list([[1, 0, 2, 0, 1], [0, 1, 0, 2, 1], [1, 1, 1, 1, 1]])
    assert (a @ b).tolist() == [[4, 5, 5, 7, 6], [10, 11, 14, 16, 15]]
    assert Tensor.from_list([[0, 0], [5, 5]]).softmax().tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert Tensor.from_list([0, 30.0]).gelu().tolist() == [0.0, 30.0]
