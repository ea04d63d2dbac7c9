"""The tool calls of a message as clients write them, brought to one form."""

from __future__ import annotations

from typing import Any, cast

from pio.errors import ConfigError
from pio.loading.model_file import shown
from pio.text import strict_json
from pio.text.arguments import Arguments
from pio.text.plain_data import MAX_DEPTH, plain


def checked_calls(calls: object, name: str) -> list[dict[str, Any]]:
    """Return tool calls with arguments as ``Arguments``, without fields that are None and the ``index`` of streams.

    Args:
        calls: Plain data.
        name: Where they stand, for messages.

    Raises:
        ConfigError: They are no list of dicts, a call has no name, or its arguments are no JSON object.
    """
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in cast("list[object]", calls)):
        raise ConfigError(f"{name} is a {type(cast('object', calls)).__name__}; a list of dicts was expected")
    return [_call(call, f"{name}[{index}]") for index, call in enumerate(cast("list[dict[str, Any]]", calls))]


def _call(call: dict[str, Any], name: str) -> dict[str, Any]:
    found = {key: value for key, value in call.items() if value is not None and key != "index"}
    if "function" in found:
        found.pop("raw", None)  # how the model wrote it, in a message that an answer gave
    elif {"id", "name", "raw"} <= found.keys():  # a pio.ToolCall, as it came
        function = {"name": found["name"], "arguments": found.get("arguments")}
        found = {"id": found["id"], "type": "function", "function": function}
    if found.get("type", "function") != "function":
        raise ConfigError(
            f'{name}["type"] is {shown(found["type"])}; chat templates know calls of functions only, write it as one'
        )
    function = found.get("function", found)  # some clients write name and arguments beside the type
    if not isinstance(function, dict) or not isinstance(cast("dict[str, Any]", function).get("name"), str):
        raise ConfigError(f'{name} names no function; {{"function": {{"name": ..., "arguments": ...}}}} was expected')
    fields = cast("dict[str, Any]", function)
    fields = {**fields, "arguments": _arguments(fields.get("arguments"), f'{name}["function"]["arguments"]')}
    return {**found, "function": fields} if "function" in found else {**found, **fields}


def _arguments(value: Any, name: str) -> Arguments:
    if isinstance(value, Arguments):
        return value
    if isinstance(value, dict):
        return Arguments(cast("dict[str, Any]", value))
    if value is None or (isinstance(value, str) and not value.strip()):  # so do calls without arguments come
        return Arguments({})
    if not isinstance(value, str):
        raise ConfigError(f"{name} is {shown(value)}; a dict or its JSON text was expected")
    try:
        found: object = strict_json.loads(value)
    except RecursionError:
        raise ConfigError(f"{name} is nested deeper than {MAX_DEPTH} levels; give flatter data") from None
    except ValueError as error:
        raise ConfigError(
            f"{name} is {shown(value)}, which is no JSON ({error}); give a dict or its JSON text, "
            "or put what the model wrote into the content"
        ) from None
    if not isinstance(found, dict):
        raise ConfigError(f"{name} is the JSON text {shown(value)}; a JSON object was expected")
    return Arguments(plain(cast("dict[str, Any]", found), name), value)
