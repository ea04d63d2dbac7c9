"""Every operation whose kernel GPUs have, called as a program calls it, beside the CPU: each argument in its place."""

import math

import pytest

pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

from gpu_case import relative_error

from pio import ops
from pio.errors import DeviceError, TensorError
from pio.kernels import _compilers, _image, launcher
from pio.kernels._image import Name
from pio.kernels.cuda import _kept
from pio.ops import attention, compilation
from pio.ops.head_linear import pack_heads
from pio.ops.slices import Slices
from pio.tensor import Tensor


def numbers(*shape, seed=1, dtype="float32"):
    values = [((i * 7919 + seed * 104729) % 2003 - 1001) / 500 for i in range(math.prod(shape))]
    return Tensor.from_list(values, dtype).reshape(*shape)


def moved(value):
    """Return tensors, and what has some, on the GPU."""
    if isinstance(value, (Tensor, ops.PackedWeight)):
        return value.to("cuda")
    return [moved(each) for each in value] if isinstance(value, list) else value


def close(found, wanted, within):
    """Raise unless the results of both devices agree; several where an operation has several."""
    if isinstance(wanted, Tensor):
        assert found.device == "cuda:0" and found.shape == wanted.shape and found.dtype is wanted.dtype
        if wanted.dtype.is_float:
            assert relative_error(found.to("cpu"), wanted.reshape(-1).tolist()) <= within
        else:
            assert found.tolist() == wanted.tolist()
        return
    for one, other in zip(found, wanted, strict=True):
        close(one, other, within)


def linears(x, weights, biases):
    outs = [Tensor.empty((x.shape[0], w.shape[0]), device=x.device) for w in weights]
    ops.linears(x, weights, outs, biases)
    return outs


def quantized_linears(x, weights):
    outs = [Tensor.empty((x.shape[0], w.shape[0]), device=x.device) for w in weights]
    ops.quantized_linears(x, weights, outs)
    return outs


X, Y, ROW = numbers(3, 70), numbers(3, 70, seed=2), numbers(70, seed=3)
HEADS = numbers(3, 2, 36)
HALF = numbers(70, seed=4, dtype="float16")
W = numbers(37, 70, seed=5, dtype="bfloat16")
IDS = Tensor.from_list([2, 0, 2, 1], "int64")
PICTURE = Tensor.from_list([(i * 37) % 256 for i in range(9 * 11 * 3)], "uint8").reshape(9, 11, 3)

CASES = {
    "add": (lambda x, y: ops.add(x, y), (X, Y), 0),
    "mul": (lambda x, y: ops.mul(x, y), (X, Y), 0),
    "silu": (lambda x: ops.silu(x), (X,), 1e-6),
    "gelu_tanh": (lambda x: ops.gelu(x), (X,), 1e-6),
    "gelu": (lambda x: ops.gelu(x, approximate="none"), (X,), 1e-6),
    "swiglu": (lambda x, y: ops.swiglu(x[:, 4:39], y[:, 35:]), (X, Y), 1e-6),
    "sigmoid_gate": (lambda x, y: ops.sigmoid_gate(x, y), (HEADS, numbers(3, 2, 36, seed=7)), 1e-6),
    "softmax": (lambda x: ops.softmax(x), (X,), 1e-6),
    "rms_norm": (lambda x, w: ops.rms_norm(x, w, 1e-5), (X, HALF), 1e-6),
    "fused_add_rms_norm": (
        lambda x, y, w: (ops.fused_add_rms_norm(x, r := y.clone(), w, 1e-5), r),
        (X, Y, ROW),
        1e-6,
    ),
    "gated_rms_norm": (lambda x, y, w: ops.gated_rms_norm(x, y, w, 1e-5), (X, Y, HALF), 1e-6),
    "layer_norm": (lambda x, w, b: ops.layer_norm(x, w, b, 1e-5), (X, ROW, numbers(70, seed=8)), 1e-6),
    "linear": (lambda x, w: ops.linear(x, w), (X, W), 1e-5),
    "linear with bias": (lambda x, w, b: ops.linear(x, w, b), (X, W, numbers(37, seed=9, dtype="bfloat16")), 1e-5),
    "linears": (linears, (X, [W, numbers(5, 70, dtype="bfloat16")], [None, None]), 1e-5),
    "bfloat16_linear": (lambda x, w: ops.bfloat16_linear(x, w), (X, W), 1e-5),
    "quantized_linear": (lambda x, w: ops.quantized_linear(x, w), (X, ops.pack(W, "int4")), 1e-5),
    "quantized_linears": (
        quantized_linears,
        (X, [ops.pack(W, "int8"), ops.pack(numbers(5, 70, seed=6), "int8")]),
        1e-5,
    ),
    "unpack": (lambda w, i: ops.unpack(w, i), (ops.pack(W, "int8"), IDS), 0),
    "gather": (lambda t, i: ops.gather(t, i), (W, IDS), 0),
    "gather_by_value": (lambda x, k: ops.gather_by_value(x, k, 2), (numbers(4, 9), IDS), 0),
    "scatter_add": (lambda o, i, v: ops.scatter_add(o.clone(), i, v), (X, IDS, numbers(4, 70, seed=3)), 1e-6),
    "top_k": (lambda x: ops.top_k(x, 5), (numbers(3, 150),), 0),
    "copy": (lambda x: x[:, ::2].clone(), (numbers(300, 3),), 0),
    "astype": (lambda x: x.astype("bfloat16"), (X,), 0),
    "rope_table": (
        lambda p, f: ops.rope_table(p, f),
        (Tensor.from_list([0, 5, 700], "int32"), Tensor.from_list([1.0, 0.25, 0.01])),
        1e-6,
    ),
    "rope": (lambda x, c, s: ops.rope(x.clone(), c, s), (HEADS, numbers(3, 9), numbers(3, 9, seed=2)), 1e-6),
    "conv2d": (
        lambda x, w, b: ops.conv2d(x, w, b, padding=1, stride=2),
        (numbers(3, 7, 9), numbers(4, 3, 3, 2, seed=2), numbers(4, seed=3)),
        1e-5,
    ),
    "add_grid_embedding": (
        lambda x, t: ops.add_grid_embedding(x.clone(), t, (2, 4), merge=2),
        (numbers(8, 6), numbers(9, 6, seed=2)),
        1e-5,
    ),
    "image_rgb": (lambda x: ops.image_rgb(x), (PICTURE[:, :, :1].contiguous(),), 0),
    "image_rgb of floats": (lambda x: ops.image_rgb(x), (Tensor.full((2, 3, 3), 0.5),), 0),
    "image_resize": (lambda x: ops.image_resize(x, 5, 7), (PICTURE,), 0),
    "scaled_dot_product_attention": (
        lambda q, k, v: ops.scaled_dot_product_attention(q, k, v),
        (numbers(2, 2, 4), numbers(3, 1, 4, seed=2), numbers(3, 1, 4, seed=3)),
        1e-3,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_operation(driver, name):
    act, values, within = CASES[name]
    wanted = act(*values)
    close(act(*moved(list(values))), wanted, within)


def test_a_batch_is_sent_to_the_gpu(driver):
    """Positions and blocks of two sequences are written here and read there, each time when they are sent."""
    k, v = numbers(3, 1, 16), numbers(3, 1, 16, seed=2)
    kind, key_shape, value_shape = attention.cache_layout("float32", 3, 1, 16)
    kept = []
    for device in ("cpu", "cuda"):
        batch = Slices(2, 2, device=k.to(device).device)
        keys, values = Tensor.zeros(key_shape, kind, device), Tensor.zeros(value_shape, kind, device)
        scratch = attention.attention_scratch(16, k.to(device).device)
        for blocks in ([[2], [0]], [[1], [2]]):
            batch.begin()
            batch.append(2, 5, blocks[0])
            batch.append(1, 0, blocks[1])
            batch.send()
            attention.write_cache(keys, values, k.to(device), v.to(device), batch, scratch)
        kept.append((keys.tolist(), values.tolist()))
    assert kept[0] == kept[1]
    with pytest.raises(DeviceError, match="write_cache: keys lies on cuda:0 and batch on cpu"):
        attention.write_cache(keys, values, k.to("cuda"), v.to("cuda"), Slices(1, 1), scratch)


def test_an_index_out_of_range_is_found_before_it_is_read(driver):
    table = numbers(4, 6).to("cuda")
    with pytest.raises(TensorError, match=r"gather: indices\[1\] is 4, expected 0 to 3"):
        ops.gather(table, Tensor.from_list([3, 4, -1], "int32", "cuda"))
    with pytest.raises(TensorError, match=r"scatter_add: indices\[0\] is 2, expected 0 to 1"):
        ops.scatter_add(Tensor.zeros((2, 2), device="cuda"), IDS.to("cuda"), Tensor.zeros((4, 2), device="cuda"))


def test_a_kernel_is_kept_and_found_without_the_compiler(driver, monkeypatch):
    name = Name("pio.kernels.cuda.norm", "rms_norm", "float32")
    made = _kept.find(name, "compute_90a")
    monkeypatch.setattr(_kept, "_compile", None)
    assert _kept.find(name, "compute_90a") == made and b".target sm_90a" in made.code
    assert made.letters == "qqqqqqqqdq" and made.block in (128, 256, 512)


def test_kernels_are_listed_and_compiled_by_other_processes(driver, tmp_path, monkeypatch):
    folder = tmp_path / "pio" / "kernels" / _image.source_stamp()
    folder.mkdir(parents=True, mode=0o700)
    monkeypatch.setattr(_image, "cache_folder", lambda: folder)
    x = numbers(3, 5).to("cuda")
    with compilation.listing() as listed:
        assert ops.add(x, x).tolist() == [[0] * 5] * 3  # nothing runs
    name = Name("pio.kernels.cuda.elementwise", "add")
    assert [kernel.source.name for kernel in listed] == [(*name, "compute_90a")]
    assert not listed[0].source.is_kept()
    _compilers.compile_missing(listed, 1)
    assert listed[0].source.is_kept()
    monkeypatch.setattr(_kept, "_compile", None)
    with compilation.listing() as listed:
        ops.add(x, x)
    assert listed == []
    assert ops.add(x, x).tolist() == [[2 * v for v in row] for row in x.tolist()]


def test_pack_heads_needs_the_cpu(driver):
    assert launcher.module("norm").on(Tensor.zeros(1).device) is not None
    with pytest.raises(DeviceError):
        pack_heads(numbers(1, 2, 32).to("cuda"), "int8")
