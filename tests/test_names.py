"""The public names: all there, none imported before it is used."""

import subprocess
import sys

import pytest

import pio


@pytest.mark.parametrize("name", pio.__all__)
def test_every_public_name_can_be_had(name):
    found = getattr(pio, name)
    assert name in dir(pio) and (getattr(found, "__doc__", None) or isinstance(found, pio.DType))


def test_what_calls_return_has_public_types():
    with pio.load("demo") as model:
        handle = model.submit("def f(", max_new_tokens=2, logprobs=0)
        result, events, pieces = handle.result(), handle.events(), iter(handle)
        assert isinstance(next(events), pio.TokenEvent) and isinstance(pieces, pio.Stream)
        assert isinstance(handle, pio.Handle) and isinstance(result, pio.Generation)
        assert isinstance(result.usage, pio.Usage) and isinstance(result.timings, pio.Timings)
        assert isinstance(result.logprobs[0], pio.TokenLogprobs)
        assert isinstance(model.metadata, pio.ModelMetadata) and isinstance(model.manifest, pio.PluginManifest)


def test_types_of_answers_come_without_the_compiler():
    code = "import sys, pio; pio.ModelMetadata, pio.Usage, pio.DType; print('numba' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == "False"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Generatoin'"):
        _ = pio.Generatoin
