"""How large a schema may be: looked at before a compiler sees it, so that a hostile one costs little."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final, cast

from pio.errors import ConfigError
from pio.loading.model_file import shown
from pio.structured.schema_references import check_references
from pio.structured.schema_work import check_work

MAX_DEPTH: Final = 64  # levels; those of 1,400 schemas from the field have at most 26
MAX_VALUES: Final = 50_000  # of these at most 1,055
MAX_CHARACTERS: Final = 1 << 18  # compiling takes half a second and 50 MB then, where it is the worst


def check_schema(schema: Mapping[Any, Any]) -> str:
    """Return a JSON schema as JSON text.

    Raises:
        ConfigError: It holds what JSON has not, is nested too deep (or holds itself), or is too large; or it says
            ``x-guidance``, by which it would switch off what pio promises.
    """
    if "x-guidance" in schema:
        raise ConfigError("response_format: the schema says x-guidance, which pio sets itself; leave it out")
    left: list[tuple[Any, int]] = [(schema, 1)]
    count = 0
    while left:
        value, depth = left.pop()
        count += 1
        if count > MAX_VALUES:
            raise ConfigError(f"response_format: the schema has more than {MAX_VALUES} values; give a smaller one")
        if isinstance(value, (Mapping, list, tuple)):
            if depth > MAX_DEPTH:
                raise ConfigError(
                    f"response_format: the schema is nested deeper than {MAX_DEPTH} levels (or holds itself); "
                    "give a flatter one, with $ref to $defs"
                )
            left += ((inner, depth + 1) for inner in _inside(cast("Any", value)))
        elif not (
            value is None or isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))
        ):
            raise ConfigError(f"response_format: the schema holds {shown(value)}, which is no JSON; write it as JSON")
    text = check_source(json.dumps(schema, default=dict))  # a mapping that is no dict
    plain = json.loads(text)
    check_references(plain)
    check_work(plain)
    return text


def check_source(text: str) -> str:
    """Return what describes the answer, if it is not too long.

    Raises:
        ConfigError: It is.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(
            f"response_format has {len(text)} characters, at most {MAX_CHARACTERS} can be used; give a smaller one"
        )
    return text


def _inside(value: Any) -> list[Any]:
    if not isinstance(value, Mapping):
        return list(value)
    pairs = cast("Mapping[Any, Any]", value)
    for key in pairs:
        if not isinstance(key, str):
            raise ConfigError(f"response_format: the schema has the key {shown(key)}; keys of JSON are texts")
    return list(pairs.values())
