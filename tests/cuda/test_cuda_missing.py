"""Kernels that cannot be had: what needs them runs on the CPU, with one warning that says why; other errors stay."""

import dataclasses
import logging

import pytest

pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

from gpu_case import relative_error
from operation_cases import CASES, There, numbers, said

from pio import ops
from pio.device import Device, default_device
from pio.errors import DeviceError, OutOfMemoryError
from pio.kernels.cuda import _kept
from pio.tensor import Tensor


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
    "quantized_linear": ("quantizing_linears",),
    "head_linear": ("quantize_heads", "few_quantized_heads"),
}


@pytest.mark.parametrize(("name", "missing"), [(name, kernel) for name, all in SEVERAL.items() for kernel in all])
def test_any_kernel_of_an_operation_may_be_missing(driver, monkeypatch, caplog, name, missing):
    """Nothing that was done on the GPU before counts twice."""
    Broken(monkeypatch, missing)
    wanted = list(CASES[name](There(default_device())))
    found = list(CASES[name](There(Device("cuda"))))
    assert "cannot be made" in caplog.text
    for one, other in zip(found, wanted, strict=True):
        if isinstance(one, Tensor) and one.dtype.is_float:
            assert relative_error(one.to("cpu"), other.reshape(-1).tolist()) < 1e-5
        else:
            assert said(one) == said(other)
