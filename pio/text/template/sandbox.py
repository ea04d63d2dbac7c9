"""Jinja's immutable sandbox with a budget: templates of strangers render in bounded time, memory and output."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from functools import cache, partial, reduce
from types import BuiltinMethodType, MethodType
from typing import Any, Final, cast

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from markupsafe import Markup

from pio.text.arguments import Arguments
from pio.text.template import methods
from pio.text.template.budget import Budget, TemplateLimit, is_dict, is_sequence
from pio.text.template.call import Unavailable, written
from pio.text.template.compiler import BudgetedGenerator, GenerationTag, prepared
from pio.text.template.filters import filters, tests
from pio.text.template.globals import (
    FUNCTIONS,
    BudgetedEscapeFormatter,
    BudgetedFormatter,
    DictFunction,
    Function,
    TemplateCycler,
    TemplateNamespace,
)

BUDGET: Final = "pio budget"  # no template can name a variable with a space
_MAX_DEPTH = 60  # calls within calls; each takes several Python frames
_OF_DICTS: Final = frozenset(dir(dict))
_PRIVATE = ("_loop_vars", "_block_vars", "caller")  # what compiled templates add to every call
_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "gteq": operator.ge,
    "lt": operator.lt,
    "lteq": operator.le,
    "in": lambda part, whole: part in whole,
    "notin": lambda part, whole: part not in whole,
}


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """The environment; one serves every template and thread, for what a rendering uses up is in its context."""

    code_generator_class = BudgetedGenerator
    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "**", "%"))

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[GenerationTag, loopcontrols],
            optimized=False,  # the optimizer would evaluate 10 ** 10 ** 10 while it compiles
            finalize=_written,
        )
        self.filters = filters(budget_of)
        self.tests = tests(budget_of)
        self.globals: dict[str, Any] = dict(FUNCTIONS)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return prepared(super()._parse(source, name, filename))

    # What compiled templates call.

    def turn(self, context: Context, nodes: int) -> bool:
        """Take a turn of a loop or a macro whose body holds so many nodes, each a fraction of a step."""
        budget: Budget = context.parent[BUDGET]
        budget.spend(1 + (nodes >> 4))
        return True

    def literal(self, context: Context, characters: int) -> None:
        """Take text that stands in the template."""
        budget_of(context).text(characters)

    def made(self, context: Context, value: Any) -> Any:
        """Take a list, tuple or dict that stands in the template."""
        if is_dict(value):
            budget_of(context).walk(*value)  # the keys were hashed
        return budget_of(context).made(value)

    def join_text(self, context: Context, *parts: Any) -> str:
        """``a ~ b``."""
        texts = [part if isinstance(part, str) else written(budget_of(context), part) for part in parts]
        budget_of(context).text(sum(map(len, texts)))
        return "".join(texts)

    def add(self, context: Context, *parts: Any) -> Any:
        """``a + b + c``."""
        if all(type(part) is str for part in parts):
            budget = budget_of(context)
            budget.spend(len(parts))
            budget.text(sum(map(len, parts)))
            return "".join(parts)
        return reduce(partial(self.call_binop, context, "+"), parts)

    def compare(self, context: Context, left: Any, *rest: Any) -> bool:
        """``a < b < c``, which Jinja gives as a, "lt", b, "lt", c."""
        budget: Budget = context.parent[BUDGET]
        if len(rest) == 2 and type(left) is str and type(rest[1]) is str and rest[0] == "eq":
            budget.spend(2 + (len(left) >> 10))  # by far the most frequent: roles
            return left == rest[1]
        for name, right in zip(rest[::2], rest[1::2], strict=True):
            if name in ("in", "notin") and isinstance(left, str) and isinstance(right, str):
                methods.find(budget, right, left)
            else:
                budget.walk(left, right)
            if name in ("in", "notin") and isinstance(right, range):
                budget.spend(len(right))
            if not _COMPARE[name](left, right):
                return False
            left = right
        return True

    def subscript(self, context: Context, value: Any, key: Any) -> Any:
        """``a[b]`` and ``a[b:c]``."""
        budget = budget_of(context)
        if not isinstance(key, slice):
            budget.walk(key)
            return self.getitem(value, key)
        if isinstance(value, str):
            budget.text(len(value))
        elif is_sequence(value):
            budget.items(len(value))
        return budget.made(value[key])

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """``a + b`` and the other signs."""
        budget = budget_of(context)
        budget.spend(1)
        if operator == "+" and (isinstance(left, Arguments) or isinstance(right, Arguments)):
            left, right = written(budget_of(context), left), written(budget_of(context), right)
        work = methods.BINARY.get(operator)
        if work is not None:
            work(budget, left, right)
        elif not all(isinstance(value, (int, float, Undefined)) for value in (left, right)):
            raise TypeError(f"{operator} is for numbers, found {type(left).__name__} and {type(right).__name__}")
        return budget.made(self.binop_table[operator](left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """``f(x)``: only macros, loops, the functions given and known methods of plain data can be called."""
        self, context, target = __self, __context, __obj
        budget = budget_of(context)
        budget.spend(2)
        for value in (*args, *(value for name, value in kwargs.items() if name not in _PRIVATE)):
            budget.size(value)
        if isinstance(target, (Macro, LoopContext, Undefined)):
            budget.spend(4)
            return budget.made(self._descend(budget, context, target, args, kwargs))
        for private in _PRIVATE:
            kwargs.pop(private, None)
        if isinstance(target, Function):
            return budget.made(target(budget, *args, **kwargs))
        owner = getattr(target, "__self__", None) if isinstance(target, (BuiltinMethodType, MethodType)) else None
        name = str(getattr(target, "__name__", ""))
        if isinstance(owner, LoopContext) and name in ("cycle", "changed"):
            budget.walk(*args)
            return target(*args)
        guard = methods.guards(owner).get(name)
        if guard is None:
            raise SecurityError(f"it calls a {type(target).__name__}, which is not allowed")
        if name == "join" and len(args) == 1:
            args = (budget.listed(args[0]),)
        guard(budget, owner, *args, **kwargs)
        return budget.made(target(*args, **kwargs))

    def _descend(self, budget: Budget, context: Context, target: Any, args: Any, kwargs: Any) -> Any:
        if budget.depth >= _MAX_DEPTH:
            raise TemplateLimit(f"it calls itself more than {_MAX_DEPTH} times deep")
        budget.depth += 1
        try:
            return super().call(context, target, *args, **kwargs)
        finally:
            budget.depth -= 1

    # What Jinja's own runtime calls.

    def getattr(self, obj: Any, attribute: str) -> Any:
        """``a.b``."""
        if obj.__class__ is dict and attribute not in _OF_DICTS:  # the general way fails at finding an attribute first
            try:
                return obj[attribute]
            except KeyError:
                return self.undefined(obj=obj, name=attribute)
        if type(obj) is TemplateNamespace and not attribute.startswith("_"):
            try:  # the general way asks a namespace, which answers slowly, several times
                return getattr(obj, attribute)
            except AttributeError:
                return self.undefined(obj=obj, name=attribute)
        return self._known(super().getattr(obj, attribute), attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """``a["b"]``."""
        return self._known(super().getitem(obj, argument), argument)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        """Stop at private names; a method that changes data is undefined, for data may have a key of that name."""
        reason = methods.unavailable(obj, attribute)
        if reason is None:
            raise SecurityError(f"it asks for {attribute[:80]!r} of a {type(obj).__name__}")
        message = f"{type(obj).__name__}.{attribute} is not available in chat templates: {reason}"
        return self.undefined(message, obj=obj, name=attribute, exc=Unavailable)

    def _known(self, value: Any, name: Any) -> Any:
        if isinstance(value, Undefined) and isinstance(name, str) and name.startswith("__"):
            raise SecurityError(f"it asks for {name[:80]!r}")
        return value

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Let templates see the methods in the list, the state of loops, and namespaces."""
        if not super().is_safe_attribute(obj, attr, value):
            return False
        if attr in ("grouper", "list") and type(obj).__name__ == "_GroupTuple":  # what `groupby` gives
            return True
        return attr in methods.guards(cast("object", obj)) or isinstance(
            obj, (LoopContext, Macro, Namespace, Undefined, DictFunction, TemplateCycler)
        )

    def wrap_str_format(self, value: Any) -> Any:
        """Replace ``str.format`` and ``str.format_map`` by forms with limits."""
        if not isinstance(value, (MethodType, BuiltinMethodType)) or value.__name__ not in ("format", "format_map"):
            return None
        text = value.__self__
        if not isinstance(text, str):
            return None
        is_map = value.__name__ == "format_map"

        def run(budget: Budget, *args: Any, **kwargs: Any) -> Any:
            given: Mapping[str, Any] = args[0] if is_map else kwargs
            budget.text(len(text))
            budget.spend(len(text) >> 2)  # a field may be a long path of attributes
            if isinstance(text, Markup):
                formatter: BudgetedFormatter = BudgetedEscapeFormatter(self, budget, escape=text.escape)
            else:
                formatter = BudgetedFormatter(self, budget)
            return type(text)(formatter.vformat(text, () if is_map else args, given))

        return Function(run)


@pass_context
def _written(context: Context, value: Any) -> str:
    return written(budget_of(context), value)


@cache
def sandbox() -> TemplateSandbox:
    """Return the environment that all templates share."""
    return TemplateSandbox()


def budget_of(context: Context) -> Budget:
    """Return the budget of a rendering."""
    budget: Budget = context.parent[BUDGET]
    return budget
