"""What a filter or function of a template works with, and how it says that it is not available."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from jinja2 import Environment, TemplateRuntimeError
from jinja2.exceptions import SecurityError
from jinja2.filters import make_attrgetter
from jinja2.runtime import Context, Undefined
from jinja2.utils import Namespace

from pio.text.template.budget import Budget, is_dict, is_sequence, is_view


class Unavailable(TemplateRuntimeError):
    """The template asks for something of Jinja or Python that chat templates do not get here."""


class Call(NamedTuple):
    """What a filter works with: the rendering's budget and context."""

    budget: Budget
    context: Context

    @property
    def sandbox(self) -> Environment:
        """The environment."""
        return self.context.environment

    def text(self, value: Any) -> str:
        """Return a value as text; Markup stays Markup, as in Jinja."""
        return value if isinstance(value, str) else written(self.budget, value)

    def paths(self, values: tuple[Any, ...], count: int) -> None:
        """Take what following dotted paths costs for so many items; any text may be one."""
        for value in values:
            if isinstance(value, str):
                self.budget.spend(count * (len(value) >> 3))

    def picked(self, items: list[Any], attribute: Any) -> list[Any]:
        """Return what a path leads to from each item; without a path the items themselves."""
        if attribute is None:
            return items
        self.paths((attribute,), len(items))
        return list(map(make_attrgetter(self.sandbox, attribute), items))


def written(budget: Budget, value: Any) -> str:
    """Return a value as text, for output, ``~`` and filters, and take what that costs."""
    if isinstance(value, str):
        budget.text(len(value))
    elif is_sequence(value) or is_dict(value) or is_view(value):
        size = budget.size(value)
        budget.text(10 * size)
        budget.spend(size >> 6)
    elif isinstance(value, (int, float, range, Undefined, Namespace)) or value is None:
        budget.text(budget.size(value))
    else:
        raise SecurityError(f"it writes out a {type(value).__name__}, which is not data")
    return str(value)


def unavailable(what: str, reason: str) -> Callable[..., NoReturn]:
    """Return a function that refuses to be called, with a reason."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise Unavailable(f"{what} is not available in chat templates: {reason}")

    return refuse
