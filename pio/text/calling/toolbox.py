"""The tools that a request declares: their names, and what their parameters are."""

from __future__ import annotations

import re
from typing import Any, Final, cast

from pio.errors import ConfigError
from pio.loading.model_file import shown
from pio.text.calling.values import Schema, decode, fitted, in_words, types_of

# What no format can write as a name.
_NAME: Final = re.compile(r"""[^\s<>"'`=\\{}\[\]\x00-\x1f\x7f]{1,256}""")


class Toolbox:
    """Declared tools by name.

    Attributes:
        names: In the order in which they were declared.
    """

    def __init__(self, tools: list[dict[str, Any]]) -> None:
        """Read declarations.

        Args:
            tools: As ``check_tools`` returns them: ``{"type": "function", "function": {"name": …, "parameters": …}}``,
                or what stands in ``"function"`` alone.

        Raises:
            ConfigError: A tool has no name, one that cannot be written in a call, or that of another.
        """
        self._parameters: dict[str, Schema] = {}
        for index, tool in enumerate(tools):
            given: Any = tool.get("function", tool)
            function = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
            name, schema = function.get("name"), function.get("parameters")
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise ConfigError(
                    f"tools[{index}] has the name {shown(name)}; a str of at most 256 characters without spaces, "
                    "quotes, brackets and = was expected"
                )
            if name in self._parameters:
                raise ConfigError(f"tools[{index}] has the name {name!r}, as one before it; give each tool its own")
            if schema is not None and not isinstance(schema, dict):
                raise ConfigError(f"tools[{index}] has the parameters {shown(schema)}; a JSON schema was expected")
            self._parameters[name] = cast("Schema", schema or {})
        self.names = tuple(self._parameters)

    def problem_of_name(self, name: str) -> str | None:
        """Return what is wrong with the name of a call, or None."""
        if name in self._parameters:
            return None
        return f"there is no tool {shown(name)}; the tools are {', '.join(self.names)}" if name else "it names no tool"

    def takes(self, tool: str, parameter: str) -> bool:
        """Whether a tool declares a parameter."""
        return parameter in self._properties(tool)

    def required(self, tool: str) -> bool:
        """Whether a tool cannot be called without arguments."""
        return bool(self._parameters.get(tool, {}).get("required"))

    def decode(self, tool: str, parameter: str, text: str) -> tuple[Any, str | None]:
        """Return the value of an argument that says no type, and what is wrong with it."""
        return decode(text, self._types(tool, parameter))

    def fitted(self, tool: str, parameter: str, value: Any) -> tuple[Any, str | None]:
        """Return the value of an argument that was decoded already, and what is wrong with it."""
        types = self._types(tool, parameter)
        value, fits = fitted(value, types)
        return value, None if fits else f"found {shown(value)}, expected {in_words(types)}"

    def _types(self, tool: str, parameter: str) -> frozenset[str]:
        root = self._parameters.get(tool, {})
        schema = self._properties(tool).get(parameter, root.get("additionalProperties"))
        return types_of(schema, root)

    def _properties(self, tool: str) -> Schema:
        found: Any = self._parameters.get(tool, {}).get("properties")
        return cast("Schema", found) if isinstance(found, dict) else {}
