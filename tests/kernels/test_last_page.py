"""Weights lie in mapped files: what ends with the last page must be read to its end and not one byte further."""

import mmap
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pages
import pytest
from processes import environment

from pio import ops
from pio.device import Device
from pio.dtypes import dtype as dtype_of
from pio.ops import PackedWeight
from pio.ops.quantized import record_bytes
from pio.tensor import Tensor
from pio.testing.compare import bits
from pio.testing.strategies import FLOATS


@contextmanager
def at_the_end(x: Tensor) -> Iterator[Tensor]:
    """Lend a copy of x whose last byte is the last of a page; touching the next page kills the process."""
    page = mmap.PAGESIZE
    count = -(-x.nbytes // page)
    memory = mmap.mmap(-1, (count + 1) * page)
    whole = Tensor.from_buffer(memory, "uint8")
    pages.close(whole.address + count * page, page)
    start = count * page - x.nbytes
    try:
        yield Tensor.from_buffer(memoryview(memory)[start : count * page], x.dtype, x.shape).copy_(x)
    finally:
        pages.open_again(whole.address + count * page, page)


def pattern(*shape: int, dtype: str = "float32") -> Tensor:
    count = 1
    for n in shape:
        count *= n
    return Tensor.from_list([float(i % 7 - 3) for i in range(count)], dtype_of(dtype)).reshape(*shape)


X = pattern(3, 37)
READERS = {
    "gather": lambda w: ops.gather(w, Tensor.from_list([4, 0, 4], "int32")),
    "linear": lambda w: ops.linear(X.to(Device("cpu", 1)), w),
    "linear bias": lambda w: ops.linear(pattern(3, 2).to(Device("cpu", 1)), pattern(37, 2, dtype=w.dtype.name), w[4]),
    "matmul": lambda w: ops.matmul(pattern(2, 5).to(Device("cpu", 1)), w),
    "narrow matmul": lambda w: ops.matmul(pattern(2, 37).to(Device("cpu", 1)), w.reshape(37, 5)),
    "rms_norm": lambda w: ops.rms_norm(X, w[4], 1e-6),
    "layer_norm": lambda w: ops.layer_norm(X, w[4], w[4], 1e-6),
    "fused_add_rms_norm": lambda w: ops.fused_add_rms_norm(X, X.clone(), w[4], 1e-6),
    "copy": lambda w: ops.copy(Tensor.zeros((5, 37)), w),
    "copy of columns": lambda w: ops.copy(Tensor.zeros((37, 5), "int8"), w.T),
}


READ = """
import ctypes, mmap, sys
import pages
page = mmap.PAGESIZE
memory = mmap.mmap(-1, 2 * page)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
pages.close(start + page, page)
if sys.argv[1:]:
    pages.open_again(start + page, page)
ctypes.memmove(start, start + page - 1, 1)
print("before", flush=True)
print(ctypes.string_at(start + page, 1), flush=True)
"""


@pytest.mark.parametrize("opened", [False, True])
def test_a_closed_page_cannot_be_read(opened):
    command = [sys.executable, "-c", READ, *["open"] * opened]
    ran = subprocess.run(command, env=environment(Path(__file__).parent), capture_output=True, text=True, check=False)
    assert (ran.returncode == 0, ran.stdout.split()) == (opened, ["before", *["b'\\x00'"] * opened])


@pytest.mark.parametrize("form", ["int8", "int4", "int4_zero_point"])
def test_packed_weights(form):
    packed = ops.pack(pattern(5, 37), form)
    with at_the_end(packed.data) as data:
        mapped = PackedWeight(data, form, (5, 37))
        assert bits(ops.quantized_linear(X, mapped)) == bits(ops.quantized_linear(X, packed))
        assert bits(ops.unpack(mapped)) == bits(ops.unpack(packed))


@pytest.mark.parametrize("form", ["int8", "int4", "int4_zero_point"])
def test_activations_bias_and_results_of_packed_weights(form):
    packed, bias, out = ops.pack(pattern(7, 37), form), pattern(7), Tensor.zeros((3, 7))
    expected = bits(ops.quantized_linear(X, packed, bias))
    scratch = Tensor.zeros((3 * record_bytes(37),), "uint8")
    with at_the_end(X) as x, at_the_end(bias) as b, at_the_end(out) as y, at_the_end(scratch) as records:
        assert bits(ops.quantized_linear(x, packed, b, out=y, scratch=records)) == expected
    weight = pattern(5, 45)
    with at_the_end(weight) as mapped:
        assert bits(ops.pack(mapped, form).data) == bits(ops.pack(weight, form).data)


@pytest.mark.parametrize("k", [1, 31, 32, 37, 64, 66])
def test_inputs_rounded_to_bfloat16(k):
    x, weight, bias, out = pattern(3, k), pattern(5, k, dtype="bfloat16"), pattern(5, dtype="bfloat16"), pattern(3, 5)
    expected = bits(ops.bfloat16_linear(x, weight, bias))
    scratch = Tensor.zeros((3 * -(-k // 32) * 64,), "uint8")
    with at_the_end(x) as xs, at_the_end(weight) as w, at_the_end(bias) as b, at_the_end(out) as y:
        with at_the_end(scratch) as rounded:
            assert bits(ops.bfloat16_linear(xs, w, b, out=y, scratch=rounded)) == expected


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", READERS)
def test_weights(name, dtype):
    w = pattern(5, 37, dtype=dtype)
    with at_the_end(w) as mapped:
        assert bits(READERS[name](mapped)) == bits(READERS[name](w))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n", [1, 31, 37, 64, 255, 289])
def test_a_search(n, dtype):
    with at_the_end(pattern(n, dtype=dtype)) as mapped:
        assert ops.first_non_finite(mapped) is None


@pytest.mark.parametrize("n", [5, 37, 64])
def test_activations_in_place(n):
    functions = [ops.softmax, ops.silu, ops.gelu, lambda x, out: ops.swiglu(x, x, out=out)]
    for function in [*functions, lambda x, out: ops.add(x, x, out=out)]:
        x = pattern(2, n)
        with at_the_end(x) as mapped:
            assert bits(function(mapped, out=mapped)) == bits(function(x, out=x.clone()))


def test_rotation_in_place():
    for interleaved in (False, True):
        x, table = pattern(3, 2, 38), pattern(3, 19)
        with at_the_end(x) as mapped, at_the_end(table) as end:
            found = ops.rope(mapped, end, end, interleaved=interleaved)
            assert bits(found) == bits(ops.rope(x, table, table, interleaved=interleaved))
