"""Model folders in places that programs forget: names beyond ASCII, long paths; and folders whose model is gone."""

import gc
import os
import shutil
import sys
from pathlib import Path

import pytest
from needs import needs_wide_names

import pio
from pio.loading.checkpoint import resolve
from pio.system import HERE

PROFILE = "Jürgen Ω 名"
ASKED = {"prompt": "def add(a, b):", "max_new_tokens": 6, "temperature": 0}


@pytest.fixture(scope="module")
def expected():
    return {form: answer("demo", form) for form in (None, "int8")}


def answer(folder, form=None, **options):
    with pio.load(folder, context_length=64, quantize=form, **options) as model:
        return model.generate_text(**ASKED)


@needs_wide_names
@pytest.mark.parametrize("mmap", [True, False])
def test_a_folder_beyond_ascii(tmp_path, expected, mmap):
    folder = shutil.copytree(resolve("demo"), tmp_path / PROFILE / "Modell")
    assert answer(folder, mmap=mmap) == answer(str(folder), mmap=mmap) == expected[None]
    made = pio.quantize(folder, tmp_path / PROFILE / "ganz klein", format="int8")
    assert answer(made, mmap=mmap) == expected["int8"]
    assert sorted(os.listdir(tmp_path / PROFILE)) == ["Modell", "ganz klein"]


@needs_wide_names
def test_a_cache_in_a_profile_beyond_ascii(tmp_path, monkeypatch, expected):
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / PROFILE))
    repo = tmp_path / PROFILE / ".cache" / "huggingface" / "hub" / "models--org--tiny"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("c" * 40)
    shutil.copytree(resolve("demo"), repo / "snapshots" / ("c" * 40))
    assert answer("org/tiny") == expected[None]
    shutil.copytree(resolve("demo"), tmp_path / PROFILE / "own")
    assert answer("~/own") == expected[None]


def test_a_path_of_400_characters(tmp_path, expected):
    folder = tmp_path.joinpath(*["k" * 60] * 7)
    if HERE.path_problem(folder / "model.safetensors") is not None:
        pytest.skip("needs a system with long paths")
    shutil.copytree(resolve("demo"), folder)
    try:
        os.path.realpath(folder)
    except OSError as error:
        pytest.skip(f"needs a system that says where long paths lead: {error}")
    assert len(str(folder)) > 400 and answer(folder) == expected[None]
    assert answer(pio.quantize(folder, folder.with_name("small"), format="int8")) == expected["int8"]


@pytest.mark.parametrize("options", [{}, {"mmap": False}, {"form": "int8"}], ids=str)
@pytest.mark.parametrize("damaged", [False, True])
def test_a_folder_whose_model_is_gone_may_be_removed(tmp_path, options, damaged):
    """At once, and not only when Python has looked for circles: Windows removes no file that is open or mapped."""
    folder = shutil.copytree(resolve("demo"), tmp_path / "own")
    config = folder / "config.json"
    if damaged:  # which shows when the weights are open
        config.write_text(config.read_text().replace('"vocab_size": ', '"vocab_size": 1'))
    gc.collect()
    gc.disable()
    try:
        if damaged:
            with pytest.raises(pio.CheckpointError, match=r"but config\.json asks for"):
                answer(folder, **options)
        else:
            answer(folder, **options)
        shutil.rmtree(folder)
        assert still_in_use(folder) == []
    finally:
        gc.enable()


def still_in_use(folder):
    """What a system that removes such files tells of those in a folder which are mapped or open."""
    if sys.platform != "linux":
        return []
    descriptors = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    found = [
        *Path("/proc/self/maps").read_text(encoding="utf-8").splitlines(),
        *map(os.readlink, filter(os.path.islink, descriptors)),
    ]
    return [line for line in found if str(folder) in line]
