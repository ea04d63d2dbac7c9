"""Options of pictures have an effect, or are refused."""

from __future__ import annotations

from typing import Any

import pytest

import pio


@pytest.mark.parametrize(
    "option",
    [{"max_pixels": 1000}, {"media_cache": 0}, {"background": (1, 2, 3)}, {"allow_remote": ("https://a.example/",)}],
    ids=str,
)
def test_a_model_for_text_refuses_options_of_pictures(option: dict[str, Any]) -> None:
    (name,) = option
    with pytest.raises(pio.ConfigError, match=f"{name} is of no use"):
        pio.load("demo", **option)
    with pio.load("demo") as model:
        with pytest.raises(pio.ConfigError, match=f"{name} is of no use"):
            model.update(**option)
        assert model.generate([1, 2], max_new_tokens=2, ignore_eos=True).token_ids
