"""Options of GPUs on the command line, with a GPU whose kernels all run on the CPU."""

import re
from pathlib import Path

import pytest

pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

from typer.testing import CliRunner

from pio.cli.app import make_app

MODEL = Path(__file__).parents[1] / "golden/qwen3/tied_gqa2"
NOTHING_THERE = "--device", "cuda", "--cuda-kernels", "none"


def pio(*arguments):
    return CliRunner().invoke(make_app(), [str(a) for a in arguments], prog_name="pio")


def test_an_answer(driver):
    here, there = (
        pio("generate", "demo", "def f(", "-n", 3, "-t", 0, *where) for where in (("--device", "cpu"), NOTHING_THERE)
    )
    assert here.exit_code == there.exit_code == 0 and here.stdout == there.stdout
    ran = pio("generate", "demo", "def f(", "-n", 3, "--verbose", *NOTHING_THERE)
    assert re.search("^plugin: .* on cuda:0$", ran.stderr, re.MULTILINE) and "launch" not in driver.calls
    ran = pio("generate", "demo", "def f(", "-n", 3, "--verbose", "--threads", 1)
    assert "--device auto runs on the CPU: " in ran.stderr and "on 1 thread\n" in ran.stderr


@pytest.mark.parametrize("command", ["verify", "warmup"])
def test_commands_that_load_models(driver, command):
    ran = pio(command, MODEL, *NOTHING_THERE)
    assert ran.exit_code == 0 and driver.calls.count("allocate") and "launch" not in driver.calls


@pytest.mark.parametrize("command", ["generate", "chat", "bench", "verify", "warmup"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "cuda:0: cache, activations and weights take .* give more --gpu-memory"),
        (("--offloaded-experts", "copy"), "--offloaded-experts says nothing of a model without experts; leave it out"),
    ],
)
def test_layers_that_do_not_fit(driver, command, options, words):
    given = ["demo", *(["def f(", "-n", 1] if command == "generate" else [])]
    ran = pio(command, *given, *NOTHING_THERE, "--gpu-memory", "1KiB", *options)
    assert re.search(words, ran.output)
    assert ran.exit_code == 1


@pytest.mark.parametrize("option", [("--gpu-memory", "1GiB"), ("--offloaded-experts", "copy")])
def test_a_warm_up_of_everything_has_no_layers_elsewhere(driver, option):
    ran = pio("warmup", *NOTHING_THERE, *option)
    assert ran.exit_code == 1 and f"{option[0]} is for models that are named" in ran.stderr


@pytest.mark.parametrize("command", ["generate", "chat", "bench"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--device", "cuda:7"), "there is no device cuda:7: this machine has one GPU"),
        (("--device", "gpu"), "device is 'gpu': expected auto, cpu, cuda or a GPU by its number, such as cuda:1"),
        (("--cuda-kernels", "-nrom"), "'-nrom' is none; did you mean norm"),
        (
            ("--device", "cpu", "--cuda-kernels", "-norm"),
            "--cuda-kernels says nothing with --device 'cpu'; leave it out",
        ),
        (("--device", "cpu", "--gpu-memory", "1GiB"), "--gpu-memory says nothing with --device 'cpu'; leave it out"),
        (("--gpu-memory", "much"), "'much'"),
        (("--offloaded-experts", "move"), "--offloaded-experts is 'move': expected 'auto', 'copy' or 'compute'"),
    ],
)
def test_what_cannot_be(driver, command, options, words):
    ran = pio(command, "demo", *(["text"] if command == "generate" else []), *options)
    assert ran.exit_code == 1 and words in ran.stderr
