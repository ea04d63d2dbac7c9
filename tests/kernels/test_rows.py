"""The promise behind "same input, same bits": a row's result depends on nothing but the row."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pio import ops
from pio.device import Device
from pio.tensor import Tensor
from pio.testing.compare import bits
from pio.testing.strategies import sizes, tensors


def weights(*shape, dtype="bfloat16"):
    source = random.Random(shape[-1])
    count = 1
    for n in shape:
        count *= n
    return Tensor.from_list([source.gauss(0, 1) for _ in range(count)], dtype).reshape(*shape)


def packed(rows, columns, form):
    return ops.pack(weights(rows, columns), form)


def rope(x, interleaved):
    rows, n = x.shape
    table = ops.rope_table(Tensor.full((rows,), 77, "int32"), weights(n // 4, dtype="float32"))
    heads = x.clone().reshape(rows, 2 if n % 2 == 0 else 1, -1)
    return ops.rope(heads, *table, interleaved=interleaved).reshape(rows, n)


OPERATIONS = {
    "rms_norm": lambda x: ops.rms_norm(x, weights(x.shape[1]), 1e-6),
    "layer_norm": lambda x: ops.layer_norm(x, weights(x.shape[1]), weights(x.shape[1]), 1e-6),
    "fused_add_rms_norm": lambda x: ops.fused_add_rms_norm(x, x.clone(), weights(x.shape[1]), 1e-6),
    "softmax": lambda x: ops.softmax(x),
    "silu": lambda x: ops.silu(x),
    "gelu": lambda x: ops.gelu(x),
    "gelu none": lambda x: ops.gelu(x, approximate="none"),
    "swiglu": lambda x: ops.swiglu(x, ops.mul(x, x)),
    "add": lambda x: ops.add(x, x),
    "rope": lambda x: rope(x, interleaved=False),
    "rope interleaved": lambda x: rope(x, interleaved=True),
    "linear": lambda x: ops.linear(x, weights(67, x.shape[1]), weights(67)),
    "linear of float16": lambda x: ops.linear(x, weights(9, x.shape[1], dtype="float16")),
    "bfloat16_linear": lambda x: ops.bfloat16_linear(x, weights(67, x.shape[1]), weights(67)),
    "quantized_linear": lambda x: ops.quantized_linear(x, packed(67, x.shape[1], "int4")),
    "quantized_linear of int8": lambda x: ops.quantized_linear(
        x, packed(19, x.shape[1], "int8"), weights(19, dtype="float32")
    ),
    "matmul": lambda x: ops.matmul(x, weights(x.shape[1], 83)),
    "narrow matmul": lambda x: ops.matmul(x, weights(x.shape[1], 5, dtype="float32")),
    "copy": lambda x: ops.copy(Tensor.zeros(x.shape, "bfloat16", x.device), x),
}


def guarded(shape):
    """A tensor in the middle of a larger one filled with 7."""
    count = shape[0] * shape[1]
    wide = Tensor.full((count + 64,), 7.0)
    return wide, wide[32 : 32 + count].reshape(*shape)


WRITERS = {
    "rms_norm": lambda x, out: ops.rms_norm(x, weights(x.shape[1]), 1e-6, out=out),
    "layer_norm": lambda x, out: ops.layer_norm(x, weights(x.shape[1]), weights(x.shape[1]), 1e-6, out=out),
    "fused_add_rms_norm": lambda x, out: ops.fused_add_rms_norm(x, x.clone(), weights(x.shape[1]), 1e-6, out=out),
    "softmax": lambda x, out: ops.softmax(x, out=out),
    "silu": lambda x, out: ops.silu(x, out=out),
    "gelu": lambda x, out: ops.gelu(x, out=out),
    "gelu none": lambda x, out: ops.gelu(x, approximate="none", out=out),
    "swiglu": lambda x, out: ops.swiglu(x, x, out=out),
    "add": lambda x, out: ops.add(x, x, out=out),
    "mul": lambda x, out: ops.mul(x, x, out=out),
    "linear": lambda x, out: ops.linear(x, weights(out.shape[1], x.shape[1]), weights(out.shape[1]), out=out),
    "bfloat16_linear": lambda x, out: ops.bfloat16_linear(
        x, weights(out.shape[1], x.shape[1]), weights(out.shape[1]), out=out
    ),
    "quantized_linear": lambda x, out: ops.quantized_linear(
        x, packed(out.shape[1], x.shape[1], "int4_zero_point"), weights(out.shape[1], dtype="float32"), out=out
    ),
    "unpack": lambda x, out: ops.unpack(ops.pack(x, "int4"), out=out),
    "matmul": lambda x, out: ops.matmul(x, weights(x.shape[1], out.shape[1]), out=out),
    "gather": lambda x, out: ops.gather(x, Tensor.from_list(list(range(x.shape[0])), "int32"), out=out),
    "scatter_add": lambda x, out: ops.scatter_add(out, Tensor.from_list(list(range(x.shape[0])), "int32"), x),
    "rope": lambda x, out: ops.rope(
        out.reshape(len(x), 1, -1), *[weights(len(x), x.shape[1] // 2, dtype="float32")] * 2
    ),
    "copy": lambda x, out: ops.copy(out, x),
}


@pytest.mark.parametrize("shape", [(3, 5), (2, 16), (1, 37), (5, 81)])
@pytest.mark.parametrize("name", WRITERS)
def test_nothing_beside_the_result_is_written(name, shape):
    wide, out = guarded(shape)
    WRITERS[name](weights(*shape, dtype="float32"), out)
    found = wide.tolist()
    assert found[:32] == found[-32:] == [7.0] * 32
    assert bits(out) != bits(Tensor.full(shape, 7.0))


@pytest.mark.parametrize("name", OPERATIONS)
@given(data=st.data(), shape=sizes((1, 14), (4, 150)))
def test_a_row_alone_has_the_bits_it_has_among_others(name, data, shape):
    operation, x = OPERATIONS[name], data.draw(tensors(shape))
    together = [operation(x.to(Device("cpu", threads))) for threads in (1, 2, 5)]
    assert bits(together[0]) == bits(together[1]) == bits(together[2]), "bits depend on threads"
    for i in range(shape[0]):
        assert bits(operation(x[i : i + 1].to(Device("cpu", 1)))) == bits(together[0][i : i + 1]), f"row {i}"
    first = data.draw(st.integers(0, shape[0] - 1))
    assert bits(operation(x[first:].to(Device("cpu", 2)))) == bits(together[0][first:]), (
        "bits depend on the place in the batch"
    )
