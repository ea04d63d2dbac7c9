"""Recorded steps on a GPU: graphs, with calls of Python and checks between them."""

import gc
import threading

import pytest

pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

from fake_driver import FakeDriver, facts
from gpus import having

from pio import ops
from pio.errors import RecordingError, TensorError
from pio.ops._record import KEPT, record
from pio.tensor import Tensor


def vector(*values, dtype="float32"):
    return Tensor.from_list([list(values)], dtype, "cuda")


def graphs(driver):
    return driver.calls.count("run_graph")


def test_a_step_is_one_graph_that_reads_what_is_there_by_then(driver):
    x, y, out = vector(1, 2, 3), vector(4, 5, 6), vector(0, 0, 0)
    with ops.recording() as program:
        ops.add(x, y, out=out)
        ops.mul(out, y, out=out)
    assert out.tolist() == [[20, 35, 54]]  # it ran as it was recorded
    x.copy_(Tensor.from_list([[0, 1, 0]]))
    driver.calls.clear()
    program.run()
    assert graphs(driver) == 1 and not {"launch", "wait"} & set(driver.calls)
    assert out.tolist() == [[16, 30, 36]]
    program.run()
    program.run()
    assert out.tolist() == [[16, 30, 36]]


def test_a_step_keeps_its_memory_and_the_numbers_that_its_kernels_read(driver):
    x, out = Tensor.from_list([[1.0, 2.0], [3.0, 4.0]], device="cuda"), Tensor.zeros((2, 2), device="cuda")
    with ops.recording() as program:
        ops.copy(out, x.T)
    address, device = x.address, out.device
    del x
    for i in range(KEPT):  # nobody but the step holds the lengths and strides of the copy any more
        if i % 64 == 0:
            record(i, 7, device=device)
    device.stream.kept[type(record(0, device=device)).__mro__[1]].cache_clear()
    gc.collect()
    out.fill_(0)
    program.run()
    assert out.tolist() == [[1, 3], [2, 4]] and address in device.stream.held
    del program
    device.stream.wait()
    assert address not in device.stream.held


def test_python_is_called_between_graphs(driver):
    x, out, seen = vector(1, 2), vector(0, 0), []
    with ops.recording() as program:
        ops.add(x, x, out=out)
        ops.host_call(lambda: seen.append(out.tolist()))
        ops.host_call(lambda: out.fill_(3))
        ops.mul(out, x, out=out)
    assert seen == [[[2, 4]]] and out.tolist() == [[3, 6]]
    x.copy_(Tensor.from_list([[5, 7]]))
    driver.calls.clear()
    program.run()
    assert seen[1:] == [[[10, 14]]] and out.tolist() == [[15, 21]] and graphs(driver) == 2


def test_an_index_is_checked_in_every_run_and_nothing_runs_behind(driver):
    table, out = Tensor.from_list([[1, 2], [3, 4], [5, 6]], device="cuda"), Tensor.zeros((2, 2), device="cuda")
    ids = Tensor.from_list([2, 0], "int32", "cuda")
    with ops.recording() as program:
        ops.gather(table, ids, out=out)
    assert out.tolist() == [[5, 6], [1, 2]]
    ids.copy_(Tensor.from_list([1, 1], "int32"))
    program.run()
    assert out.tolist() == [[3, 4], [3, 4]]
    ids.copy_(Tensor.from_list([0, 3], "int32"))
    with pytest.raises(TensorError, match=r"gather: indices\[1\] is 3, expected 0 to 2"):
        program.run()
    assert out.tolist() == [[3, 4], [3, 4]]
    ids.copy_(Tensor.from_list([0, 2], "int32"))
    program.run()
    assert out.tolist() == [[1, 2], [5, 6]]
    bad = Tensor.from_list([7], "int64", "cuda")
    with pytest.raises(TensorError, match=r"indices\[0\] is 7"), ops.recording():
        ops.gather(table, bad, out=out[:1])


def test_what_could_not_run_again_is_refused(driver):
    x, out, here = vector(1, 2), vector(0, 0), Tensor.from_list([[1.0, 2.0]])
    for act, words in (
        (lambda: ops.add(x, x), "makes"),
        (lambda: x.clone(), "makes"),
        (lambda: x.tolist(), "cpu"),
        (lambda: x.to("cpu"), "cpu"),
        (lambda: here.to("cuda"), "cuda:0"),
        (lambda: x.copy_(here), "copies from cpu to cuda:0"),
        (lambda: here.copy_(x), "copies from cuda:0 to cpu"),
        (lambda: x.fill_(1), "writes numbers"),
        (lambda: x.storage.free(), "frees memory"),
        (lambda: x.__dlpack__(), "shows numbers"),
    ):
        with pytest.raises(RecordingError, match=words), ops.recording():
            ops.add(x, x, out=out)
            act()
    assert (x.tolist(), here.tolist()) == ([[1, 2]], [[1, 2]])


def test_a_step_runs_on_one_device(driver):
    x, out = vector(1, 2), vector(0, 0)
    here = Tensor.from_list([[1.0, 2.0]])
    there = Tensor.zeros((1, 2))
    with pytest.raises(RecordingError, match="runs add on a GPU behind kernels on the CPU: a step runs on one device"):
        with ops.recording():
            ops.add(here, here, out=there)
            ops.add(x, x, out=out)
    with pytest.raises(RecordingError, match="runs mul on the CPU behind kernels on a GPU"), ops.recording():
        ops.add(x, x, out=out)
        ops.mul(here, here, out=there)
    with ops.recording() as program:
        ops.add(x, x, out=out)
        ops.host_call(lambda: ops.mul(here, here, out=there))
    program.run()
    assert there.tolist() == [[1, 4]]


def test_a_step_of_two_gpus_is_refused():
    with having(FakeDriver(facts(), facts())):
        one, other = (Tensor.from_list([[1.0, 2.0]], device=f"cuda:{i}") for i in range(2))
        outs = [t.clone() for t in (one, other)]
        with pytest.raises(RecordingError, match="behind kernels on another GPU"), ops.recording():
            ops.add(one, one, out=outs[0])
            ops.add(other, other, out=outs[1])
        assert other.to("cuda:0").tolist() == [[1, 2]]  # by way of this process
        del one, other, outs


def test_memory_that_was_freed_ends_a_step(driver):
    x, out = vector(1, 2), vector(0, 0)
    with ops.recording() as program:
        ops.add(x, x, out=out)
    x.storage.free()
    with pytest.raises(RecordingError, match="memory that it works on was freed"):
        program.run()


def test_memory_dies_while_a_step_is_recorded(driver):
    """Finalisers may run at any moment, those of other threads' tensors too; what they drop is given back later."""
    x, out, others = vector(1, 2), vector(0, 0), [vector(i) for i in range(5)]
    device = x.device
    device.stream.wait()
    before = len(device.stream.held)
    with ops.recording() as program:
        ops.add(x, x, out=out)
        thread = threading.Thread(target=others.clear)
        thread.start()
        thread.join()
        ops.add(out, x, out=out)
    program.run()
    assert out.tolist() == [[3, 6]] and len(device.stream.held) == before - 5


def test_other_threads_are_not_part_of_a_step(driver):
    x, out, aside = vector(1, 2), vector(0, 0), vector(5, 5)
    with ops.recording() as program:
        ops.add(x, x, out=out)
        thread = threading.Thread(target=lambda: ops.add(aside, aside, out=aside))
        thread.start()
        thread.join()
    program.run()
    assert (aside.tolist(), out.tolist()) == ([[10, 10]], [[2, 4]])


def test_a_step_that_was_not_recorded_to_its_end(driver):
    x = vector(1, 2)
    with pytest.raises(ZeroDivisionError), ops.recording() as program:
        ops.add(x, x, out=x)
        1 / 0  # noqa: B018
    with pytest.raises(RecordingError, match="not recorded to its end"):
        program.run()
