"""Whether a model may call tools, must, or must call a certain one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from pio.errors import ConfigError
from pio.loading.model_file import shown


@dataclass(frozen=True)
class ToolChoice:
    """What is asked for.

    Attributes:
        shows: Whether the model sees the tools.
        forced: Whether the answer is to begin with a call.
        tool: Which one it is to call; None for any.
    """

    shows: bool = True
    forced: bool = False
    tool: str | None = None

    @classmethod
    def of(cls, given: object) -> ToolChoice:
        """Read ``"auto"``, ``"none"``, ``"required"``, ``{"name": …}`` or OpenAI's form of that; None is "auto".

        Raises:
            ConfigError: It is none of them.
        """
        if given is None or given == "auto":
            return cls()
        if given == "none":
            return cls(shows=False)
        if given == "required":
            return cls(forced=True)
        fields: dict[str, Any] = {**cast("Mapping[str, Any]", given)} if isinstance(given, Mapping) else {}
        function: Any = fields.get("function", fields)
        name: Any = cast("Mapping[str, Any]", function).get("name") if isinstance(function, Mapping) else None
        if not isinstance(name, str) or fields.get("type", "function") != "function":
            found = shown(cast("object", given))
            raise ConfigError(f'tool_choice is {found}; "auto", "none", "required" or {{"name": ...}} was expected')
        return cls(forced=True, tool=name)
