"""What goes wrong with GPUs: one error that says what and what to do, and the CPU goes on."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

from fake_driver import FakeDriver, facts
from gpus import having

from pio import ops
from pio.cli.findings import _gpus
from pio.device import Device, gpus, on_device
from pio.errors import DeviceError
from pio.ops.sampling import Choice, Sampler
from pio.tensor import Tensor


def still_works():
    """Return whether the CPU's half does."""
    x = Tensor.from_list([[3.0, 4.0]])
    return ops.add(x, x).tolist() == [[6.0, 8.0]]


def in_a_process(code):
    """Return what a process of its own says."""
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_without_the_packages():
    said = in_a_process(
        """
        import sys
        sys.modules["cuda.bindings"] = None
        from pio import DeviceError, Tensor
        try:
            Tensor.zeros(3, device="cuda")
        except DeviceError as error:
            print(error, Tensor.zeros(3).tolist())
        """
    )
    assert 'pip install "numba-cuda[cu13]>=0.30,<0.31"' in said and "[0.0, 0.0, 0.0]" in said


def test_without_a_driver():
    pytest.importorskip("cuda.bindings")
    said = in_a_process(
        """
        from cuda.bindings import driver
        def missing(*_):
            raise RuntimeError("libcuda.so.1 is not there\\nmore of it")
        driver.cuInit = missing
        from pio import DeviceError, Tensor
        try:
            Tensor.zeros(3).to("cuda")
        except DeviceError as error:
            print(error)
        """
    )
    assert said.startswith("there is no NVIDIA driver on this machine (libcuda.so.1 is not there); install")
    assert "580" in said and "device='cpu'" in said


def test_a_driver_that_is_too_old():
    with having(FakeDriver(version=(12, 8))):
        for attempt in (lambda: Device("cuda"), gpus):
            with pytest.raises(DeviceError, match=r"serves CUDA 12\.8; pio needs 13\.0: install release 580"):
                attempt()
    assert still_works()


def test_no_such_gpu():
    with having(FakeDriver()):
        for name in ("cuda:1", "cuda:7"):
            with pytest.raises(DeviceError, match=f"no device {name}: this machine has one GPU, cuda:0"):
                on_device(name)
    with having(FakeDriver(facts(), facts())):
        with pytest.raises(DeviceError, match="no device cuda:2: this machine has 2 GPUs"):
            Tensor.zeros(3, device="cuda:2")
        assert Tensor.zeros(3, device="cuda:1").device.ordinal == 1


@pytest.mark.parametrize("name", ["cuda:", "cuda:-1", "cuda:01", "cuda:1.0", "CUDA", "gpu", "cuda:0:1", ""])
def test_no_device_of_that_name(name):
    with pytest.raises(DeviceError, match="unknown device"):
        Device(name)


def test_threads_are_the_cpus():
    with pytest.raises(DeviceError, match="threads is 2, expected none, for they are the CPU's"):
        Device("cuda", 2)


def test_a_gpu_that_is_too_old():
    with having(FakeDriver(facts("GTX 1080", (6, 1)), facts("H100"))):
        with pytest.raises(DeviceError, match=r"cuda:0 is a GTX 1080 of compute capability 6\.1; pio needs 8\.0"):
            Device("cuda")
        assert gpus() == [
            "cuda:0 GTX 1080, compute capability 6.1, 64 MiB, too old",
            "cuda:1 H100, compute capability 9.0, 64 MiB",
        ]
        assert _gpus().value.endswith(
            "cuda:1 H100, compute capability 9.0, 64 MiB; device=auto takes cuda:1 for models that fit there"
        )
    with having(FakeDriver(facts("GTX 1080", (6, 1)))):
        with pytest.raises(DeviceError, match="GTX 1080"):
            gpus()
        assert _gpus().value.startswith("none used: cuda:0 is a GTX 1080") and _gpus().state == "ok"


def test_a_gpu_that_is_taken_away():
    with having(FakeDriver()) as driver:
        tensor = Tensor.from_list([1.0, 2.0], device="cuda")
        driver.lost = "CUDA's driver says 'device unavailable' where it is to finish its work (error 46)"
        for act in (tensor.tolist, tensor.clone, lambda: Tensor.zeros(3, device="cuda")):
            with pytest.raises(DeviceError, match="device unavailable"):
                act()
        del tensor  # says nothing, and nobody is asked
        assert still_works()


def test_tensors_of_two_devices(driver):
    x, w = Tensor.from_list([[1.0, 2.0], [3.0, 4.0]]), Tensor.from_list([1.0, 2.0])
    there = x.to("cuda")
    for act, words in (
        (
            lambda: ops.rms_norm(there, w, 1e-5),
            r"rms_norm: out lies on cuda:0 and weight on cpu.*weight.to\('cuda:0'\)",
        ),
        (lambda: ops.rms_norm(x, w.to("cuda"), 1e-5), "out lies on cpu and weight on cuda:0"),
        (lambda: ops.rms_norm(x, w, 1e-5, out=there), "out lies on cuda:0 and x on cpu"),
        (lambda: ops.add(x, there), "add: out lies on cpu and y on cuda:0"),
        (lambda: ops.linear(x, there), "linear: out lies on cpu and weight on cuda:0"),
        (lambda: ops.copy(x, there), "copy: dst lies on cpu and src on cuda:0"),
    ):
        with pytest.raises(DeviceError, match=words):
            act()


def test_an_operation_that_gpus_do_not_have(driver):
    from pio.kernels import launcher

    with pytest.raises(DeviceError, match=r"nothing has no kernel for GPUs yet \(norm.nothing\)"):
        launcher.module("norm").on(Device("cuda")).nothing(1, 2)
    with pytest.raises(DeviceError, match=r"no kernel for GPUs yet \(packing.*"):
        launcher.module("packing").on(Device("cuda")).nothing["int8"](1, 2)
    with pytest.raises(DeviceError, match="logits lie on cuda:0, and this sampler chooses on cpu"):
        Sampler(3).sample(Tensor.zeros((1, 3), device="cuda"), [Choice()])


def test_two_users_of_one_gpu(driver):
    """Two models, or two threads: one device, one stream, whose order keeps them apart."""
    one, other = Tensor.full((3,), 1, device="cuda"), Tensor.full((3,), 2, device=Device("cuda:0"))
    assert one.device is other.device and driver.calls.count("stream") == 1
    other.copy_(one)
    one.fill_(5)
    assert (one.tolist(), other.tolist()) == ([5] * 3, [1] * 3)


def test_a_stream_that_is_closed_under_a_tensor(driver):
    tensor, device = Tensor.from_list([1.0, 2.0], device="cuda"), Device("cuda")
    device.stream.close()
    for act in (tensor.tolist, tensor.clone, lambda: Tensor.zeros(3, device=device)):
        with pytest.raises(DeviceError, match="stream of cuda:0 was closed"):
            act()
    device.stream.close()
    del tensor
    assert still_works()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no forks")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_of_a_process_that_used_the_gpu(driver):
    tensor = Tensor.from_list([1.0, 2.0], device="cuda")
    signal.alarm(60)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = []
        for act in (tensor.tolist, lambda: Tensor.zeros(3, device="cuda"), lambda: Device("cuda:1")):
            try:
                act()
            except DeviceError as error:
                said.append(str(error))
        said.append(str(still_works()))
        os.write(writing, "\n".join(said).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        said = pipe.read().splitlines()
    assert os.waitpid(child, 0)[1] == 0
    signal.alarm(0)
    assert len(said) == 4 and said[3] == "True"
    assert all("forked from one that used the GPU" in line and "spawn" in line for line in said[:3])
    assert tensor.tolist() == [1.0, 2.0]


def test_a_kernel_that_reads_what_it_must_not_is_seen(driver):
    from ptx import MemoryFault

    from pio.kernels import launcher

    x = Tensor.zeros((4, 8), device="cuda")
    w = Tensor.zeros((8,), device="cuda")
    run = launcher.module("norm").on(x.device).rms_norm["float32"]
    run(x.address, x.address, w.address, 5, 1, 8, 8, 8, 1e-5, 0, 1)  # a row too many
    with pytest.raises(MemoryFault, match="out of bounds"):
        x.tolist()
