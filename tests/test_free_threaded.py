"""A Python whose threads do not take turns is refused before anything is read; what says so is Python's own word."""

import sys
import sysconfig

import pytest

import pio
from pio.threads import take_turns


@pytest.fixture
def side_by_side(monkeypatch):
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)


def test_threads_of_the_usual_build_take_turns():
    assert sysconfig.get_config_var("Py_GIL_DISABLED") or take_turns()


@pytest.mark.usefixtures("side_by_side")
def test_loading_is_refused_with_a_remedy(tmp_path):
    for name in ("demo", tmp_path / "nothing", "org/model"):
        with pytest.raises(pio.DeviceError, match=r"free-threaded build.*use the usual build.*PYTHON_GIL=1"):
            pio.load(name, download=True)


def test_a_plugin_is_refused_too(monkeypatch):
    with pio.load("demo") as model:
        monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
        with pytest.raises(pio.DeviceError, match="free-threaded build"):
            model.load_model()
        monkeypatch.undo()
        assert model.generate_text("def a(", max_new_tokens=2)  # it is as it was


@pytest.mark.usefixtures("side_by_side")
def test_doctor_says_so():
    from pio.cli import findings

    found = {finding.name: finding for finding in findings.examine()}["Python"]
    assert found.state == "missing" and "free-threaded" in found.value and "usual build" in found.remedy
