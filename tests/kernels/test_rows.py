"""The promise behind "same input, same bits": a row's result depends on nothing but the row."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio import ops
from pio.tensor import Tensor
from pio.testing.compare import bits
from pio.testing.strategies import sizes, tensors


def weights(*shape, dtype="bfloat16"):
    source = random.Random(shape[-1])
    count = 1
    for n in shape:
        count *= n
    return Tensor.from_list([source.gauss(0, 1) for _ in range(count)], dtype).reshape(*shape)


def rope(x, threads, interleaved):
    rows, n = x.shape
    table = ops.rope_table(Tensor.full((rows,), 77, "int32"), weights(n // 4, dtype="float32"))
    heads = x.clone().reshape(rows, 2 if n % 2 == 0 else 1, -1)
    return ops.rope(heads, *table, interleaved=interleaved, threads=threads).reshape(rows, n)


OPERATIONS = {
    "rms_norm": lambda x, t: ops.rms_norm(x, weights(x.shape[1]), 1e-6, threads=t),
    "layer_norm": lambda x, t: ops.layer_norm(x, weights(x.shape[1]), weights(x.shape[1]), 1e-6, threads=t),
    "fused_add_rms_norm": lambda x, t: ops.fused_add_rms_norm(x, x.clone(), weights(x.shape[1]), 1e-6, threads=t),
    "softmax": lambda x, t: ops.softmax(x, threads=t),
    "silu": lambda x, t: ops.silu(x, threads=t),
    "gelu": lambda x, t: ops.gelu(x, threads=t),
    "gelu none": lambda x, t: ops.gelu(x, approximate="none", threads=t),
    "swiglu": lambda x, t: ops.swiglu(x, ops.mul(x, x), threads=t),
    "add": lambda x, t: ops.add(x, x, threads=t),
    "rope": lambda x, t: rope(x, t, interleaved=False),
    "rope interleaved": lambda x, t: rope(x, t, interleaved=True),
    "linear": lambda x, t: ops.linear(x, weights(67, x.shape[1]), weights(67), threads=t),
    "linear of float16": lambda x, t: ops.linear(x, weights(9, x.shape[1], dtype="float16"), threads=t),
    "matmul": lambda x, t: ops.matmul(x, weights(x.shape[1], 83), threads=t),
    "narrow matmul": lambda x, t: ops.matmul(x, weights(x.shape[1], 5, dtype="float32"), threads=t),
    "copy": lambda x, t: ops.copy(Tensor.zeros(x.shape, "bfloat16"), x, threads=t),
}


@pytest.mark.parametrize("name", OPERATIONS)
@given(data=st.data(), shape=sizes((1, 14), (4, 150)))
def test_a_row_alone_has_the_bits_it_has_among_others(name, data, shape):
    operation, x = OPERATIONS[name], data.draw(tensors(shape))
    together = [operation(x, threads) for threads in (1, 2, 5)]
    assert bits(together[0]) == bits(together[1]) == bits(together[2]), "bits depend on threads"
    for i in range(shape[0]):
        assert bits(operation(x[i : i + 1], 1)) == bits(together[0][i : i + 1]), f"row {i}"
    first = data.draw(st.integers(0, shape[0] - 1))
    assert bits(operation(x[first:], 2)) == bits(together[0][first:]), "bits depend on the place in the batch"
