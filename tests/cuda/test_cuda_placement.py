"""Where a model runs, and what becomes of requests when something goes wrong with the GPU; kernels are the CPU's."""

import logging
import os
import re
import signal
import threading
from pathlib import Path

import pytest

pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

from fake_driver import FakeDriver, facts
from gpus import having

import pio
from pio import ConfigError, DeviceError, OutOfMemoryError
from pio.cli.findings import _gpus
from pio.cuda import gpu as gpus
from pio.device import Device
from pio.kernels._missing import NoCompiler
from pio.kernels.cuda import _kept

GOLDEN = Path(__file__).parents[1] / "golden"
MODEL = GOLDEN / "qwen3/tied_gqa2"
PROMPT = [5, 11, 3, 17, 8]


def load(folder=MODEL, **options):
    """Load a small model; on a GPU it computes nothing there, for the interpreter takes its time."""
    small = {"context_length": 64, "prefill_chunk": 8, "max_batch_sequences": 3, "speculation": "off"}
    if options.get("device") != "cpu":
        small["cuda_kernels"] = "none"
    return pio.load(folder, **{**small, **options})


def answer(model, prompt=PROMPT, tokens=3):
    return model.generate(prompt, max_new_tokens=tokens, temperature=0, ignore_eos=True).token_ids


@pytest.fixture(scope="module")
def wanted():
    with load(device="cpu") as model:
        return answer(model)


def works_on_the_cpu(wanted):
    with load(device="cpu") as model:
        return answer(model) == wanted


def folders():
    """Return a folder of each architecture."""
    kinds = [kind for kind in sorted(GOLDEN.iterdir()) if kind.is_dir()]
    found = [next((f for f in sorted(kind.iterdir()) if (f / "config.json").exists()), None) for kind in kinds]
    return [folder for folder in found if folder is not None]


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_without_kernels_a_model_has_the_bits_of_the_cpu(driver, folder):
    """Recorded steps, recurrent states, experts, drafts: all of it goes to the CPU and back."""
    found = []
    for device in ("cpu", "cuda"):
        with load(folder, device=device, speculation="auto") as model:
            long = [*PROMPT, *PROMPT, *PROMPT]
            found.append((model.logits(long).to("cpu").tolist(), answer(model, long, 6)))
    assert found[0] == found[1] and "launch" not in driver.calls


def test_a_kernel_that_does_not_compile_ends_no_load(driver, monkeypatch, caplog, wanted):
    def compile(name, architecture):
        raise RuntimeError(f"no {architecture} today")

    monkeypatch.setattr(_kept, "_compile", compile)
    monkeypatch.setattr(_kept, "_file", lambda *_: None)
    with load(device="cuda", cuda_kernels="norm,rope") as model:
        assert answer(model) == wanted
        assert answer(model) == wanted
    warned = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == len(set(warned)) == 3  # once for each kernel, in all steps
    assert all("cannot be made for compute_90a: RuntimeError: no compute_90a today" in message for message in warned)


def test_switches_are_changed_with_the_model(driver, wanted):
    with load(device="cuda", cuda_kernels="none") as model:
        model.update(cuda_kernels=("-norm", "-linear", "-attention"))
        assert model.loaded.model.device.off == {"norm", "linear", "attention"}
        with pytest.raises(ConfigError, match=r"cuda_kernels is 'nrom'.*did you mean norm"):
            model.update(cuda_kernels="nrom")
        assert model.update(device="cpu").cuda_kernels == ("all",)  # which say nothing there
        assert model.metadata.device == "cpu" and answer(model) == wanted
        model.update(threads=2)
        assert model.update(device="cuda", cuda_kernels="none").threads is None
        assert model.metadata.device == "cuda:0" and answer(model) == wanted
        with pytest.raises(DeviceError, match="no device cuda:3"):
            model.update(device="cuda:3")
        assert answer(model) == wanted  # as it was


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "cpu", "cuda_kernels": "none"}, "cuda_kernels says nothing with device='cpu'"),
        ({"device": "cuda", "threads": 2}, "threads=2 says nothing on cuda:0"),
        ({"device": "gpu"}, "device is 'gpu': expected auto, cpu, cuda or a GPU by its number"),
        ({"cuda_kernels": "all,-norm"}, "expected all or none alone, or names of kernels, and 'all' is none"),
        ({"cuda_kernels": "norm,-rope"}, "names of kernels that run on a GPU, or with a minus"),
        ({"cuda_kernels": ()}, "names of kernels that run on a GPU"),
        ({"cuda_kernels": "-atention"}, "'-atention' is none; did you mean attention"),
    ],
)
def test_options_that_contradict_each_other(driver, options, words):
    with pytest.raises(ConfigError, match=words):
        load(**options)


# auto


def lines(caplog):
    return [record.message for record in caplog.records if "device=auto" in record.message]


def test_auto_takes_a_gpu(driver, caplog, wanted):
    with caplog.at_level(logging.INFO, "pio"), load() as model:
        assert model.metadata.device == "cuda:0" and answer(model) == wanted and model.runtime.device == "auto"
    assert lines(caplog) == []
    assert _gpus().value.endswith("; device=auto takes cuda:0 for models that fit there")


def test_auto_takes_the_first_gpu_that_can_be_used(wanted):
    with having(FakeDriver(facts("GTX 1080", (6, 1)), facts("H100"))):
        with load() as model:
            assert model.metadata.device == "cuda:1" and answer(model) == wanted
        assert "device=auto takes cuda:1" in _gpus().value


@pytest.mark.parametrize(
    ("driver", "words"),
    [
        (FakeDriver(version=(12, 8)), r"serves CUDA 12\.8; pio needs 13\.0: install release 580"),
        (FakeDriver(facts("GTX 1080", (6, 1))), r"cuda:0 is a GTX 1080 of compute capability 6\.1; pio needs 8\.0"),
        (FakeDriver(facts(nbytes=300_000)), r"cuda:0: .* take .* may be used; .*"),
    ],
    ids=["old driver", "old GPU", "no room"],
)
def test_auto_is_the_cpu_where_no_gpu_will_do(driver, words, caplog, wanted):
    with having(driver), caplog.at_level(logging.INFO, "pio"):
        with load() as model:
            assert model.metadata.device == "cpu" and answer(model) == wanted
        assert len(lines(caplog)) == 1 and lines(caplog)[0].startswith("device=auto runs on the CPU: ")
        assert re.search(words, lines(caplog)[0])
        with pytest.raises((DeviceError, OutOfMemoryError), match=words):
            load(device="cuda")
        assert driver.calls.count("allocate") <= 4  # seen before a weight was sent
    assert works_on_the_cpu(wanted)


def test_auto_without_a_driver(monkeypatch, caplog, wanted):
    def missing():
        raise DeviceError("there is no NVIDIA driver on this machine; install NVIDIA's driver")

    monkeypatch.setattr(gpus, "driver", missing)
    with caplog.at_level(logging.INFO, "pio"), load() as model:
        assert model.metadata.device == "cpu" and answer(model) == wanted
    assert len(lines(caplog)) == 1 and "there is no NVIDIA driver" in lines(caplog)[0]
    with pytest.raises(DeviceError, match="there is no NVIDIA driver"):
        load(device="cuda")


def test_auto_with_threads_is_the_cpu(driver, caplog):
    with caplog.at_level(logging.INFO, "pio"), load(threads=1) as model:
        assert model.metadata.device == "cpu"
    assert lines(caplog) == ["device=auto runs on the CPU: threads=1 is for the CPU"]


def test_auto_goes_on_where_a_load_fails_half_way(driver, monkeypatch, caplog, wanted):
    """Whatever the GPU says to the model, and all that it had there is given back."""

    def refuse(*_):
        raise NoCompiler("a GPU's kernels have to be compiled")

    monkeypatch.setattr("pio.plugin.loaded_model.warm_up", lambda model, *rest: model.device.stream and refuse())
    with caplog.at_level(logging.INFO, "pio"), load() as model:
        assert model.metadata.device == "cpu" and answer(model) == wanted
        assert len(lines(caplog)) == 1 and "have to be compiled" in lines(caplog)[0]
        stream = Device("cuda").stream
        stream.wait()
        assert sum(stream.held.values()) < 100_000
    with pytest.raises(NoCompiler):
        load(device="cuda")


def test_a_model_too_large_for_a_gpu_takes_nothing_from_another(wanted):
    with having(FakeDriver(facts(nbytes=6_000_000))) as driver, load(device="cuda") as model:
        before = sum(Device("cuda").stream.held.values())
        with pytest.raises(OutOfMemoryError, match=r"cuda:0: cache, .* may be used; give .*cache_tokens"):
            load(device="cuda", cache_tokens=1 << 15)
        assert driver.most[0] < before + 500_000
        with pytest.raises(OutOfMemoryError):
            model.update(cache_tokens=1 << 15)
        assert answer(model) == wanted  # loaded as it was


# What goes wrong later


def test_two_models_on_one_gpu(driver, wanted):
    found = []
    with load(device="cuda") as one, load(device="cuda", max_batch_sequences=2) as other:
        assert one.loaded.model.device.stream is other.loaded.model.device.stream
        threads = [threading.Thread(target=lambda m=m: found.append(answer(m))) for m in (one, other, one, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [wanted] * 4


def test_memory_that_runs_out_in_a_step(driver, monkeypatch, wanted):
    """The request whose step it was ends with the error; what comes later and other models are answered."""
    with load(device="cuda") as model, load(device="cuda") as other:
        copy_in = driver.copy_in

        def refuse(*_):
            raise OutOfMemoryError("the GPU has no memory left: free some, or ask for less")

        monkeypatch.setattr(driver, "copy_in", refuse)
        with pytest.raises(OutOfMemoryError, match="the GPU has no memory left: free some"):
            answer(model)
        monkeypatch.setattr(driver, "copy_in", copy_in)
        assert answer(model) == answer(other) == wanted


def test_a_gpu_that_is_taken_away_from_a_model(driver, wanted):
    with load(device="cpu") as here:
        model = load(device="cuda")
        assert answer(model) == wanted
        driver.lost = "CUDA's driver says 'device unavailable' where it is to finish its work (error 46)"
        handles = [model.submit(PROMPT, max_new_tokens=3, temperature=0) for _ in range(5)]  # more than run at once
        for handle in handles:
            with pytest.raises(DeviceError, match="device unavailable"):
                handle.result()
        with pytest.raises(DeviceError, match="device unavailable"):
            answer(model)
        assert answer(here) == wanted
        model.cleanup()
        with pytest.raises(DeviceError, match="device unavailable"):
            load(device="cuda")
        with load() as again:
            assert again.metadata.device == "cpu" and answer(again) == wanted


def test_a_stream_that_is_closed_under_a_model(driver, wanted):
    model = load(device="cuda")
    Device("cuda").stream.close()
    with pytest.raises(DeviceError, match="stream of cuda:0 was closed"):
        answer(model)
    model.cleanup()
    assert works_on_the_cpu(wanted)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no forks")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_of_a_process_with_a_model_on_the_gpu(driver, wanted):
    """There a model can be loaded on the CPU, by auto too."""
    model = load(device="cuda")
    signal.alarm(120)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = []
        for act in (lambda: answer(model), lambda: load(device="cuda")):
            try:
                said.append(repr(act()))
            except pio.PioError as error:
                said.append(f"{type(error).__name__}: {error}")
        with load() as here:
            said.append(f"{here.metadata.device} {answer(here) == wanted}")
        os.write(writing, "\n".join(said).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        said = pipe.read().splitlines()
    assert os.waitpid(child, 0)[1] == 0
    signal.alarm(0)
    assert said[0] == "PioError: this model was loaded before the process forked; load it again in the child"
    assert said[1].startswith("DeviceError: this process was forked from one that used the GPU") and "spawn" in said[1]
    assert said[2] == "cpu True"
    assert answer(model) == wanted
    model.cleanup()
