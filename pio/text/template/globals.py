# ruff: noqa: D102 - the methods without a docstring are overrides of the formatter's own
"""The functions that chat templates find: those of transformers, each with limits."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import jinja2
from jinja2.exceptions import SecurityError
from jinja2.sandbox import SandboxedFormatter
from jinja2.utils import Namespace
from markupsafe import EscapeFormatter

from pio.text.template import methods
from pio.text.template.budget import Budget, TemplateLimit, small
from pio.text.template.call import unavailable


class RefusedError(jinja2.TemplateError):
    """The template called ``raise_exception``: it refuses the conversation."""


class Function:
    """A function that templates may call; it takes the budget first."""

    __slots__ = ("_run",)

    def __init__(self, run: Callable[..., Any]) -> None:
        self._run = run

    def __call__(self, budget: Budget, *args: Any, **kwargs: Any) -> Any:
        return self._run(budget, *args, **kwargs)

    def __repr__(self) -> str:
        return "<function>"


class DictFunction(Function):
    """``dict(...)``, which also has ``dict.fromkeys``."""

    __slots__ = ("fromkeys",)

    def __init__(self) -> None:
        super().__init__(_dict)
        self.fromkeys = Function(_from_keys)


class TemplateCycler:
    """Jinja's cycler: ``next()`` gives its items in turn, ``current`` the one that is next, ``reset()`` begins anew."""

    __slots__ = ("_items", "_next", "next", "reset")

    def __init__(self, items: tuple[Any, ...]) -> None:
        self._items, self._next = items, 0
        self.next = Function(self._step)
        self.reset = Function(self._begin)

    @property
    def current(self) -> Any:
        return self._items[self._next]

    def _step(self, budget: Budget) -> Any:
        found = self.current
        self._next = (self._next + 1) % len(self._items)
        return found

    def _begin(self, budget: Budget) -> None:
        self._next = 0


class TemplateNamespace(Namespace):
    """Jinja's namespace, without names that begin with an underscore and without writing its contents."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # `self` may be one of the names
        self, given = args[0], dict[str, Any](*args[1:], **kwargs)
        for name in given:
            _check_name(name)
        Namespace.__init__(self, given)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:  # Jinja's would write a namespace that holds itself for ever
        return "<Namespace>"


class BudgetedFormatter(SandboxedFormatter):
    """``str.format`` with limits on width and on the size of what is put in."""

    def __init__(self, env: jinja2.Environment, budget: Budget, **kwargs: Any) -> None:
        super().__init__(env, **kwargs)
        self._budget = budget

    def format_field(self, value: Any, format_spec: str) -> Any:
        self._budget.text(6 * self._budget.size(value))
        methods.format_width(self._budget, format_spec)
        return super().format_field(value, format_spec)

    def convert_field(self, value: Any, conversion: Any) -> Any:
        self._budget.text(10 * self._budget.size(value))
        return super().convert_field(value, conversion)


class BudgetedEscapeFormatter(BudgetedFormatter, EscapeFormatter):
    """The same for Markup, which escapes what is put in."""


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError("it stores a name that begins with an underscore in a namespace")


def _dict(budget: Budget, *args: Any, **kwargs: Any) -> dict[Any, Any]:
    pairs: list[Any] = [item if isinstance(item, dict) else budget.listed(item) for item in args]
    found: dict[Any, Any] = dict(*pairs, **kwargs)
    budget.walk(*found)
    return found


def _from_keys(budget: Budget, keys: Any, value: Any = None) -> dict[Any, Any]:
    found = dict.fromkeys(budget.listed(keys), value)
    budget.walk(*found)
    return found


def _cycler(budget: Budget, *items: Any) -> TemplateCycler:
    if not items:
        raise TypeError("cycler needs an item at least")
    budget.items(len(items))
    return TemplateCycler(items)


def _joiner(_: Budget, sep: Any = ", ") -> Function:
    """Return a function that gives no text first and the separator from then on."""
    first = iter(("",))

    def join(budget: Budget) -> Any:
        return next(first, sep)

    return Function(join)


def _namespace(budget: Budget, *args: Any, **kwargs: Any) -> Namespace:
    budget.items(sum(len(item) for item in args) + len(kwargs))
    return TemplateNamespace(*args, **kwargs)


def _range(budget: Budget, *args: Any) -> range:
    found = range(*args)
    small(len(found), 100_000, "a range of")
    return found


def _refuse(budget: Budget, message: Any) -> None:
    raise RefusedError(str(message)[:1000] if isinstance(message, str) else "no reason given")


def _now(budget: Budget, format: Any) -> str:
    if not isinstance(format, str) or len(format) > 256:
        raise TemplateLimit("it formats the time with more than 256 characters")
    return datetime.now().strftime(format)


FUNCTIONS: Final = {
    "cycler": Function(_cycler),
    "dict": DictFunction(),
    "joiner": Function(_joiner),
    "lipsum": Function(unavailable("lipsum", "it makes random text")),
    "namespace": Function(_namespace),
    "raise_exception": Function(_refuse),
    "range": Function(_range),
    "strftime_now": Function(_now),
}
