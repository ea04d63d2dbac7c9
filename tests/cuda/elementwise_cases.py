"""Arithmetic, activations, norms, positions and copies, as cases."""

from __future__ import annotations

from operation_case import Case, numbers

from pio import ops
from pio.tensor import Tensor
from pio.testing.strategies import FLOATS

OTHERS = ("float16", "bfloat16", "int8", "uint8", "int32", "int64")
CONVERSIONS = (
    *(("float32", dtype) for dtype in OTHERS),
    *((dtype, "float32") for dtype in OTHERS),
    ("float16", "bfloat16"),
    ("bfloat16", "float16"),
    ("float16", "int8"),
    ("int64", "float16"),
    ("int8", "int64"),
)
FRACTIONS = [[0.25, -1.5, 300.7], [0.0, 7.5, 65504.0]]
WHOLE = [[0.0, 1.0, 100.0], [3.0, 7.0, 50.0]]


def pair():
    return numbers(3, 70), numbers(3, 70, seed=2)


def norm_arguments(dtype):
    return lambda: (*pair(), numbers(70, seed=3, dtype=dtype))


def fused_add_rms_norm(x, y, w):
    return ops.fused_add_rms_norm(x, y, w, 1e-5), y


CASES = {
    "add": Case(ops.add, pair),
    "mul": Case(ops.mul, pair),
    "silu": Case(ops.silu, lambda: (numbers(3, 70),), 1e-6),
    "gelu_tanh": Case(ops.gelu, lambda: (numbers(3, 70),), 1e-6),
    "gelu": Case(lambda x: ops.gelu(x, approximate="none"), lambda: (numbers(3, 70),), 1e-6),
    "swiglu": Case(lambda x, y: ops.swiglu(x[:, 4:39], y[:, 35:]), pair, 1e-6),
    "sigmoid_gate": Case(ops.sigmoid_gate, lambda: (numbers(3, 2, 36), numbers(3, 2, 36, seed=7)), 1e-6),
    "softmax": Case(ops.softmax, lambda: (numbers(3, 70),), 1e-6),
    "rope": Case(ops.rope, lambda: (numbers(3, 2, 36), numbers(3, 9), numbers(3, 9, seed=2)), 1e-6),
    "rope of queries and keys": Case(
        lambda q, k, cos, sin: (*ops.qk_norm_rope(q[:, :, 4:], k, cos, sin, interleaved=True)[1:], q),
        lambda: (numbers(3, 2, 36), numbers(3, 1, 32, seed=3), numbers(3, 9), numbers(3, 9, seed=2)),
        1e-6,
    ),
    "rope_table": Case(
        ops.rope_table,
        lambda: (Tensor.from_list([0, 5, 700], "int32"), Tensor.from_list([1.0, 0.25, 0.01])),
        1e-6,
    ),
    "copy of a view": Case(lambda x: x[:, ::2].clone(), lambda: (numbers(300, 3),)),
}
for dtype in FLOATS:
    CASES |= {
        f"rms_norm {dtype}": Case(
            lambda x, w: ops.rms_norm(x, w, 1e-5),
            lambda dtype=dtype: (numbers(3, 70), numbers(70, seed=3, dtype=dtype)),
            1e-6,
        ),
        f"fused_add_rms_norm {dtype}": Case(fused_add_rms_norm, norm_arguments(dtype), 1e-6),
        f"gated_rms_norm {dtype}": Case(lambda x, y, w: ops.gated_rms_norm(x, y, w, 1e-5), norm_arguments(dtype), 1e-6),
        f"qk_norm_rope {dtype}": Case(
            lambda q, k, cos, sin, *norms: ops.qk_norm_rope(q, k, cos, sin, norms=norms, eps=1e-5),
            lambda dtype=dtype: (
                *(numbers(3, heads, 36, seed=heads) for heads in (4, 2)),
                *(numbers(3, 9, seed=seed) for seed in (5, 6)),
                *(numbers(36, seed=seed, dtype=dtype) for seed in (7, 8)),
            ),
            1e-6,
        ),
        f"add_gated {dtype}": Case(
            ops.add_gated,
            lambda dtype=dtype: (*pair(), numbers(3, 40, seed=5), numbers(1, 40, seed=6, dtype=dtype)),
            1e-6,
        ),
        f"layer_norm {dtype}": Case(
            lambda x, w, b: ops.layer_norm(x, w, b, 1e-5),
            lambda dtype=dtype: (numbers(3, 70), numbers(70, dtype=dtype), numbers(70, seed=8, dtype=dtype)),
            1e-6,
        ),
    }
for source, target in CONVERSIONS:
    values = FRACTIONS if source in FLOATS else WHOLE
    CASES[f"{source} as {target}"] = Case(
        lambda x, target=target: x.astype(target),
        lambda values=values, source=source: (Tensor.from_list(values).astype(source),),
    )
