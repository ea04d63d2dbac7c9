"""What callers give as ``response_format``, read and checked without compiling anything."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, TypeAlias, cast

from pydantic import BaseModel

from pio.errors import ConfigError
from pio.loading.model_file import shown
from pio.structured.schema_size import check_schema, check_source
from pio.structured.schema_work import schemas_in
from pio.text.rust_calls import check_text

Kind: TypeAlias = Literal["json", "regex", "choice", "grammar"]

REGEX: Final = "regex:"
_FORMS: Final = (
    'a pydantic class, a JSON schema, {"type": "json_schema", "json_schema": {"schema": …}}, {"type": "json_object"}, '
    '"regex:…", a list of texts to choose from, or {"type": "grammar", "grammar": …}'
)
_ABOUT: Final = frozenset({"name", "description", "strict", "schema"})  # what OpenAI's form says beside the schema
_MAX_CHOICES: Final = 10_000
_MAX_OPERATORS: Final = 12
_QUOTED: Final = re.compile(r'"(?:\\.|[^"\\\n])*"|/(?:\\.|[^/\\\n])*/|//[^\n]*')


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """The shape of an answer.

    Attributes:
        kind: What ``source`` is.
        source: The JSON text of a schema, a regular expression, the JSON text of a list of choices, or a grammar.
        model: The pydantic class that an answer is made an instance of; None for other shapes.
    """

    kind: Kind
    source: str
    model: type[BaseModel] | None = None

    @classmethod
    def of(cls, given: object) -> Self:
        """Read what a caller gives.

        Args:
            given: One of the forms that ``SamplingParams.response_format`` lists, or what this has returned before.

        Raises:
            ConfigError: It has no such form, or is too large; the message says what is expected.
        """
        if isinstance(given, cls):
            return given
        model = cast("Any", given)
        if isinstance(model, type) and issubclass(model, BaseModel):
            return cls("json", _closed(check_schema(_schema_of(model))), model)
        if isinstance(given, str):
            return cls("regex", _regex(given))
        if isinstance(given, Mapping):
            return cls(*_of_mapping(cast("Mapping[Any, Any]", given)))
        if isinstance(given, (list, tuple)):
            return cls("choice", _choices(cast("list[Any] | tuple[Any, ...]", given)))
        raise ConfigError(f"response_format={shown(given)} cannot be used: expected {_FORMS}")


def _schema_of(model: type[BaseModel]) -> Mapping[Any, Any]:
    try:
        schema: Any = model.model_json_schema()
        if not isinstance(schema, Mapping):  # a hook's
            raise TypeError(f"it is {shown(cast('object', schema))}")
        return cast("Mapping[Any, Any]", schema)
    except Exception as error:  # whatever a program's own hooks raise
        raise ConfigError(
            f"response_format: {model.__name__} has no JSON schema ({shown(str(error), 200)}); "
            "give its fields types that JSON has, or give a schema"
        ) from error


def _closed(text: str) -> str:
    """Return a class's schema without keys that the class would drop, which a model may go on with for ever."""
    schema = json.loads(text)
    for found in schemas_in(schema):
        if found.get("type") == "object" and isinstance(found.get("properties"), dict):
            found.setdefault("additionalProperties", False)
    return check_source(json.dumps(schema))


def _regex(given: str) -> str:
    if not given.startswith(REGEX) or len(given) == len(REGEX):
        raise ConfigError(
            f"response_format={shown(given)} cannot be used: a text is a regular expression and begins with "
            f"{REGEX!r}, such as 'regex:[0-9]+'; expected that or {_FORMS}"
        )
    return _checked(given.removeprefix(REGEX))


def _of_mapping(given: Mapping[Any, Any]) -> tuple[Kind, str]:
    kind = given.get("type")
    if kind == "json_object":
        _refuse_others(given, {"type"})
        return "json", '{"type": "object"}'
    if kind == "json_schema":
        return "json", check_schema(_schema_in(given))
    if kind == "grammar":
        _refuse_others(given, {"type", "grammar"})
        grammar = given.get("grammar")
        if not isinstance(grammar, str) or not grammar.strip():
            raise ConfigError(f"response_format: grammar is {shown(grammar)}, expected the text of a Lark grammar")
        return "grammar", _grammar(grammar)
    if kind == "text":
        raise ConfigError('response_format={"type": "text"} asks for nothing; leave response_format out')
    if not given:
        raise ConfigError(f"response_format={{}} asks for nothing; leave it out, or give {_FORMS}")
    return "json", check_schema(given)


def _schema_in(given: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Return the schema of OpenAI's form, where it stands below ``json_schema`` or beside ``type``."""
    if "json_schema" not in given and "schema" in given:
        about: Any = {name: value for name, value in given.items() if name != "type"}
    else:
        _refuse_others(given, {"type", "json_schema"})
        about = given.get("json_schema")
    if isinstance(about, Mapping) and "schema" not in about and about.keys() - _ABOUT:  # the schema alone
        return cast("Mapping[Any, Any]", about)
    schema = cast("Mapping[Any, Any]", about).get("schema") if isinstance(about, Mapping) else None
    if not isinstance(schema, Mapping):
        raise ConfigError(
            f"response_format: the schema is {shown(cast('object', schema))}, expected a dict at json_schema.schema"
        )
    _refuse_others(cast("Mapping[Any, Any]", about), _ABOUT)
    return cast("Mapping[Any, Any]", schema)


def _refuse_others(given: Mapping[Any, Any], known: frozenset[str] | set[str]) -> None:
    others = [name for name in given if name not in known]
    if others:
        raise ConfigError(
            f"response_format: {shown(others[0])} is no field of this form, whose fields are "
            f"{', '.join(sorted(known))}; leave it out"
        )


def _grammar(text: str) -> str:
    """Return a grammar that asks for nothing that is not done."""
    for word in ("x-guidance", "temperature"):
        if word in text:
            raise ConfigError(
                f"response_format: the grammar says {word!r}, which a grammar cannot set here; leave it out"
                + (", and give temperature as a sampling field" if word == "temperature" else "")
            )
    operators = sum(map(_QUOTED.sub("", text).count, "&~"))
    if operators > _MAX_OPERATORS:
        raise ConfigError(
            f"response_format: the grammar has {operators} operators & and ~, each of which may double the "
            f"work; at most {_MAX_OPERATORS} can be used"
        )
    return _checked(text)


def _choices(given: list[Any] | tuple[Any, ...]) -> str:
    if not given or not all(isinstance(choice, str) and choice for choice in given) or len({*given}) < len(given):
        raise ConfigError(
            f"response_format={shown(given)} cannot be used: a list holds the texts to choose from, at least one, none "
            'empty and none twice, such as ["yes", "no"]'
        )
    if len(given) > _MAX_CHOICES:
        raise ConfigError(f"response_format has {len(given)} choices, at most {_MAX_CHOICES} can be used; give fewer")
    for choice in given:
        check_text(choice, "response_format")
    return check_source(json.dumps([str.__str__(choice) for choice in given], ensure_ascii=False))


def _checked(text: str) -> str:
    check_text(text, "response_format")
    return check_source(text)
