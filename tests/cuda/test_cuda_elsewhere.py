"""Operations whose kernel a GPU does not have: on the CPU, over copies, with the CPU's bits, in recorded steps too."""

import ast
import inspect
import logging
from pathlib import Path

import pytest

pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

from operation_cases import CASES, There, integers, numbers

from pio import ops
from pio.device import CUDA_KERNELS, Device, default_device
from pio.errors import DeviceError, OutOfMemoryError, RecordingError, TensorError
from pio.kernels import launcher
from pio.kernels.cuda import _kept
from pio.ops import _elsewhere, attention, compilation
from pio.ops.sampling import Choice, Sampler
from pio.tensor import Tensor

# These make memory, or call other operations, and no kernel
ALONE = {"absorbed_weights", "attention_scratch", "latent_scratch", "scaled_dot_product_attention"}


def said(value):
    """Return what is to be equal on both devices, to the bit: NaN too."""
    if isinstance(value, ops.PackedWeight):
        return value.form.name, value.shape, said(value.data)
    if not isinstance(value, Tensor):
        return value
    here = value.to("cpu").contiguous()
    return here.dtype.name, here.shape, here.memoryview().tobytes()


@pytest.mark.parametrize("name", CASES)
def test_an_operation_gives_what_the_cpu_gives(driver, name):
    wanted = [said(value) for value in CASES[name](There(default_device()))]
    there = Device("cuda").without(*CUDA_KERNELS)
    found = list(CASES[name](There(there)))
    assert [said(value) for value in found] == wanted
    assert "launch" not in driver.calls
    assert all(value.device is there for value in found if isinstance(value, Tensor))


def test_every_operation_is_among_them(driver, monkeypatch):
    """Each function that the package offers and that calls kernels finds the way to the CPU, and has a case."""
    went, go = set(), _elsewhere._on_cpu
    monkeypatch.setattr(_elsewhere, "_on_cpu", lambda f, *rest: (went.add(f.__name__), go(f, *rest))[1])
    there = Device("cuda").without(*CUDA_KERNELS)
    for case in CASES.values():
        list(case(There(there)))
    covered = {name for name in ops.__all__ if hasattr(getattr(ops, name), "__wrapped__")} - {"recording"}
    assert covered - ALONE == went & covered
    modules = set(Path(ops.__file__).parent.glob("[a-z]*.py"))
    for source in modules - {Path(ops.__file__).with_name("roofline.py")}:  # which measures a device, and no other
        for node in ast.parse(source.read_text()).body:
            calls = isinstance(node, ast.FunctionDef) and ".on(" in ast.unparse(node)
            if calls and not node.name.startswith("_"):
                assert node.name in covered | {"multiply", "check_indices"}, f"{source.name}: {node.name}"


def test_every_name_is_that_of_kernels_that_operations_call():
    switches = set()
    for source in Path(ops.__file__).parent.glob("*.py"):
        module = inspect.getmodulename(str(source))
        found = vars(__import__(f"pio.ops.{module}", fromlist=["*"])) if module != "__init__" else {}
        switches |= {value._switch for value in found.values() if isinstance(value, launcher.Module)}
    assert sorted(switches - {"roofline", "_quantized_full_attention"}) == list(CUDA_KERNELS)  # these are the CPU's own


def test_one_switch_leaves_the_others(driver):
    there = Device("cuda").without("norm")
    x, w = There(there)(numbers(3, 70)), There(there)(numbers(70, seed=3))
    ops.rms_norm(x, w, 1e-5)
    assert "launch" not in driver.calls
    ops.add(x, x)
    assert driver.calls.count("launch") == 1
    ops.rms_norm(x.to(Device("cuda")), w.to(Device("cuda")), 1e-5)  # the same memory, as another model has it
    assert driver.calls.count("launch") == 2


def test_a_device_without_kernels():
    with pytest.raises(DeviceError, match="'cpu' has no kernels of a GPU"):
        default_device().without("norm")
    assert default_device().without() is default_device()


def test_a_device_without_kernels_is_a_device(driver):
    import pickle

    there = Device("cuda").without("norm", "rope")
    assert there == Device("cuda") == "cuda:0" and there is not Device("cuda")
    assert there is Device("cuda").without("rope").without("norm") and there.stream is Device("cuda").stream
    assert pickle.loads(pickle.dumps(there)) is there
    with pytest.raises(DeviceError, match="no kernels of a GPU named 'attenton'; did you mean 'attention'"):
        Device("cuda").without("attenton")


def test_a_recorded_step(driver):
    """Launches before and behind what runs on the CPU, in order, each time with what memory holds then."""
    there = Device("cuda").without("norm", "gather")
    table, indices = There(there)(numbers(4, 6)), There(there)(integers(1, 3))
    weight, rows = There(there)(numbers(6, seed=2)), Tensor.zeros((2, 6), device=there)

    def step(table, indices, weight, rows):
        ops.gather(table, indices, out=rows)
        ops.add(rows, rows, out=rows)
        ops.rms_norm(rows, weight, 1e-5, out=rows)
        ops.mul(rows, rows, out=rows)

    with ops.recording() as program:
        step(table, indices, weight, rows)
    for ids in ([0, 2], [3, 3]):
        indices.copy_(Tensor.from_list(ids, "int32"))
        before = driver.calls.count("run_graph")
        program.run()
        assert driver.calls.count("run_graph") == before + 2  # what is between is Python
        wanted = Tensor.zeros((2, 6))
        step(numbers(4, 6), Tensor.from_list(ids, "int32"), numbers(6, seed=2), wanted)
        assert rows.tolist() == wanted.tolist()
    indices.copy_(Tensor.from_list([0, 4], "int32"))
    with pytest.raises(TensorError, match=r"gather: indices\[1\] is 4, expected 0 to 3"):
        program.run()
    indices.copy_(Tensor.from_list([0, 1], "int32"))
    program.run()
    table.storage.free()
    with pytest.raises(RecordingError, match="freed"):
        program.run()


def test_a_recorded_step_makes_no_memory(driver):
    there = Device("cuda").without("norm", "packing")
    x = There(there)(numbers(3, 6))
    with (
        ops.recording(),
        pytest.raises(RecordingError, match=r"ops.rms_norm makes.*test_cuda_elsewhere.*give out="),
    ):
        ops.rms_norm(x, x[0], 1e-5)


def test_what_shares_memory_shares_it_in_the_copy(driver):
    """Values lie beside gates in the same rows, and only the values are written."""
    both = There(Device("cuda").without("activation"))(numbers(5, 3, 8))
    here = numbers(5, 3, 8)
    for x in (both, here):
        ops.sigmoid_gate(x[:, 0, :4], x[:, 2, 4:], out=x[:, 0, :4])
    assert both.tolist() == here.tolist()


def test_only_what_is_used_is_copied(driver, monkeypatch):
    """Of a cache the batch's blocks, of experts those that were chosen; the rest is neither read nor written."""
    copied, copy_in, copy_out = [], driver.copy_in, driver.copy_out
    monkeypatch.setattr(driver, "copy_in", lambda *at: (copied.append(at[2]), copy_in(*at)))
    monkeypatch.setattr(driver, "copy_out", lambda *at: (copied.append(at[2]), copy_out(*at)))
    there = There(Device("cuda").without("attention", "experts", "gather", "packing"))
    kind, *shapes = attention.cache_layout("float32", 4000, 1, 16)
    keys, values = (Tensor.full(shape, 3.0, kind, there.device) for shape in shapes)
    batch, scratch = there.batch((3, 0, [3998], 0, False)), ops.attention_scratch(16, there.device)
    k, v = there.numbers(3, 1, 16), there.numbers(3, 1, 16, seed=2)
    copied.clear()
    ops.write_cache(keys, values, k, v, batch, scratch)
    ops.paged_attention(k, keys, values, batch, scratch, out=there.empty(3, 1, 16))
    assert sum(copied) < 40_000 < keys.nbytes // 100
    assert keys[:3998].to("cpu").tolist() == Tensor.full(keys[:3998].shape, 3.0).tolist()
    assert values[3998, 0, :3].to("cpu").tolist() == v.to("cpu").reshape(3, 16).tolist()
    experts = ops.ExpertWeights([there.numbers(40, 50, seed=e) for e in range(90)])
    choices = ops.Choices.empty(2, 2, 90, there.device)
    ops.route(there.numbers(2, 90), out=choices)
    copied.clear()
    ops.expert_linears(there.numbers(2, 50), choices, [experts], [there.empty(4, 40)])
    assert 8_000 < sum(copied) < 5 * 8_000 + 10_000
    table, ids = there.numbers(3000, 32), there(integers(1700, 0, 1700))
    packed = there(ops.pack(table.to("cpu"), "int8"))
    copied.clear()
    rows, unpacked = ops.gather(table, ids), ops.unpack(packed, ids)
    assert sum(copied) < 5_000
    assert rows.to("cpu").tolist() == [table[i].to("cpu").tolist() for i in (1700, 0, 1700)]
    assert unpacked.to("cpu").tolist() == ops.unpack(packed.to("cpu"), ids.to("cpu")).tolist()


def test_errors_are_those_of_the_operation(driver):
    x = There(Device("cuda").without("norm", "gather"))(numbers(3, 6))
    with pytest.raises(TensorError, match="rms_norm: weight has shape"):
        ops.rms_norm(x, x, 1e-5)
    with pytest.raises(TensorError, match=r"gather: indices\[0\] is -1, expected 0 to 2"):
        ops.gather(x, Tensor.from_list([-1], "int32", x.device))


def test_kernels_of_the_cpu_are_listed(driver):
    """Warming up finds what the CPU has to compile, and runs nothing."""
    x = There(Device("cuda").without("norm"))(numbers(3, 6))
    out = Tensor.zeros((3, 6), device=x.device)
    with compilation.listing() as listed, ops.recording():
        ops.rms_norm(x, x[0], 1e-5, out=out)
    if compilation.enabled():
        assert [kernel.source.name.name for kernel in listed] == ["rms_norm"]
    assert out.tolist() == [[0.0] * 6] * 3 and "launch" not in driver.calls


def test_tokens_are_chosen_there(driver):
    logits, u = numbers(3, 50), 0.4
    found = []
    for device in (default_device(), Device("cuda").without("sampling")):
        choices = [Choice(0.7, top_k=20, logprobs=2), Choice()]
        for row, choice in enumerate(choices):
            choice.aim(row, u)
        sampler = Sampler(50, device=device)
        before = sampler.nbytes
        sampler.sample(logits.to(device), choices)
        found.append([(choice.token, choice.logprob, choice.likeliest) for choice in choices])
        assert device.stream is None or sampler.nbytes > before
    assert found[0] == found[1]


class Broken:
    """A compiler that fails for some kernels."""

    def __init__(self, monkeypatch, *names, error=None):
        self.names, self.error, self.tried = names, error, []
        self._compile = _kept._compile
        monkeypatch.setattr(_kept, "_compile", self.compile)
        monkeypatch.setattr(_kept, "_file", lambda *_: None)

    def compile(self, name, architecture):
        self.tried.append(name.name)
        if name.name in self.names:
            raise self.error or RuntimeError(f"ptxas says:\n  too many registers\n  for {architecture}" + "." * 999)
        return self._compile(name, architecture)


def test_a_kernel_that_cannot_be_compiled(driver, monkeypatch, caplog):
    broken = Broken(monkeypatch, "rms_norm")
    there = There(Device("cuda"))
    x, w = there(numbers(3, 70)), there(numbers(70, seed=3))
    wanted = ops.rms_norm(numbers(3, 70), numbers(70, seed=3), 1e-5).tolist()
    with caplog.at_level(logging.INFO, "pio"):
        for _ in range(3):
            assert ops.rms_norm(x, w, 1e-5).tolist() == wanted
        ops.rms_norm(x, w.astype("bfloat16"), 1e-5)  # another kernel of that name
    warned = [(record.levelname, record.message) for record in caplog.records]
    assert [level for level, _ in warned] == ["WARNING"] * 2 and broken.tried.count("rms_norm") == 2
    assert warned[0][1].startswith(
        "the kernel rms_norm_float32 cannot be made for compute_90a: RuntimeError: ptxas says: too many registers for "
    )
    assert warned[0][1].endswith("…; what needs it runs on the CPU, over copies, which is slow")


def test_a_kernel_that_takes_too_much_of_the_gpu(driver, caplog):
    """The driver refuses to load it: that GPU has less shared memory than it takes."""
    import dataclasses

    driver.gpus[0] = dataclasses.replace(driver.gpus[0], shared=1 << 10)
    x, w = (There(Device("cuda"))(numbers(*shape)) for shape in ((3, 70), (37, 70)))
    wanted = ops.linear(numbers(3, 70), numbers(37, 70)).tolist()
    assert ops.linear(x, w).tolist() == wanted
    assert len(caplog.records) == 1 and "bytes of shared memory" in caplog.text


def test_a_kernel_that_there_is_none_of(driver, monkeypatch, caplog):
    monkeypatch.setattr(_kept, "__file__", "/nowhere/_kept.py")
    monkeypatch.setattr(_kept, "_file", lambda *_: None)
    x = There(Device("cuda"))(numbers(3, 6))
    assert ops.add(x, x).tolist() == ops.add(numbers(3, 6), numbers(3, 6)).tolist()
    assert "the operation add has no kernel for GPUs yet (elementwise.add); what needs it runs" in caplog.text


def test_a_gpu_that_is_lost_is_no_missing_kernel(driver):
    x = There(Device("cuda"))(numbers(3, 6))
    driver.lost = "CUDA's driver says 'device unavailable' where it is to load the kernel (error 46)"
    with pytest.raises(DeviceError, match="device unavailable"):
        ops.add(x, x)


@pytest.mark.parametrize("error", [OutOfMemoryError("the GPU has no memory left"), MemoryError()])
def test_memory_that_runs_out_is_no_missing_kernel(driver, monkeypatch, error):
    Broken(monkeypatch, "add", error=error)
    x = There(Device("cuda"))(numbers(3, 6))
    with pytest.raises(type(error)):
        ops.add(x, x)


def test_a_compiler_that_is_not_installed(driver, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "numba.cuda", None)
    monkeypatch.setattr(_kept, "_file", lambda *_: None)
    x = There(Device("cuda"))(numbers(3, 6))
    with pytest.raises(
        DeviceError, match=r'have to be compiled, which takes pip install "numba-cuda\[cu13\]>=0.30,<0.31"'
    ):
        ops.add(x, x)


# Operations that launch several kernels, any of which may be the one that is missing
SEVERAL = {
    "add_choices, expert_linears and route": ("route", "group_by_expert", "gather_choices", "few_experts"),
    "expert_linears of int8": ("quantize",),
    "causal_conv, commit_delta, commit_inputs, delta_gates and gated_delta": ("delta_factors", "gated_delta"),
    "gather_by_value": ("count_value", "find_value", "gather"),
    "scatter_add": ("stop_outside", "scatter_add"),
    "quantized_linears": ("quantize", "few_linears"),
    "head_linear": ("quantize_heads", "few_quantized_heads"),
}


@pytest.mark.parametrize(("name", "missing"), [(name, kernel) for name, all in SEVERAL.items() for kernel in all])
def test_any_kernel_of_an_operation_may_be_missing(driver, monkeypatch, caplog, name, missing):
    """Nothing that was done on the GPU before counts twice."""
    from gpu_case import relative_error

    Broken(monkeypatch, missing)
    wanted = list(CASES[name](There(default_device())))
    found = list(CASES[name](There(Device("cuda"))))
    assert "cannot be made" in caplog.text
    for one, other in zip(found, wanted, strict=True):
        if isinstance(one, Tensor) and one.dtype.is_float:
            assert relative_error(one.to("cpu"), other.reshape(-1).tolist()) < 1e-5
        else:
            assert said(one) == said(other)
