"""What is worth measuring on a model: ``benchmarks/workloads.json`` in its plugin's folder, checked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pio.benchmarks import MAX_TOKENS
from pio.errors import ConfigError

FILE: Final = Path("benchmarks/workloads.json")


class Workload(BaseModel):
    """Requests that a program might have."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(min_length=1)
    """What it is called, unique in its file."""

    prompt_tokens: int = Field(ge=1, le=MAX_TOKENS)
    """Tokens of each prompt."""

    new_tokens: int = Field(ge=1, le=MAX_TOKENS)
    """Tokens of each answer."""

    requests: int = Field(ge=1, le=4096)
    """How many are made at once."""

    @property
    def context(self) -> int:
        """Tokens of each sequence."""
        return self.prompt_tokens + self.new_tokens

    def fitted(self, context: int) -> Workload:
        """Return the workload cut to a model's context: the answer to half of it, and the prompt to what is left."""
        new_tokens = min(self.new_tokens, max(1, context // 2))
        prompt_tokens = min(self.prompt_tokens, max(1, context - new_tokens))
        return self.model_copy(update={"prompt_tokens": prompt_tokens, "new_tokens": new_tokens})


class Workloads(BaseModel):
    """The content of ``workloads.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    description: str
    """One sentence."""

    workloads: list[Workload] = Field(min_length=1)
    """Those that are worth measuring, in the order in which they are shown."""

    @field_validator("workloads")
    @classmethod
    def _check_names(cls, found: list[Workload]) -> list[Workload]:
        names = [workload.name for workload in found]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{names.count(name)} of them are called {name!r}")
        return found

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file of workloads.

        Raises:
            ConfigError: It is none; the message names the file and the field.
        """
        try:
            return cls.model_validate(json.loads(path.read_text("utf-8")))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "the file"
            problem = f"{field}: {first['msg'].removeprefix('Value error, ')}"
        except (OSError, ValueError, RecursionError) as error:
            problem = str(error)
        raise ConfigError(f"{path}: {problem}; correct the plugin's workloads")

    @classmethod
    def of_plugin(cls, folder: Path) -> Self | None:
        """Return the workloads of a plugin's folder, or None where it has none.

        Raises:
            ConfigError: Its file is damaged.
        """
        return cls.read(folder / FILE) if (folder / FILE).exists() else None

    def chosen(self, names: Sequence[str]) -> tuple[Workload, ...]:
        """Return the workloads of those names, or all without one.

        Raises:
            ConfigError: There is none of a name.
        """
        known = {workload.name: workload for workload in self.workloads}
        for name in names:
            if name not in known:
                raise ConfigError(f"there is no workload {name!r}; there are {', '.join(known)}")
        return tuple(known[name] for name in names or known)


DEFAULT: Final = Workloads(
    description="What is measured on a model whose plugin lists no workloads.",
    workloads=[
        Workload(name="question", prompt_tokens=64, new_tokens=128, requests=1),
        Workload(name="prefill", prompt_tokens=512, new_tokens=1, requests=1),
        Workload(name="four at once", prompt_tokens=100, new_tokens=100, requests=4),
    ],
)
