"""Tensors on a GPU: made, copied, read and given back, on a driver that sees misuse."""

import copy
import ctypes
import gc
import pickle
import threading

import pytest

pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

from fake_driver import FakeDriver, Misuse, facts
from gpus import having

from pio.cuda.dropped import Dropped
from pio.cuda.stage import STEP, Stage
from pio.cuda.stream import Launch, Stream
from pio.device import Device, default_device
from pio.dtypes import ALL, float32, int32
from pio.errors import DeviceError, OutOfMemoryError, TensorError
from pio.memory.arena import Arena
from pio.memory.budget import MemoryBudget
from pio.memory.storage import Storage
from pio.tensor import Tensor


def test_a_device_is_its_name(driver):
    device = Device("cuda")
    assert device is Device("cuda:0") is pickle.loads(pickle.dumps(device)) is copy.deepcopy(device)
    assert (device, device.kind, device.ordinal, device.threads, device.dlpack) == ("cuda:0", "cuda", 0, 1, (2, 0))
    assert default_device().stream is None and device.stream is not None


@pytest.mark.parametrize("dtype", [d.name for d in ALL])
def test_numbers_there_and_back(driver, dtype):
    rows = [[1, 2, 3], [4, 5, 6]]
    here, there = Tensor.from_list(rows, dtype), Tensor.from_list(rows, dtype, "cuda")
    assert there.tolist() == here.tolist() and there.device == "cuda:0"
    assert there.to("cpu").tolist() == here.tolist() and here.to("cuda").tolist() == here.tolist()
    assert there.to("cuda") is there is there.to("cuda:0") is there.to("auto")
    assert Tensor.full((5,), 3, dtype, "cuda").tolist() == [3] * 5 == Tensor.full((5,), 3, dtype).tolist()
    assert Tensor.zeros((2, 3), dtype, "cuda").tolist() == [[0] * 3] * 2


def test_views_are_read_by_their_strides(driver):
    rows = [[r * 7 + c for c in range(7)] for r in range(300)]
    here, there = Tensor.from_list(rows), Tensor.from_list(rows, device="cuda")
    for look in (
        lambda t: t[3:9, 1:4],
        lambda t: t.T,
        lambda t: t[::-2, ::3],
        lambda t: t[:, 2],
        lambda t: t[5],
        lambda t: t[4:4],
        lambda t: t[7, 6],
    ):
        assert look(there).tolist() == look(here).tolist()
        assert look(here).to("cuda").tolist() == look(here).tolist()
        assert look(there).to("cpu").is_contiguous
    assert (there[7, 6].item(), int(there[1, 1]), float(there[2, 3]), bool(there[0, 0])) == (55, 8, 17.0, False)
    assert repr(there[:2, :2]) == "Tensor(float32, shape=(2, 2), cuda:0, [0, 1, 7, 8])"
    assert [row.device for row in there[:2]] == ["cuda:0", "cuda:0"]


def test_what_is_written_is_read(driver):
    t = Tensor.from_list([[1, 2, 3], [4, 5, 6]], device="cuda")
    t[1].fill_(-2.5)
    t[:, 0].fill_(9)
    assert t.tolist() == [[9, 2, 3], [9, -2.5, -2.5]]
    t[0].copy_(Tensor.from_list([7, 8, 9]))  # from the CPU
    t[:, 1].copy_(t[:, 2].clone())
    assert t.tolist() == [[7, 9, 9], [9, -2.5, -2.5]]
    t[0, 1:].copy_(t[0, :2])  # overlaps
    assert t[0].tolist() == [7, 7, 9]
    home = Tensor.zeros((3, 2))
    home.T.copy_(t)  # from the GPU, into strides
    assert home.tolist() == [[7, 9], [7, -2.5], [9, -2.5]]
    wide = Tensor.zeros((2, 3), "int32")
    assert wide.copy_(t).tolist() == [[7, 7, 9], [9, -2, -2]]
    with pytest.raises(TensorError, match="shape"):
        t.copy_(home)


def test_copies_are_of_their_own(driver):
    t = Tensor.from_list([1, 2, 3], device="cuda")
    for other in (t.clone(), copy.deepcopy(t), pickle.loads(pickle.dumps(t)), t.to("cpu").to("cuda")):
        assert other.device is t.device and other.tolist() == t.tolist()
        other.fill_(0)
    assert t.tolist() == [1, 2, 3] and t.contiguous() is t and t[::2].contiguous().tolist() == [1, 3]


def test_the_source_of_an_upload_may_change_at_once(driver):
    here = Tensor.from_list([1, 2, 3, 4])
    there = here.to("cuda")
    here.fill_(0)
    assert there.tolist() == [1, 2, 3, 4]


def test_large_tensors_go_in_pieces(driver, monkeypatch):
    stream = Device("cuda").stream
    monkeypatch.setattr(stream, "_stage", Stage(stream.gpu, stream.handle, 4 * STEP))
    driver.calls.clear()
    here = Tensor.from_list([i * 3 % 1000 for i in range(5003)], "int32")
    there = here.to("cuda")
    assert driver.calls.count("copy_in") == 20 and "wait" not in driver.calls and "await_event" in driver.calls
    assert there.tolist() == here.tolist()
    stream._stage.close()


def test_memory_is_counted_zeroed_and_given_back(driver):
    gpu = Device("cuda")
    budget = MemoryBudget(10_000)
    storage = Storage.allocate(4096, budget=budget, what="a cache", device=gpu)
    assert (storage.address % 256, budget.used, sum(gpu.stream.held.values())) == (0, 4096, 4096)
    with pytest.raises(OutOfMemoryError, match=r"a cache.*memory limit"):
        Storage.allocate(6000, budget=budget, what="a cache", device=gpu)
    tensor = Tensor(storage, storage.address, int32, (1024,), (1,))
    assert set(tensor.tolist()) == {0}
    view = tensor[5:]
    del tensor, storage
    gc.collect()
    assert budget.used == 4096
    del view
    assert budget.used == 0
    before = driver.calls.count("free")
    gpu.stream.wait()
    assert driver.calls.count("free") == before + 1 and gpu.stream.held == {}
    arena = Arena(1000, device=gpu)
    first, second = arena.take((3,)), arena.take((5,))
    second.fill_(2)
    first.fill_(1)
    assert (first.tolist(), second.tolist()) == ([1] * 3, [2] * 5)


def test_memory_that_runs_out_takes_nothing_with_it():
    with having(FakeDriver(facts(nbytes=100_000))):
        kept = Tensor.full((1000,), 1.5, device="cuda")
        with pytest.raises(OutOfMemoryError, match=r"cuda:0 refused 97\.\d* KiB.*float32 tensor of shape \(25000,\)"):
            Tensor.zeros((25_000,), device="cuda")
        budget = MemoryBudget(1 << 20)
        with pytest.raises(OutOfMemoryError):
            Storage.allocate(99_000, budget=budget, device=kept.device)
        gc.collect()
        assert budget.used == 0 and kept.tolist() == [1.5] * 1000
        del kept
        assert Tensor.zeros((24_000,), device="cuda").size == 24_000  # what was dropped is given back first


def test_memory_may_be_dropped_by_any_thread_in_the_middle_of_anything(driver):
    tensors = [Tensor.full((64,), i, device="cuda") for i in range(20)]
    thread = threading.Thread(target=tensors.clear)
    thread.start()
    thread.join()  # it has never entered the GPU
    assert Tensor.full((2,), 1, device="cuda").tolist() == [1, 1]
    tensor = Tensor.from_list([1, 2], device="cuda")
    found = []
    thread = threading.Thread(target=lambda: found.extend(tensor.tolist()))
    thread.start()
    thread.join()
    assert found == [1, 2]


def test_threads_wait_for_what_another_one_gives_back():
    dropped, said, comes = Dropped(), [], threading.Event()

    class Watched:
        """The lock, which tells that the other thread wants it."""

        def __enter__(self):
            if threading.current_thread() is other:
                comes.set()
            lock.acquire()

        def __exit__(self, *_):
            lock.release()

    def release():
        other.start()
        assert comes.wait(60), "it goes on"
        dropped.give_back()  # as what is given back may
        said.append("given back")

    def go_on():
        dropped.give_back()
        said.append("goes on")

    other, lock, dropped._lock = threading.Thread(target=go_on), dropped._lock, Watched()
    dropped.add(release)
    dropped.add(lambda: said.append("what is next"))
    dropped.give_back()
    other.join()
    assert said == ["given back", "what is next", "goes on"] and not dropped


def test_what_cannot_be_given_back_is_in_nobodys_way():
    dropped, said = Dropped(), []
    dropped.add(lambda: 1 // 0)
    dropped.add(lambda: said.append("what is next"))
    with pytest.raises(ZeroDivisionError):
        dropped.give_back()
    assert dropped and not said
    dropped.give_back()
    assert said and not dropped


def test_memory_that_was_freed_is_not_used(driver):
    tensor = Tensor.from_list([1, 2, 3], device="cuda")
    tensor.storage.free()
    for act in (tensor.tolist, lambda: tensor.fill_(1), tensor.clone, lambda: tensor.to("cpu")):
        with pytest.raises(TensorError, match="freed"):
            act()
    assert "freed" in repr(tensor)


@pytest.mark.parametrize(
    "act",
    [
        lambda t: t.memoryview(),
        lambda t: t.storage.memoryview(),
        lambda t: t.__array_interface__,
    ],
)
def test_what_only_the_cpu_can_says_so(driver, act):
    tensor = Tensor.from_list([1, 2], device="cuda")
    with pytest.raises(DeviceError, match=r'lies on cuda:0: call \.to\("cpu"\) first'):
        act(tensor)
    with pytest.raises(DeviceError, match=r"memory of cuda:0 is none of cpu"):
        tensor.storage.to(default_device())
    assert act(tensor.to("cpu")) is not None


# The driver itself


def test_the_driver_of_tests_sees_misuse(driver):
    stream = Device("cuda").stream
    gpu = stream.gpu.enter()
    at, busy = stream.allocate(512), gpu.allocate_host(64)
    pinned, unloaded = gpu.allocate_host(64), Launch(5, 1, 1, 0, "", b"")
    for act in (
        lambda: gpu.copy_in(at, ctypes.addressof(ctypes.create_string_buffer(64)), 64, stream.handle),
        lambda: gpu.copy_in(at + 480, pinned, 64, stream.handle),
        lambda: gpu.copy(at, at + 32, 64, stream.handle),
        lambda: gpu.free(at + 256, stream.handle),
        lambda: gpu.fill(pinned, 0, 8, stream.handle),
        lambda: gpu.launch(unloaded, stream.handle),
        lambda: gpu.graph([unloaded]),
        lambda: gpu.run_graph(99, stream.handle),
        lambda: gpu.wait(99),
        lambda: gpu.end_event(99),
        lambda: gpu.end_graph(99),
        lambda: (gpu.copy_in(at, busy, 64, stream.handle), gpu.free_host(busy)),  # a copy is under way
        lambda: gpu.copy_all([], stream.handle),
        lambda: gpu.copy_all([(at, at + 64, 32), (at + 31, at + 96, 32)], stream.handle),
        lambda: gpu.copy_all([(at, at + 64, 32), (at + 32, at + 16, 8)], stream.handle),
        lambda: gpu.copy_all([(at, at + 500, 13)], stream.handle),
    ):
        with pytest.raises(Misuse):
            act()
    gpu.copy_in(at, pinned, 64, stream.handle)
    ctypes.memset(pinned, 1, 64)
    with pytest.raises(Misuse, match="changed before"):
        stream.wait()
    stream.wait()
    gpu.free_host(pinned)
    gpu.free_host(busy)
    stream.drop(at)
    with pytest.raises(Misuse):
        threading_result(lambda: gpu.room())
    with pytest.raises(Misuse):
        Stream.launch(stream, unloaded)


def threading_result(act):
    """Do something in a thread that has entered no GPU, and raise here what it raises."""
    raised = []

    def run():
        try:
            act()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    for error in raised:
        raise error


def test_dtype_of_the_default(driver):
    assert Tensor.empty((2,), device="cuda").dtype is float32
