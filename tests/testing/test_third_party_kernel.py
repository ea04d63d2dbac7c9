"""A package of somebody else's brings a kernel: compiled as pio's are, run in its pool, recorded in steps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from third_party import CONFIG, FACTOR, KERNELS, NAME, SCALING, installed

import pio
from pio.loading.safetensors import SafetensorsFile, write_safetensors
from pio.ops import compilation, kernels
from pio.tensor import Tensor
from pio.testing.check_plugin import check_plugin
from pio.testing.compare import bits
from pio.testing.random_checkpoint import write_random_checkpoint

PROMPT = [3, 100, 7, 55, 21]


def answers(folder: Path) -> tuple[list[int], bytes]:
    with pio.load(folder, progress=False) as model:
        tokens = model.generate(PROMPT, temperature=0.0, max_new_tokens=9, ignore_eos=True).token_ids
        return tokens, bits(model.logits(PROMPT))


def test_it_runs_in_recorded_steps_with_the_bits_that_it_should_have(tmp_path: Path) -> None:
    with installed(tmp_path / "plain"):
        folder = write_random_checkpoint(tmp_path / "model", CONFIG, tokenizer=False)
        file = SafetensorsFile(folder / "model.safetensors")
        tensors = {name: file.tensor(name).clone() for name in file.names}
        unscaled = answers(folder)
        doubled = {name: pio.ops.add(x, x) if ".after." in name else x for name, x in tensors.items()}
        (tmp_path / "doubled").mkdir()
        (tmp_path / "doubled" / "config.json").write_bytes((folder / "config.json").read_bytes())
        write_safetensors(tmp_path / "doubled" / "model.safetensors", doubled)
        expected = answers(tmp_path / "doubled")  # a norm of twice the weights, to the bit
    with installed(tmp_path / "scaling", files=SCALING):
        assert check_plugin(NAME) == []
        assert answers(folder) == expected != unscaled


SCRIPT = """
import sys
from pio.ops import compilation
from pio.tensor import Tensor

made, loaded = [], []
with compilation.watch(made.append, loaded=loaded.append):
    from acorn_models.acorn.kernels import scale
    print([x for x in scale(Tensor.full((37,), 3.0)).tolist()][36])
names = [[name for name in names if "scale" in name or "factor" in name] for names in (made, loaded)]
print("compiled" if "scale_parts" in names[0] else "loaded" if any("scale_parts" in n for n in names[1]) else names)
"""


@pytest.mark.skipif(not compilation.enabled() or compilation.checked(), reason="no kernels are kept")
def test_what_is_kept_of_it_belongs_to_its_own_sources(tmp_path: Path) -> None:
    def run() -> list[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
        command = [sys.executable, "-c", SCRIPT]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=600)
        return ran.stdout.split()

    with installed(tmp_path, files=SCALING) as folder:
        assert run() == ["6.0", "compiled"]
        assert run() == ["6.0", "loaded"]
        (folder / "factor.py").write_text(
            FACTOR.replace("2.0", "5.0"), "utf-8"
        )  # of which the kernel's file knows nothing
        assert run() == ["15.0", "compiled"]
        assert run() == ["15.0", "loaded"]


def test_a_kernel_in_no_file_runs_too() -> None:
    scope: dict[str, object] = {"__name__": "typed_at_a_prompt"}
    text = KERNELS.replace("from acorn_models.acorn.factor import factor", "").replace("splat(factor())", "splat(7.0)")
    exec(compile(text, "<prompt>", "exec"), scope)
    scale = scope["scale"]
    assert callable(scale) and scale(Tensor.full((19,), 3.0)).tolist() == [21.0] * 19


def no_annotation(x: int, n, part: int, parts: int) -> None: ...  # type: ignore[no-untyped-def]
def no_number(x: int, n: str, part: int, parts: int) -> None: ...
def any_number(*x: int, part: int, parts: int) -> None: ...
def no_parts(x: int, n: int) -> None: ...
def other_parts(x: int, part: int, count: int) -> None: ...


@pytest.mark.parametrize("make", [kernels.parallel_kernel, kernels.parallel_kernel_per_dtype])
@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (no_annotation, "kernel no_annotation: parameter n has no annotation, expected .* int .* or float"),
        (no_number, "kernel no_number: parameter n: 'str' has the annotation str"),
        (any_number, "kernel any_number: parameter .*x: 'int'"),
        (no_parts, "kernel no_parts: its last two parameters must be part: int, parts: int"),
        (other_parts, "kernel other_parts: its last two parameters"),
    ],
)
def test_a_kernel_without_its_annotations_is_refused_by_name(make: object, fn: object, words: str) -> None:
    assert callable(make)
    with pytest.raises(pio.ConfigError, match=words):
        make(fn)
    with pytest.raises(pio.ConfigError, match=words):
        make(parts_per_thread=2)(fn)
