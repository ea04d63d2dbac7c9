"""What a model says to its callers: arguments taken and refused, whichever way they are given."""

import pytest

import pio

PROMPT = "def area(width, height):"


@pytest.fixture(scope="module")
def model():
    with pio.load("demo") as loaded:
        yield loaded


def test_fields_in_a_dict_are_fields(model):
    named = model.generate(PROMPT, max_new_tokens=7, temperature=0)
    given = model.generate(PROMPT, {"max_new_tokens": 9, "temperature": 0, "stop": None}, max_new_tokens=7)
    assert named.token_ids == given.token_ids and len(given.token_ids) == 7
    with pytest.raises(pio.ConfigError, match="params: found 0, expected"):
        model.generate(PROMPT, 0)
