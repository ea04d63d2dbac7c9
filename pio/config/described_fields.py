"""JSON schemas that describe their fields with the text below each of them, read when somebody asks for a schema."""

from __future__ import annotations

import ast
import inspect
import textwrap
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler


class DescribedFields(BaseModel, frozen=True):
    """A frozen pydantic class whose JSON schema has the text below a field as the field's description.

    pydantic's own ``use_attribute_docstrings`` reads and parses the source when the class is made, in every process.
    """

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler, /) -> dict[str, Any]:
        schema = handler(core_schema)
        fields = cast("dict[str, dict[str, Any]]", handler.resolve_ref_schema(schema).get("properties", {}))
        for name, text in field_texts(cls).items():
            if name in fields:
                fields[name].setdefault("description", text)
        return schema


def field_texts(model: type[BaseModel]) -> dict[str, str]:
    """Return the text below each field of a class and of those that it derives from.

    A class whose source is not there, such as one of a program that was shipped without, or cannot be read, has none.
    """
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, DescribedFields) and base is not DescribedFields:
            found.update(_texts_of(base))
    return found


def _texts_of(model: type) -> dict[str, str]:
    try:
        found = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    except (OSError, TypeError, SyntaxError):  # there is none, or the file is another one by now
        return {}
    steps = next((node.body for node in found if isinstance(node, ast.ClassDef)), list[ast.stmt]())
    return {
        field.target.id: inspect.cleandoc(below.value.value)
        for field, below in pairwise(steps)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str)
    }
