"""What a recorded step holds, and what it refuses: the same lines with and without the compiler."""

from __future__ import annotations

import gc
import threading

import pytest

import pio
from pio import ops
from pio.device import Device
from pio.memory import step
from pio.memory.allocation import allocated_bytes
from pio.memory.storage import Storage
from pio.ops._record import KEPT, record
from pio.tensor import Tensor


def x() -> Tensor:
    return Tensor.from_list([[1.5, -2.0, 0.25], [3.0, 4.0, -0.5]])


REFUSED = {
    "ops.swiglu": lambda t: ops.swiglu(t, t),
    "ops.add": lambda t: ops.add(t, t),
    "ops.linear": lambda t: ops.linear(t, t),
    "ops.top_k": lambda t: ops.top_k(t, 2),
    "ops.gather_by_value": lambda t: ops.gather_by_value(t, t, 1),
    "ops.first_non_finite": ops.first_non_finite,
    "ops.pack": lambda t: ops.pack(t, "int8"),
    "Tensor.zeros": lambda t: Tensor.zeros((3,)),
    "Tensor.from_list": lambda t: Tensor.from_list([1.0]),
    "Tensor.from_buffer": lambda t: Tensor.from_buffer(bytearray(8), "float32"),
    "Tensor.clone": lambda t: t.clone(),
    "Tensor.astype": lambda t: t.astype("float16"),
    "Tensor.contiguous": lambda t: t.T.contiguous(),
    "Tensor.item": lambda t: t[0, 0].item(),
    "Tensor.tolist": lambda t: t.tolist(),
    "Tensor.__float__": lambda t: float(t[0, 0]),
    "Tensor.__bool__": lambda t: bool(t[0, 0]),
    "Tensor.memoryview": lambda t: t.memoryview(),
    "Tensor.__array_interface__": lambda t: t.__array_interface__,
    "Tensor.__dlpack__": lambda t: t.__dlpack__(),
    "Tensor.fill_": lambda t: t.fill_(1.0),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_not_run_again_is_refused_by_name(name: str) -> None:
    t = x()
    with pytest.raises(pio.RecordingError) as raised, ops.recording():
        REFUSED[name](t)
    message = str(raised.value)
    assert message.startswith(f"{name} ") and "test_recording.py:" in message and ": " in message
    assert t.tolist() == x().tolist(), "the tensor is usable, and as it was"


def test_steps_do_not_nest_and_leave_nothing_behind() -> None:
    t, out = x(), x()
    with ops.recording() as outer:
        ops.add(t, t, out=out)
        with pytest.raises(pio.RecordingError, match="do not nest"), ops.recording():
            pass
        ops.mul(out, t, out=out)
        with pytest.raises(pio.RecordingError, match="do not nest"):
            outer.run()
    assert Tensor.zeros((2,)).tolist() == [0.0, 0.0]
    with pytest.raises(RuntimeError, match="in the middle"), ops.recording():
        raise RuntimeError("in the middle")
    assert step.local.step is None and ops.add(t, t).tolist()[0] == [3.0, -4.0, 0.5]
    out.fill_(0.0)
    outer.run()
    assert out.tolist() == [[2 * v * v for v in row] for row in x().tolist()]


def test_a_program_holds_the_memory_it_works_on() -> None:
    a, out = Tensor.full((70_000,), 2.0), Tensor.zeros((70_000,))
    view = out.reshape(10, 7000)
    with ops.recording() as program:
        ops.add(a.reshape(10, 7000), a.reshape(10, 7000), out=view)
    gc.collect()
    held = allocated_bytes()
    del a
    gc.collect()
    assert allocated_bytes() == held, "an input is held"
    out.fill_(0.0)
    program.run()
    assert out[69_999].item() == 4.0
    del program  # which is in no circle of references: memory goes at once
    assert allocated_bytes() == held - 4 * 70_000


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_copies_are_recorded(dtype: str) -> None:
    source, to, part = x(), Tensor.zeros((2, 3), dtype), Tensor.zeros((2,))
    with ops.recording() as program:
        to.copy_(source)
        part.copy_(source[:, 1])
    source.copy_(Tensor.from_list([[7.0, 8.0, 9.0], [1.0, 2.0, 3.0]]))
    program.run()
    assert to.tolist() == [[7.0, 8.0, 9.0], [1.0, 2.0, 3.0]] and part.tolist() == [8.0, 2.0]


def test_an_index_is_checked_in_every_run() -> None:
    table, out = x(), Tensor.zeros((2, 3))
    indices = Tensor.from_list([1, 0], "int32")
    with ops.recording() as program:
        ops.gather(table, indices, out=out)
    indices.copy_(Tensor.from_list([0, 1], "int32"))
    program.run()
    assert out.tolist() == table.tolist()
    for bad in (2, -1, 1 << 30):
        indices.copy_(Tensor.from_list([0, bad], "int32"))
        with pytest.raises(pio.TensorError, match=rf"gather: indices\[1\] is {bad}, expected 0 to 1"):
            program.run()
    indices.copy_(Tensor.from_list([1, 1], "int32"))
    program.run()
    assert out.tolist() == [table[1].tolist()] * 2
    with pytest.raises(pio.TensorError, match=r"indices\[0\] is 7"), ops.recording():
        ops.gather(table, Tensor(indices.storage, indices.address, indices.dtype, (2,), (1,)), out=_bad(indices, out))


def _bad(indices: Tensor, out: Tensor) -> Tensor:
    with step.paused():
        indices.fill_(7)
    return out


def test_two_threads_record_at_once() -> None:
    barrier, found = threading.Barrier(2), {}

    def record(factor: float) -> None:
        a, out = Tensor.full((5,), factor), Tensor.zeros((5,))
        with ops.recording() as program:
            barrier.wait(timeout=60)
            ops.add(a, a, out=out)
            barrier.wait(timeout=60)
            ops.mul(out, a, out=out)
        out.fill_(0.0)
        program.run()
        found[factor] = out.tolist()

    threads = [threading.Thread(target=record, args=(factor,)) for factor in (3.0, 5.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert found == {3.0: [18.0] * 5, 5.0: [50.0] * 5}


def test_a_tensor_can_be_shown_in_a_step() -> None:
    t = x()
    with ops.recording():
        assert repr(t) == "Tensor(float32, shape=(2, 3), [1.5, -2, 0.25, 3, 4, -0.5])"


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda v: v * 2.0, r"operator \*.*ops\.mul"),
        (lambda v: 2 * v, r"operator \*.*ops\.mul"),
        (lambda v: v + v, r"operator \+.*ops\.add"),
        (lambda v: v - 1, r"operator -.*ops\.add"),
        (lambda v: -v, r"operator -v.*ops\.mul"),
        (lambda v: v / 2, r"operator /.*ops\.mul"),
        (lambda v: 3 @ v, r"operator @.*ops\.matmul"),
        (lambda v: v < 0, r"operator <.*tolist"),
        (lambda v: v.__setitem__(0, 1), r"fill_.*copy_"),
    ],
)
def test_operators_say_which_operation_to_call(act, words) -> None:
    with pytest.raises(pio.TensorError, match=words):
        act(x())


def test_a_step_keeps_the_numbers_that_its_kernels_read() -> None:
    t, out = x(), Tensor.zeros((3, 2))
    with ops.recording() as program:
        ops.copy(out, t.T)
    here = t.device
    assert record(1, device=here) is record(1, device=here) and record(1, device=here) is not record(1.0, device=here)
    for i in range(KEPT):  # nobody but the step holds the lengths and strides of the copy any more
        record(i, 7, device=here)
    gc.collect()
    out.fill_(0.0)
    program.run()
    assert out.tolist() == [[1.5, 3.0], [-2.0, 4.0], [0.25, -0.5]]


def test_python_is_called_between_operations_in_every_run() -> None:
    a, seen = x(), list[float]()
    double, shown, out = Tensor.zeros((2, 3)), Tensor.zeros((2, 3)), Tensor.zeros((2, 3))

    def page_in() -> None:
        made = ops.silu(double)  # what no operation of a step may: memory of its own
        seen.append(double[0, 0].item())
        shown.copy_(ops.add(made, double)).fill_(seen[-1] + 1.0)

    with ops.recording() as program:
        ops.add(a, a, out=double)
        ops.host_call(page_in)
        ops.mul(shown, a, out=out)
        ops.host_call(lambda: seen.append(-1.0))
    assert seen == [3.0, -1.0] and out.tolist() == [[6.0, -8.0, 1.0], [12.0, 16.0, -2.0]]
    a.copy_(Tensor.full((2, 3), 5.0))
    program.run()
    assert seen == [3.0, -1.0, 10.0, -1.0] and out.tolist() == [[55.0] * 3] * 2
    ops.host_call(lambda: seen.append(0.5))
    assert seen[-1] == 0.5, "outside of a step it is a call"


def test_a_step_of_host_calls_alone_and_two_in_a_row() -> None:
    seen: list[str] = []
    with ops.recording() as program:
        for name in "ab":
            ops.host_call(lambda name=name: seen.append(name))
    program.run()
    assert seen == ["a", "b", "a", "b"]
    with ops.recording() as empty:
        pass
    empty.run()


def test_what_a_host_call_raises_ends_the_run_there() -> None:
    a, first, second, fails = x(), Tensor.zeros((2, 3)), Tensor.zeros((2, 3)), list[str]()

    def may_fail() -> None:
        if fails:
            raise OSError(fails.pop())

    with ops.recording() as program:
        ops.add(a, a, out=first)
        ops.host_call(may_fail)
        ops.mul(first, a, out=second)
    before = second.tolist()
    a.fill_(1.0)
    fails.append("the disk is gone")
    with pytest.raises(OSError, match="disk is gone"):
        program.run()
    assert (first.tolist(), second.tolist()) == ([[2.0] * 3] * 2, before)
    a.fill_(3.0)
    program.run()
    assert second.tolist() == [[18.0] * 3] * 2
    with pytest.raises(OSError, match="at once"), ops.recording() as broken:
        fails.append("at once")
        ops.host_call(may_fail)
    with pytest.raises(pio.RecordingError, match="not recorded to its end"):
        broken.run()
    assert step.local.step is None and ops.add(a, a).tolist() == [[6.0] * 3] * 2


def test_a_host_call_may_record_and_run_steps_of_its_own() -> None:
    a, inner_out, out, programs = x(), Tensor.zeros((2, 3)), Tensor.zeros((2, 3)), list[ops.Program]()

    def inner() -> None:
        if not programs:
            with ops.recording() as program:
                ops.add(a, a, out=inner_out)
            programs.append(program)
        programs[0].run()

    with ops.recording() as program:
        ops.host_call(inner)
        ops.add(inner_out, a, out=out)
    a.fill_(4.0)
    program.run()
    assert out.tolist() == [[12.0] * 3] * 2


def test_memory_that_a_host_call_frees_is_not_used_behind_it() -> None:
    a, freed, out, armed = Tensor.full((70_000,), 2.0), Tensor.zeros((70_000,)), Tensor.zeros((70_000,)), list[int]()

    def free() -> None:
        if armed:
            freed.storage.free()

    with ops.recording() as program:
        ops.add(a, a, out=freed)
        ops.host_call(free)
        ops.mul(freed, a, out=out)
    out.fill_(0.0)
    armed.append(1)
    with pytest.raises(pio.RecordingError, match="was freed"):
        program.run()
    assert out[0].item() == 0.0


def freed_behind_the_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have another thread free memory just when this one has seen that nobody did."""
    real = Storage.check

    def check(storage: Storage) -> None:
        real(storage)
        monkeypatch.setattr(Storage, "check", real)
        storage.free()

    monkeypatch.setattr(Storage, "check", check)


@pytest.mark.parametrize(
    "hand_out", [lambda t: t.memoryview(), lambda t: t.to(Device("cpu", t.device.threads + 1))], ids=["view", "device"]
)
def test_memory_that_is_freed_as_it_is_handed_out_lives_as_long_as_that(hand_out, monkeypatch) -> None:
    gc.collect()
    before, t = allocated_bytes(), Tensor.full((70_000,), 2.0)
    freed_behind_the_look(monkeypatch)
    given = hand_out(t)
    assert t.storage.freed
    del t
    assert allocated_bytes() == before + 4 * 70_000
    del given
    gc.collect()
    assert allocated_bytes() == before


@pytest.mark.parametrize(
    "hand_out", [lambda t: t.__dlpack__(), lambda t: t.__array_interface__], ids=["dlpack", "numpy"]
)
def test_the_address_of_memory_that_was_freed_meanwhile_is_not_handed_out(hand_out, monkeypatch) -> None:
    t = Tensor.full((70_000,), 2.0)
    freed_behind_the_look(monkeypatch)
    with pytest.raises(pio.TensorError, match="freed"):
        hand_out(t)


def test_numbers_are_read_to_the_end_though_their_memory_is_freed_meanwhile(monkeypatch) -> None:
    t = Tensor.full((70_000,), 2.0)
    freed_behind_the_look(monkeypatch)
    assert t.tolist() == [2.0] * 70_000
    with pytest.raises(pio.TensorError, match="freed"):
        t.tolist()


def test_a_look_at_numbers_does_not_keep_memory_that_is_freed() -> None:
    gc.collect()
    t, held = Tensor.full((70_000,), 2.0), allocated_bytes()
    assert t[3].item() == 2.0 and len(t.tolist()) == 70_000 and "2" in repr(t)
    t.storage.free()
    assert allocated_bytes() == held - 4 * 70_000


def test_an_index_is_checked_behind_a_host_call() -> None:
    table, out = x(), Tensor.zeros((2, 3))
    indices, others = Tensor.from_list([1, 0], "int32"), Tensor.from_list([0, 1], "int32")
    with ops.recording() as program:
        ops.gather(table, indices, out=out)
        ops.host_call(lambda: None)
        ops.add(table, table, out=out)
        ops.gather(table, others, out=out)
    others.copy_(Tensor.from_list([0, 9], "int32"))
    with pytest.raises(pio.TensorError, match=r"gather: indices\[1\] is 9"):
        program.run()
    indices.copy_(Tensor.from_list([7, 0], "int32"))
    with pytest.raises(pio.TensorError, match=r"gather: indices\[0\] is 7"):
        program.run()


def test_freed_memory_makes_its_steps_and_tensors_unusable() -> None:
    a, other, out = Tensor.full((70_000,), 2.0), Tensor.full((70_000,), 3.0), Tensor.zeros((70_000,))
    with ops.recording() as program:
        ops.add(a, a, out=out)
    gc.collect()
    held, view = allocated_bytes(), a[:7]
    other.storage.free()
    program.run()  # somebody else's memory
    assert allocated_bytes() == held - 4 * 70_000, "at once, though the tensor is there"
    with pytest.raises(pio.RecordingError, match=r"frees memory.*behind the step"), ops.recording():
        a.storage.free()
    program.run()
    for _ in range(2):  # twice is harmless
        a.storage.free()
        for _ in range(2):
            with pytest.raises(pio.RecordingError, match=r"memory that it works on was freed.*cleanup"):
                program.run()
    assert out[69_999].item() == 4.0 and allocated_bytes() == held - 8 * 70_000
    for use in (view.tolist, lambda: ops.add(view, view), view.clone, view.memoryview, lambda: view.fill_(1.0)):
        with pytest.raises(pio.TensorError, match="the memory of this tensor was freed"):
            use()
    assert repr(view) == "Tensor(float32, shape=(7,), freed)"


@pytest.mark.parametrize("show", ["memoryview", "__array_interface__", "__dlpack__"])
def test_memory_that_was_shown_to_others_goes_with_the_tensor(show: str) -> None:
    gc.collect()
    a, kept = Tensor.full((70_000,), 2.0), allocated_bytes()
    shown = getattr(a, show)
    shown = shown() if callable(shown) else shown
    a.storage.free()
    assert allocated_bytes() == kept
    if show == "memoryview":
        assert shown[69_999] == 2.0
    with pytest.raises(pio.TensorError, match="freed"):
        a.tolist()
    del shown, a
    gc.collect()
    assert allocated_bytes() == kept - 4 * 70_000


def test_a_view_on_another_device_keeps_the_memory() -> None:
    a = Tensor.full((5,), 2.0)
    b = a.to(Device("cpu", a.device.threads + 1))
    a.storage.free()
    assert b.tolist() == [2.0] * 5
    with pytest.raises(pio.TensorError, match="freed"):
        a.to(b.device)


def test_steps_of_experts_end_with_the_memory_of_one() -> None:
    matrices = [Tensor.full((16, 32), float(i)) for i in range(3)]
    experts = ops.ExpertWeights(matrices)
    with step.recorded() as recorded:
        assert experts.addresses.shape == (3,)
    assert not any(owner.freed for owner in recorded.held)
    matrices[1].storage.free()
    assert any(owner.freed for owner in recorded.held)
    with pytest.raises(pio.TensorError, match="freed"):
        _ = experts.addresses
