"""Operations refuse what is no tensor, and results that lie in memory which is still to be read."""

import inspect

import pytest

import pio
from pio import ops
from pio.tensor import Tensor


def floats(*shape, dtype="float32"):
    size = 1
    for n in shape:
        size *= n
    return Tensor.from_list([0.25 + (7 * i % 11) / 8 for i in range(size)], dtype).reshape(*shape)


def ints(*values):
    return Tensor.from_list(list(values), "int32")


def chosen():
    """Two of four experts for each of three tokens."""
    return ops.route(floats(3, 4), out=ops.Choices.empty(3, 2, 4))


# The arguments of each operation that are tensors, such that it runs, with an `out` for those that take one.
GIVEN = {
    "absorbed_weights": lambda: {"weight": floats(14, 5), "heads": 2, "key_dim": 3, "value_dim": 4},
    "add": lambda: {"x": floats(3, 5), "y": floats(3, 5), "out": floats(3, 5)},
    "add_choices": lambda: {
        "out": floats(3, 5),
        "y": floats(6, 5),
        "places": chosen().places,
        "weights": chosen().weights,
    },
    "bfloat16_linear": lambda: {
        "x": floats(3, 5),
        "weight": floats(2, 5, dtype="bfloat16"),
        "bias": floats(2, dtype="bfloat16"),
        "out": floats(3, 2),
        "scratch": Tensor.zeros((3 * 64,), "uint8"),
    },
    "commit_delta": lambda: {
        "state": floats(1, 2, 1, 5, 32),
        "learned": floats(1, 2, 1, 3, 32),
        "keys": floats(1, 1, 3, 5),
        "decay": floats(1, 2, 3),
        "first": 1,
        "tokens": 2,
    },
    "commit_inputs": lambda: {"state": floats(1, 2, 5), "window": floats(1, 5, 5), "first": 1, "tokens": 2},
    "conv1d": lambda: {"x": floats(2, 5), "weight": floats(3, 2, 4), "bias": floats(3), "out": floats(3, 2)},
    "conv2d": lambda: {"x": floats(2, 5, 6), "weight": floats(3, 2, 4, 4), "bias": floats(3), "out": floats(3, 2, 3)},
    "copy": lambda: {"dst": floats(3, 5), "src": floats(3, 5)},
    "delta_gates": lambda: {
        "b": floats(3, 5),
        "a": floats(3, 5),
        "a_log": floats(5),
        "dt_bias": floats(5),
        "out_beta": floats(3, 5),
        "out_decay": floats(3, 5),
    },
    "expert_linears": lambda: {
        "x": floats(3, 5),
        "choices": chosen(),
        "weights": [ops.ExpertWeights([floats(2, 5)] * 4)],
        "outs": [floats(6, 2)],
        "scratch": Tensor.zeros((9 * 20,), "uint8"),
    },
    "first_non_finite": lambda: {"t": floats(3, 5)},
    "fused_add_rms_norm": lambda: {
        "x": floats(3, 5),
        "residual": floats(3, 5),
        "weight": floats(5),
        "eps": 1e-6,
        "out": floats(3, 5),
    },
    "gated_rms_norm": lambda: {
        "x": floats(3, 5),
        "gate": floats(3, 5),
        "weight": floats(5),
        "eps": 1e-6,
        "out": floats(3, 5),
    },
    "gather": lambda: {"table": floats(4, 5), "indices": ints(3, 0), "out": floats(2, 5)},
    "gather_by_value": lambda: {"x": floats(2, 5), "keys": ints(3, 0), "value": 3},
    "gelu": lambda: {"x": floats(3, 5), "out": floats(3, 5)},
    "head_linear": lambda: {
        "x": floats(3, 2, 5),
        "weight": ops.pack_heads(floats(2, 4, 5), "int8"),
        "out": floats(3, 2, 4),
        "scratch": Tensor.zeros((576,), "uint8"),
    },
    "image_patches": lambda: {
        "frames": Tensor.zeros((1, 2, 2, 3), "uint8"),
        "grid": (1, 2, 2),
        "patch": 1,
        "temporal": 2,
        "merge": 2,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "out": floats(4, 6),
    },
    "image_resize": lambda: {"image": floats(3, 4, 2), "height": 5, "width": 6, "out": floats(5, 6, 2)},
    "image_rgb": lambda: {"image": Tensor.zeros((3, 4, 1), "uint8"), "out": Tensor.zeros((3, 4, 3), "uint8")},
    "layer_norm": lambda: {"x": floats(3, 5), "weight": floats(5), "bias": floats(5), "eps": 0.0, "out": floats(3, 5)},
    "linear": lambda: {"x": floats(3, 5), "weight": floats(2, 5), "bias": floats(2), "out": floats(3, 2)},
    "matmul": lambda: {"a": floats(3, 5), "b": floats(5, 2), "out": floats(3, 2)},
    "mul": lambda: {"x": floats(3, 5), "y": floats(3, 5), "out": floats(3, 5)},
    "pack": lambda: {"weight": floats(3, 5), "form": "int4", "out": Tensor.zeros((1, 1, 576), "uint8")},
    "pack_heads": lambda: {"weight": floats(2, 3, 5), "form": "int4"},
    "quantized_linear": lambda: {
        "x": floats(3, 5),
        "weight": ops.pack(floats(2, 5), "int8"),
        "bias": floats(2),
        "out": floats(3, 2),
        "scratch": Tensor.zeros((288,), "uint8"),
    },
    "add_gated": lambda: {"out": floats(3, 5), "y": floats(3, 5), "x": floats(3, 4), "weight": floats(1, 4)},
    "add_grid_embedding": lambda: {"x": floats(4, 5), "table": floats(9, 5), "grid": (2, 2)},
    "add_rows": lambda: {"out": floats(3, 5), "rows": Tensor.zeros((3,), "int64")},
    "place_rows": lambda: {"out": floats(3, 5), "rows": Tensor.zeros((3,), "int64")},
    "qk_norm_rope": lambda: {
        "q": floats(3, 2, 4),
        "k": floats(3, 1, 4),
        "cos": floats(3, 2),
        "sin": floats(3, 2),
        "out_q": floats(3, 2, 4),
    },
    "rms_norm": lambda: {"x": floats(3, 5), "weight": floats(5), "eps": 1e-6, "out": floats(3, 5)},
    "rope": lambda: {"x": floats(3, 2, 4), "cos": floats(3, 2), "sin": floats(3, 2)},
    "rope_table": lambda: {
        "positions": ints(0, 1, 5),
        "inv_freq": floats(2),
        "axes": None,
        "out_cos": floats(3, 2),
        "out_sin": floats(3, 2),
    },
    "route": lambda: {
        "logits": floats(3, 4),
        "out": ops.Choices.empty(3, 2, 4),
        "bias": floats(4),
        "scratch": Tensor.zeros((1, 6)),
    },
    "scaled_dot_product_attention": lambda: {"q": floats(3, 2, 4), "k": floats(5, 1, 4), "v": floats(5, 1, 4)},
    "scatter_add": lambda: {"out": floats(4, 5), "indices": ints(3, 0), "values": floats(2, 5)},
    "scatter_add_by_index": lambda: {
        "out": floats(4, 5),
        "indices": ints(3, 0),
        "rows": floats(2, 5),
        "scales": floats(2),
    },
    "sigmoid_gate": lambda: {"x": floats(3, 5), "gate": floats(3, 5), "out": floats(3, 5)},
    "silu": lambda: {"x": floats(3, 5), "out": floats(3, 5)},
    "softmax": lambda: {"x": floats(3, 5), "out": floats(3, 5)},
    "swiglu": lambda: {"gate": floats(3, 5), "up": floats(3, 5), "out": floats(3, 5)},
    "top_k": lambda: {"x": floats(3, 5), "k": 2},
    "unpack": lambda: {"packed": ops.pack(floats(4, 5), "int4"), "indices": ints(3, 0), "out": floats(2, 5)},
}
CASES = [(op, name) for op, make in GIVEN.items() for name, x in make().items() if isinstance(x, Tensor)]
# Lists of tensors, the caches of a batch, which models write, and what is no operation.
ELSEWHERE = {"attention_scratch", "bfloat16_linears", "linears", "paged_attention", "quantized_linears", "write_cache"}
ELSEWHERE |= {"Choices", "ExpertWeights", "PackedWeight", "Pages", "Program", "Window", "host_call", "recording"}
ELSEWHERE |= {"causal_conv", "gated_delta"}
ELSEWHERE |= {"latent_attention", "latent_scratch", "write_latent_cache"}


def test_every_operation_is_here():
    assert GIVEN.keys() | ELSEWHERE == set(ops.__all__)


@pytest.mark.parametrize("op", GIVEN)
def test_the_arguments_fit(op):
    getattr(ops, op)(**GIVEN[op]())
    outs = [name for name in inspect.signature(getattr(ops, op)).parameters if name.startswith("out")]
    assert set(outs) <= GIVEN[op]().keys()


@pytest.mark.parametrize("wrong", [[1.0], 3.0, memoryview(b"abcd")], ids=["list", "number", "buffer"])
@pytest.mark.parametrize(("op", "name"), CASES)
def test_what_is_no_tensor_is_named(op, name, wrong):
    given = GIVEN[op]() | {name: wrong}
    with pytest.raises(pio.TensorError, match=rf"^{op}: {name} is a {type(wrong).__name__}, expected a pio.Tensor"):
        getattr(ops, op)(**given)


def test_lists_of_tensors_hold_tensors():
    x, weight, out = floats(3, 5), floats(2, 5), floats(3, 2)
    ops.linears(x, [], [])
    for weights, outs in (([[1.0]], [out]), ([weight], [[1.0]]), ([weight, None], [out, out])):
        with pytest.raises(pio.TensorError, match=r"linears: .* expected a pio.Tensor"):
            ops.linears(x, weights, outs)
    rounded = floats(2, 5, dtype="bfloat16")
    ops.bfloat16_linears(x, [], [])
    for weights, outs in (([[1.0]], [out]), ([rounded], [[1.0]]), ([rounded, None], [out, out])):
        with pytest.raises(pio.TensorError, match=r"bfloat16_linears: .* expected a pio.Tensor"):
            ops.bfloat16_linears(x, weights, outs)
    ops.quantized_linears(x, [], [])
    packed = ops.pack(weight, "int8")
    for weights, outs, wanted in (
        ([weight], [out], "PackedWeight"),
        ([packed, [1.0]], [out, out], "PackedWeight"),
        ([packed], [[1.0]], "pio.Tensor"),
        ([packed], [None], "pio.Tensor"),
    ):
        with pytest.raises(pio.TensorError, match=rf"quantized_linears: .* expected a {wanted}"):
            ops.quantized_linears(x, weights, outs)
    with pytest.raises(pio.TensorError, match=r"linears: out shares memory with x"):
        ops.linears(x, [floats(5, 5)], [x])
    for op, made in (("linears", weight), ("bfloat16_linears", rounded), ("quantized_linears", packed)):
        with pytest.raises(pio.TensorError, match=rf"^{op}: outs\[2\] shares memory with outs\[0\]"):
            getattr(ops, op)(x, [made] * 3, [out, floats(3, 2), out])


APART = [
    ("bfloat16_linear", "out", "x"),
    ("add_choices", "out", "y"),
    ("add_choices", "out", "weights"),
    ("conv1d", "out", "x"),
    ("conv1d", "out", "weight"),
    ("conv1d", "out", "bias"),
    ("conv2d", "out", "x"),
    ("conv2d", "out", "weight"),
    ("conv2d", "out", "bias"),
    ("copy", "dst", "src"),
    ("delta_gates", "out_beta", "b"),
    ("delta_gates", "out_beta", "a"),
    ("delta_gates", "out_beta", "a_log"),
    ("delta_gates", "out_beta", "dt_bias"),
    ("delta_gates", "out_beta", "out_decay"),
    ("delta_gates", "out_decay", "b"),
    ("delta_gates", "out_decay", "a"),
    ("delta_gates", "out_decay", "a_log"),
    ("delta_gates", "out_decay", "dt_bias"),
    ("fused_add_rms_norm", "out", "residual"),
    ("fused_add_rms_norm", "out", "weight"),
    ("fused_add_rms_norm", "residual", "weight"),
    ("gated_rms_norm", "out", "weight"),
    ("gather", "out", "table"),
    ("head_linear", "out", "x"),
    ("image_resize", "out", "image"),
    ("layer_norm", "out", "weight"),
    ("layer_norm", "out", "bias"),
    ("linear", "out", "x"),
    ("linear", "out", "weight"),
    ("linear", "out", "bias"),
    ("matmul", "out", "a"),
    ("matmul", "out", "b"),
    ("quantized_linear", "out", "x"),
    ("quantized_linear", "out", "bias"),
    ("qk_norm_rope", "out_q", "k"),
    ("qk_norm_rope", "out_q", "cos"),
    ("qk_norm_rope", "out_q", "sin"),
    ("qk_norm_rope", "k", "q"),
    ("qk_norm_rope", "k", "cos"),
    ("qk_norm_rope", "k", "sin"),
    ("rms_norm", "out", "weight"),
    ("rope", "x", "cos"),
    ("rope", "x", "sin"),
    ("rope_table", "out_cos", "inv_freq"),
    ("rope_table", "out_cos", "out_sin"),
    ("rope_table", "out_sin", "inv_freq"),
    ("scatter_add", "out", "values"),
    ("scatter_add_by_index", "out", "rows"),
    ("scatter_add_by_index", "out", "scales"),
]
SAME = [
    (op, name)
    for op in (
        "add",
        "fused_add_rms_norm",
        "gated_rms_norm",
        "gelu",
        "layer_norm",
        "mul",
        "rms_norm",
        "sigmoid_gate",
        "silu",
        "softmax",
        "swiglu",
    )
    for name in GIVEN[op]()
    if name in ("x", "y", "gate", "up")
]


def beside(one, other, shift):
    """Two tensors of these shapes in one piece of memory, the second so many elements further on."""
    memory = floats(shift + max(one.size, shift + other.size))
    return memory[: one.size].reshape(one.shape), memory[shift : shift + other.size].reshape(other.shape)


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize(("op", "out", "name"), APART)
def test_a_result_must_not_lie_in_an_input(op, out, name, shift):
    given = GIVEN[op]()
    given[out], given[name] = beside(given[out], given[name], shift)
    with pytest.raises(pio.TensorError, match=f"^{op}: {out} shares memory with {name}"):
        getattr(ops, op)(**given)


@pytest.mark.parametrize(("op", "name"), SAME)
def test_a_result_may_be_an_input_but_not_overlap_it(op, name):
    given = GIVEN[op]()
    expected = getattr(ops, op)(**given).tolist()
    given = GIVEN[op]()
    given["out"] = given[name]
    assert getattr(ops, op)(**given).tolist() == expected
    given = GIVEN[op]()
    given["out"], given[name] = beside(given["out"], given[name], 3)
    with pytest.raises(pio.TensorError, match=f"^{op}: out overlaps {name} without being it"):
        getattr(ops, op)(**given)


def test_a_square_matrix_is_not_multiplied_into_itself():
    z = floats(4, 4)
    with pytest.raises(pio.TensorError, match="matmul: out shares memory with a"):
        ops.matmul(z, z, out=z)


def test_columns_of_the_same_rows_lie_beside_each_other():
    fused = floats(3, 15)
    gate, up, out = fused[:, :5], fused[:, 5:10], fused[:, 10:]
    expected = ops.swiglu(gate.clone(), up.clone()).tolist()
    assert ops.swiglu(gate, up, out=out).tolist() == expected
    assert ops.swiglu(gate, up, out=gate).tolist() == expected
    with pytest.raises(pio.TensorError, match="out overlaps up"):
        ops.swiglu(gate, up, out=fused[:, 9:14])
    with pytest.raises(pio.TensorError, match="out overlaps gate"):
        ops.swiglu(fused[:2, 5:10], fused[:2, 10:], out=fused.reshape(45)[5:15].reshape(2, 5))
