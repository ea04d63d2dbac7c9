import json
import os
import platform
import stat
import sys

import pytest
from needs import needs_modes, on_linux
from numba.core import config

from pio.cli import findings
from pio.kernels import sizes
from pio.machine import cpu_count
from pio.ops import bfloat16, compilation
from pio.system import HERE


def by_name(ran):
    return {f["name"]: f for f in json.loads(ran.stdout)["findings"]}


def test_this_machine_can_run_it(pio):
    ran = pio("doctor", "--json")
    assert ran.exit_code == 0 and json.loads(ran.stdout)["ok"] is True
    found = by_name(ran)
    assert all(f["value"] for f in found.values())
    assert all(bool(f["remedy"]) == (f["state"] != "ok") for f in found.values())
    assert found["cores"]["value"].startswith(str(cpu_count()))
    for name in ("numba", "llvmlite", "tokenizers"):
        assert name in found["packages"]["value"]


@needs_modes
def test_the_folder_of_kernels_is_private():
    assert stat.S_IMODE(os.stat(compilation.cache_folder()).st_mode) == 0o700


def test_the_table_ends_with_advice(pio, monkeypatch):
    monkeypatch.setattr(compilation, "cache_folder", lambda: None)
    ran = pio("doctor")
    assert ran.exit_code == 0 and "\n! compiled kernels: every process compiles anew: set XDG_CACHE_HOME" in ran.stdout


@pytest.mark.parametrize(
    ("patch", "name", "words"),
    [
        (lambda m: m.setattr(compilation, "cache_folder", lambda: None), "compiled kernels", "XDG_CACHE_HOME"),
        (lambda m: m.setattr(compilation, "cache_size", lambda: (0, 0)), "compiled kernels", "pio warmup"),
        (lambda m: m.setattr(compilation, "enabled", lambda: False), "vector instructions", "NUMBA_DISABLE_JIT"),
        (lambda m: m.setattr(findings.machine, "available_memory", lambda: 1000), "memory", "memory_efficient"),
    ],
)
def test_advice(pio, monkeypatch, patch, name, words):
    if name == "vector instructions":
        monkeypatch.setattr(compilation, "cpu_features", lambda: {"avx2": True, "fma": True})
    patch(monkeypatch)
    ran = pio("doctor", "--json")
    found = by_name(ran)[name]
    assert ran.exit_code == 0 and found["state"] == "advice" and words in found["remedy"]


def test_fewer_cores_than_the_machine_has(pio, monkeypatch):
    monkeypatch.setattr(findings.os, "cpu_count", lambda: 999)
    assert f"{cpu_count()} of 999 usable" in by_name(pio("doctor", "--json"))["cores"]["value"]


def test_a_processor_without_vectors(pio, monkeypatch):
    monkeypatch.setattr(HERE, "machine", "x86_64")
    monkeypatch.setattr(compilation, "cpu_features", lambda: {"sse2": True})
    found = by_name(pio("doctor", "--json"))["vector instructions"]
    assert found["state"] == "advice" and "avx2" in found["remedy"]


@pytest.mark.parametrize(
    ("dot", "amx", "there", "state", "words"),
    [
        ("vnni", True, True, "ok", "by AVX-512 VNNI; of prompts and pictures by AMX"),
        ("vnni", False, True, "advice", "by AVX-512 VNNI; the system does not allow AMX, which the processor has"),
        ("avx2", False, False, "ok", "by AVX2"),
        ("portable", False, False, "ok", "by plain ones"),
    ],
)
def test_products_of_bytes(pio, monkeypatch, dot, amx, there, state, words):
    monkeypatch.setattr(sizes, "DOT", dot)
    monkeypatch.setattr(sizes, "AMX", amx)
    monkeypatch.setattr(compilation, "cpu_features", lambda: {"avx2": True, "fma": True, "amx-int8": there})
    found = by_name(pio("doctor", "--json"))["int8 products"]
    assert (found["state"], found["value"]) == (state, words)
    assert ("Linux 5.16" in found["remedy"]) is (state == "advice")


@pytest.mark.parametrize(("there", "words"), [(True, "twice the float32 peak"), (False, "as float32")])
def test_products_of_bfloat16(pio, monkeypatch, there, words):
    monkeypatch.setattr(bfloat16, "multiplies_bfloat16", lambda: there)
    found = by_name(pio("doctor", "--json"))["bfloat16 products"]
    assert found["state"] == "ok" and words in found["value"]


@on_linux
def test_huge_pages(pio, monkeypatch, tmp_path):
    monkeypatch.setattr(HERE, "root", tmp_path)
    assert by_name(pio("doctor", "--json"))["huge pages"]["state"] == "ok"
    file = tmp_path / "sys/kernel/mm/transparent_hugepage/enabled"
    file.parent.mkdir(parents=True)
    for chosen, state in (("always madvise [never]", "advice"), ("always [madvise] never", "ok")):
        file.write_text(chosen, "utf-8")
        found = by_name(pio("doctor", "--json"))["huge pages"]
        assert found["state"] == state and found["value"] in chosen and (state == "ok" or str(file) in found["remedy"])


def test_the_system_is_called_by_its_name(pio):
    found = by_name(pio("doctor", "--json"))["system"]["value"]
    assert found.startswith({"linux": "Linux ", "darwin": "macOS ", "win32": "Windows "}[sys.platform])
    assert platform.version() in found or platform.release() in found or sys.platform == "darwin"


def test_a_missing_package_is_essential(pio, monkeypatch):
    monkeypatch.setattr(findings, "PACKAGES", ("numba", "no-such-package-at-all"))
    ran = pio("doctor", "--json")
    assert ran.exit_code == 1 and json.loads(ran.stdout)["ok"] is False
    assert by_name(ran)["packages"]["remedy"] == "pip install no-such-package-at-all"


@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="nothing is compiled")
def test_warm_up_and_then_again(pio):
    first, second = (json.loads(pio("warmup", "--json").stdout) for _ in range(2))
    assert second["compiled"] == 0
    assert first["compiled"] + first["already_there"] == second["already_there"] > 40


@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="nothing is compiled")
def test_warm_up_a_model(pio):
    ran = pio("warmup", "demo")
    assert ran.exit_code == 0 and "0 kernels compiled" in ran.stdout and str(compilation.cache_folder()) in ran.stdout
    assert pio("warmup", "nowhere").exit_code == 1


@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="nothing is compiled")
def test_warm_up_covers_every_format(pio):
    assert pio("warmup").exit_code == 0
    for form in ("int8", "int4", "int4_zero_point"):
        assert "0 kernels compiled" in pio("warmup", "demo", "--quantize", form).stdout, form
    ran = pio("warmup", "--quantize", "int4")
    assert ran.exit_code == 1 and "for models that are named" in ran.stderr


def test_warm_up_without_a_folder_is_refused(pio, monkeypatch):
    monkeypatch.setattr(compilation, "cache_folder", lambda: None)
    ran = pio("warmup")
    assert ran.exit_code == 1 and "pio doctor" in ran.stderr
