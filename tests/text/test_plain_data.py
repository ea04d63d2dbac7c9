"""Objects of callers become data without methods."""

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from typing import Any

import pytest
from pydantic import BaseModel

from pio.errors import ConfigError
from pio.text.plain_data import is_record, plain


class Unit(Enum):
    METRIC = "metric"


class Place(BaseModel):
    city: str
    unit: Unit | None = None
    extra: Any = None


@dataclass
class Turn:
    role: str
    place: Place


def test_models_and_dataclasses() -> None:
    turn = Turn("user", Place(city="Oslo", unit=Unit.METRIC))
    expected = {"role": "user", "place": {"city": "Oslo", "unit": "metric", "extra": None}}
    assert plain([turn, OrderedDict(a=(turn,))], "messages") == [expected, {"a": [expected]}]
    assert is_record(turn)
    assert is_record(turn.place)
    assert is_record({})
    for other in (Turn, Place, [], "a", 1, None, object()):
        assert not is_record(other)


def test_objects_that_are_no_data() -> None:
    with pytest.raises(ConfigError, match=r"messages\['a'\]\[0\] is a object; only str"):
        plain({"a": [object()]}, "messages")
    with pytest.raises(ConfigError, match=r"tool is a Place that cannot be written as JSON"):
        plain(Place(city="Oslo", extra=object()), "tool")
    with pytest.raises(ConfigError, match="Turn; only"):
        plain(type("Turn", (), {})(), "x")
