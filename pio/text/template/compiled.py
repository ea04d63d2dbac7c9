"""Chat templates are compiled once for all who use them; jinja2 is imported for the first one."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from pio.shelter import sheltered

if TYPE_CHECKING:
    import jinja2

    from pio.text.template.facts import TemplateFacts


class CompiledTemplate(NamedTuple):
    """A template that can be rendered, and what is known of it."""

    template: jinja2.Template
    facts: TemplateFacts


@lru_cache(maxsize=32)
def compiled(source: str) -> CompiledTemplate | str:
    """Compile a template, or say why it cannot be; hostile ones are remembered too."""
    return sheltered(lambda: _compile(source))


def _compile(source: str) -> CompiledTemplate | str:
    import jinja2

    from pio.text.template.facts import facts
    from pio.text.template.sandbox import sandbox

    try:
        tree = sandbox().parse(source)
        found = facts(tree)  # before compiling, which changes the tree
        return CompiledTemplate(sandbox().from_string(tree), found)
    except jinja2.TemplateSyntaxError as error:
        return f"{str(error.message)[:300]} (line {error.lineno})"
    except (RecursionError, MemoryError):
        return "it is nested too deeply"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
