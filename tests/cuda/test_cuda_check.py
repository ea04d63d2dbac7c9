"""The check of a GPU itself, at small sizes, where there is none: all of it runs, and it sees what is wrong."""

import json
import math
import shutil
import time
from dataclasses import replace
from inspect import signature
from pathlib import Path

import pytest

pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')
pytest.importorskip("cuda.bindings", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

from fake_driver import FakeDriver, Misuse, facts
from gpus import having

from pio import ops
from pio.benchmarks import gpu_check
from pio.benchmarks import machine as machines
from pio.benchmarks.gpu import (
    draft_subjects,
    first_token,
    kernel_checks,
    kernel_compilation,
    model_checks,
    other_processes,
)
from pio.benchmarks.gpu.check import Check, Finding, run_part
from pio.benchmarks.gpu.check_shapes import REAL, SMALL
from pio.benchmarks.gpu.numbers import Numbers
from pio.benchmarks.gpu.subject import Subject, Work, relative_error
from pio.cuda.bindings import Bindings
from pio.cuda.driver import Driver
from pio.device import Device
from pio.errors import ConfigError, DeviceError
from pio.ops import roofline
from pio.tensor import Tensor


@pytest.fixture
def roomy():
    with having(FakeDriver(facts(nbytes=256 << 20))) as made:
        yield made


def findings(name):
    (report,) = gpu_check.check("cuda", SMALL, parts=[name], minutes=60)
    assert (report.error, report.left_out, report.failed) == ("", [], False), report
    return {found.what: found for found in report.findings}


def test_facts(roomy):
    found = findings("facts")
    assert found["multiprocessors"].value == 1 and "Fake GPU" in found["GPU"].value
    assert found["CUDA that the driver serves"].value == "13.0" and found["torch"].value


def test_kernels_are_compiled_before_all_else(roomy, monkeypatch):
    listed = []
    monkeypatch.setattr(kernel_compilation.compilation, "compile_missing", listed.extend)
    found = findings("compiled")
    assert found["kernels that were not compiled"].value == len({kernel.source.name for kernel in listed})
    assert not Numbers._blocks  # nothing that was only listed is computed with


def test_operations_that_measure_do_what_they_say(roomy, monkeypatch):
    device = Device("cuda")
    sums = roofline.read_all(Tensor.full((1003,), 2.0, device="cuda"))
    assert sum(sums.tolist()) == 2006.0 and sums.shape == (8,)
    sums, operations = roofline.fma_all(3, 1.0, 0.0, device=device)
    assert sums.tolist() == [256 * (8 * block + 28) for block in range(8)] and operations == 2 * 3 * 8 * 256 * 8
    sums, operations = roofline.pair_all(2, device=device)
    assert sums.tolist() == [4 * 256 * (28 + 8 * 2 * 32)] * 4 and operations == 2 * 2 * 8 * 2048 * 8 * 4
    sums, operations = roofline.dot_all(1, device=device)
    assert sums.tolist() == [4 * 256 * 32 * 36] * 2 and operations == 2 * 8 * 4096 * 8 * 2
    monkeypatch.setattr(machines, "ROUNDS", 1)
    monkeypatch.setattr(machines, "SECONDS", 0.0)
    machine = machines.Machine(device, 1 << 12, arithmetic="int8")
    assert machine.bandwidth() > 0 and machine.operations() > 0 and machine.buffer_bytes == 1 << 12


def test_peaks_and_launches(roomy):
    found = findings("peaks")
    assert all(each.value > 0 for each in found.values()) and len(found) == 3
    assert {"kernel in a graph", "graph of one kernel, and a wait for it"} < set(findings("launches"))


@pytest.mark.parametrize("part", ["agreement", "repeats", "independence"])
def test_results_and_their_bits(roomy, part):
    found = findings(part)
    assert len(found) > 5 and all(each.fine for each in found.values())


@pytest.mark.parametrize("part", ["reads", "prefill"])
def test_shares_of_the_peaks(roomy, part):
    found = findings(part)
    assert found and all(0 < each.value < math.inf and not each.wrong for each in found.values())


def test_whole_models(roomy):
    found = findings("models") | findings("logits")
    assert found["tiny: the same answer beside others"].fine and found["tiny: answer of 3 behind 5"].value > 0
    assert found["tiny, 1 layers: logits against the CPU's"].value < 1e-3


def test_a_tower(roomy):
    found = findings("sight")
    assert found["tower: embeddings of a picture against the CPU's"].value < 1e-3
    assert found["tower: a picture alone and beside another"].fine
    assert found["tower: picture of 300 x 280"].value > 0


def test_drafts_penalties_and_towers_are_among_what_is_computed():
    names = [subject.name for subject in kernel_checks.subjects(SMALL)]
    for kind in ("commit to states", "commit to inputs", "penalties", "image_patches", "attention of a tower"):
        assert any(name.startswith(kind) for name in names), kind
    drafted, _ = (
        subject.make(Numbers(Device("cpu"))) for subject in draft_subjects.drafts(SMALL) if "drafted" in subject.name
    )
    before = drafted.outs[1].clone()
    out, state, learned, keys, decay = drafted.once()
    assert state.tolist() == before.tolist()  # drafted tokens leave the states as they are
    assert all(max(map(abs, kept.reshape(-1).tolist())) > 0 for kept in (out, learned, keys, decay))


def test_models_are_cut_to_the_memory():
    with having(FakeDriver(facts(nbytes=200_000))):
        assert model_checks._layers(Check(Device("cuda"), SMALL), *SMALL.models["tiny"]) == 1
    with having(FakeDriver()):
        assert model_checks._layers(Check(Device("cuda"), SMALL), *SMALL.models["tiny"]) == 2


def test_checkpoints(roomy, tmp_path):
    golden, bare = Path(__file__).parents[1] / "golden" / "qwen3" / "tied_gqa2", tmp_path / "bare"
    shutil.copytree(golden, tmp_path / "short")
    shutil.copytree(golden, bare, ignore=shutil.ignore_patterns("expected"))
    file = tmp_path / "short" / "expected" / "greedy.json"
    asked = json.loads(file.read_text("utf-8"))
    asked["prompts"] = [{**prompt, "greedy": prompt["greedy"][:2]} for prompt in asked["prompts"][:2]]
    file.write_text(json.dumps(asked), "utf-8")
    folders, shapes = [tmp_path / "short", bare], replace(SMALL, context=(3, 1))
    (report,) = gpu_check.check("cuda", shapes, parts=["checkpoints"], minutes=60, checkpoints=folders)
    assert not report.failed, report
    found = {each.what: each for each in report.findings}
    assert found["short: greedy answers"].fine and found["short: logits of 2 tokens"].fine
    assert found["bare: logits against the CPU's"].fine


def test_what_is_computed_at_real_sizes_has_names_of_its_own():
    names = [subject.name for subject in kernel_checks.subjects(REAL)]
    assert len(names) == len(set(names)) > 400
    assert sum(subject.decodes for subject in kernel_checks.subjects(REAL)) > 100


def test_a_part_that_fails_ends_no_other(roomy, monkeypatch, tmp_path, capsys):
    def broken(check):
        yield Finding("before", 1.0)
        raise DeviceError("the GPU is gone")

    monkeypatch.setitem(gpu_check.PARTS, "peaks", (broken, 1))
    out = tmp_path / "report.json"
    arguments = ["--small", "--out", str(out), "--part", "peaks", "--part", "facts"]
    assert gpu_check.main(arguments) == 1
    parts = json.loads(out.read_text("utf-8"))["parts"]
    assert parts["peaks"]["error"] == "DeviceError: the GPU is gone" and len(parts["peaks"]["findings"]) == 1
    assert parts["facts"]["error"] == "" and parts["facts"]["findings"]
    shown = capsys.readouterr()
    assert "ended by an error" in shown.out and "peaks: 1 findings" in shown.err


def test_what_there_is_no_time_for_is_said(roomy):
    check = Check(Device("cuda"), SMALL)
    report = run_part("agreement", kernel_checks.agreement, check, 0.0)
    assert not report.findings and len(report.left_out) == len(list(kernel_checks.subjects(SMALL)))
    assert "left out for want of time" in gpu_check.shown([report]) and not report.failed


def test_a_wrong_result_is_found(roomy, monkeypatch):
    def odd(numbers):
        out = numbers.floats(2, 3)
        if numbers.device.stream is not None:
            out[0, :1].fill_(9.0)
        return Work([lambda: None], [out])

    for within in (0.0, 1e-3):
        monkeypatch.setattr(kernel_checks, "subjects", lambda _, w=within: iter([Subject("odd", odd, w)]))
        report = run_part("agreement", kernel_checks.agreement, Check(Device("cuda"), SMALL), 60.0)
        assert report.failed and report.findings[0].wrong and "WRONG" in gpu_check.shown([report])


def test_bits_that_change_are_found(roomy, monkeypatch):
    def restless(numbers):
        out, one = numbers.floats(2, 3), numbers.floats(2, 3, seed=2)
        return Work([lambda: ops.add(out, one, out=out)], [out])

    monkeypatch.setattr(kernel_checks, "subjects", lambda _: iter([Subject("restless, 2", restless, 0.0)]))
    report = run_part("repeats", kernel_checks.repeats, Check(Device("cuda"), SMALL), 60.0)
    assert report.failed and report.findings[0].value == f"0 of {SMALL.repeats}"


def test_errors_are_measured():
    wanted = Tensor.from_list([[3.0, 4.0]])
    assert relative_error(wanted, wanted) == 0.0
    assert relative_error(Tensor.from_list([[3.0, 4.5]]), wanted) == pytest.approx(0.1)
    assert math.isnan(relative_error(Tensor.from_list([[math.nan, 4.0]]), wanted))
    assert Finding.right("x", math.nan, 1.0).wrong


def test_work_is_timed_by_marks_in_the_stream(roomy):
    x = Tensor.full((1, 8), 1.0, device="cuda")
    seconds = Device("cuda").stream.seconds(lambda: ops.add(x, x, out=Tensor.zeros((1, 8), device="cuda")))
    assert seconds > 0 and {"timer", "elapsed"} < set(roomy.calls)
    with pytest.raises(ZeroDivisionError):
        Device("cuda").stream.seconds(lambda: 1 / 0)
    stream = roomy.stream()
    first, last = roomy.timer(stream), roomy.timer(stream)
    with pytest.raises(Misuse):
        roomy.elapsed(first, last)  # nobody waited
    for mark in (first, last):
        roomy.end_event(mark)
    roomy.end_stream(stream)
    with pytest.raises(DeviceError, match="stream"):
        Check(Device("cpu"), SMALL).seconds(lambda: None)


def test_all_drivers_answer_the_same_calls():
    for name, asked in vars(Driver).items():
        if not name.startswith("_"):
            for driver in (Bindings, FakeDriver):
                assert signature(getattr(driver, name)).parameters.keys() == signature(asked).parameters.keys(), name


def test_a_first_token(capsys):
    assert first_token.main(["demo", "cpu"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"import", "load", "token", "second"} and min(found.values()) > 0


def test_processes_of_their_own(monkeypatch):
    monkeypatch.setattr(other_processes, "LEAST", 1.0)
    check = Check(Device("cpu"), SMALL)
    found = {each.what: each.value for each in other_processes.start(check)}
    assert found["first token of another, with compiled kernels"] > found["another, with compiled kernels: token"]
    check.until = time.monotonic() + 1.0
    failing = "raise SystemExit('no such thing')"
    report = run_part("x", lambda c: iter([Finding(str(other_processes._asked(c, ["-c", failing])), 1)]), check, 60.0)
    assert "ended with 1: no such thing" in report.error
    report = run_part("x", lambda c: iter(other_processes._asked(c, ["-c", "while True: pass"])), check, 1.0)
    assert "more than 1 s" in report.error


def test_other_libraries(monkeypatch):
    check = Check(Device("cpu"), SMALL)
    found = list(other_processes.peers(check))
    if "not installed" in str(found[0].value):
        monkeypatch.setattr(other_processes, "find_spec", lambda name: name)
        monkeypatch.setattr(other_processes, "TRANSFORMERS", 'print(\'{"prompt": 2.0, "decode": 3.0}\')')
        found = list(other_processes.peers(check))
    assert len(found) == 2 and all(each.value > 0 for each in found)


def test_what_is_refused(roomy, capsys):
    with pytest.raises(ConfigError, match="it is the CPU"):
        gpu_check.check("cpu", SMALL)
    with pytest.raises(ConfigError, match="more than none"):
        gpu_check.check("cuda", SMALL, minutes=0.0)
    assert gpu_check.main(["--device", "cuda:7", "--small"]) == 1
    assert "error:" in capsys.readouterr().err
