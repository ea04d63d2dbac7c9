"""Matrix products in every format, as cases."""

from __future__ import annotations

from operation_case import Case, numbers

from pio import ops
from pio.kernels._formats import FORMATS
from pio.tensor import Tensor
from pio.testing.strategies import FLOATS

WITHIN = 1e-5


def outs_of(x, weights):
    return [Tensor.empty((x.shape[0], w.shape[0]), device=x.device) for w in weights]


def several(act):
    """Call an operation that computes several layers of one input."""

    def call(x, weights, biases):
        outs = outs_of(x, weights)
        act(x, weights, outs, biases)
        return outs

    return call


def weights_and(dtype, bias_dtype=None):
    """Return rows, two matrices of a type, a bias for the first, and what to add to."""
    kind = bias_dtype or dtype
    weights = [numbers(n, 70, seed=n, dtype=dtype) for n in (37, 5)]
    return numbers(3, 70), weights, [numbers(37, seed=9, dtype=kind), None], numbers(3, 37, seed=4)


def packed(form):
    x, weights, biases, out = weights_and("float32")
    return x, [ops.pack(w, form) for w in weights], biases, out


def first_of(make, count=4):
    """Return the arguments of one layer: rows, matrix, bias and output, or the first of these."""

    def one():
        x, weights, biases, out = make()
        return (x, weights[0], biases[0], out)[:count]

    return one


def adding(act):
    """Call an operation that adds to what is there."""
    return lambda x, w, bias, out: act(x, w, bias, out=out, add=True)


def heads(form, n=19):
    """Return rows of three heads, a part of wider ones, and a matrix for each."""
    weight = numbers(3, n, 40, seed=6, dtype=form if form in FLOATS else "float32")
    return numbers(5, 3, 47), weight if form in FLOATS else ops.pack_heads(weight, form)


def head_linear(x, weight):
    return ops.head_linear(x[:, :, 4:44], weight)


def narrow_head_linear(x, weight):
    out = Tensor.empty((5, 3, 19), device=x.device)
    return ops.head_linear(x[:, :, 4:44], weight, out=out)


def bytes_packed(act, form):
    return lambda w: act(w, form).data


CASES = {
    "bfloat16_linear": Case(ops.bfloat16_linear, first_of(lambda: weights_and("bfloat16"), 2), WITHIN),
    "bfloat16_linear added": Case(adding(ops.bfloat16_linear), first_of(lambda: weights_and("bfloat16")), WITHIN),
    "bfloat16_linears": Case(several(ops.bfloat16_linears), lambda: weights_and("bfloat16")[:3], WITHIN),
}
for dtype in FLOATS:
    CASES |= {
        f"linear {dtype}": Case(ops.linear, first_of(lambda dtype=dtype: weights_and(dtype), 2), WITHIN),
        f"linear added {dtype}": Case(adding(ops.linear), first_of(lambda dtype=dtype: weights_and(dtype)), WITHIN),
        f"linears {dtype}": Case(several(ops.linears), lambda dtype=dtype: weights_and(dtype)[:3], WITHIN),
        f"matmul {dtype}": Case(
            ops.matmul, lambda dtype=dtype: (numbers(5, 70), numbers(70, 37, seed=2, dtype=dtype)), WITHIN
        ),
        f"matmul of a batch {dtype}": Case(
            ops.matmul, lambda dtype=dtype: (numbers(2, 3, 19), numbers(2, 19, 7, seed=2, dtype=dtype)), WITHIN
        ),
    }
for form in FORMATS:
    CASES |= {
        f"quantized_linear {form}": Case(ops.quantized_linear, first_of(lambda form=form: packed(form), 2), WITHIN),
        f"quantized_linear added {form}": Case(
            adding(ops.quantized_linear), first_of(lambda form=form: packed(form)), WITHIN
        ),
        f"quantized_linears {form}": Case(several(ops.quantized_linears), lambda form=form: packed(form)[:3], WITHIN),
        f"pack {form}": Case(bytes_packed(ops.pack, form), lambda: (numbers(37, 70, seed=3),)),
        f"pack_heads {form}": Case(bytes_packed(ops.pack_heads, form), lambda: (numbers(3, 19, 70, seed=3),)),
        f"pack of bfloat16 {form}": Case(
            bytes_packed(ops.pack, form), lambda: (numbers(33, 131, seed=3, dtype="bfloat16"),)
        ),
        f"unpack {form}": Case(ops.unpack, lambda form=form: (ops.pack(numbers(37, 70, seed=5), form),)),
        f"unpack rows {form}": Case(
            ops.unpack,
            lambda form=form: (ops.pack(numbers(37, 70, seed=5), form), Tensor.from_list([36, 0, 17], "int64")),
        ),
        f"head_linear into narrow rows {form}": Case(narrow_head_linear, lambda form=form: heads(form), WITHIN),
    }
for form in (*FLOATS, *FORMATS):
    CASES[f"head_linear {form}"] = Case(head_linear, lambda form=form: heads(form), WITHIN)
