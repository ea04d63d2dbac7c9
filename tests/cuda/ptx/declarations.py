"""Declarations of variables and headers of functions."""

from __future__ import annotations

import re

from .errors import PtxSyntaxError
from .literals import literal
from .operands import Immediate, Variable
from .statements import split
from .types import Type, type_of

_SPACES = {"global", "const", "shared", "local", "param", "reg"}
_IGNORED = {"visible", "weak", "common", "ptr", "managed", "attribute"}
_HEADER = re.compile(
    r"(?P<linkage>(?:\.\w+\s+)*)\.(?P<kind>entry|func)\s*(?:\((?P<returns>[^)]*)\)\s*)?(?P<name>[\w$]+)\s*"
    r"(?:\((?P<params>[^)]*)\))?(?P<rest>.*)$",
    re.DOTALL,
)
_LIMIT = re.compile(r"\.(maxntid|reqntid|minnctapersm|maxnreg)\s+([\d\s,]+)")


def words(text: str) -> tuple[dict[str, str], list[str], str]:
    """Return the words with values (.align 16), the plain words and what follows them."""
    valued, plain = {}, []
    while text.startswith("."):
        found = re.match(r"\.align\s+(\d+)\s*", text)
        if found:
            valued["align"] = found[1]
        else:
            found = re.match(r"\.(\w+)\s*", text)
            if not found:
                raise PtxSyntaxError(f"no declaration: {text!r}")
            plain.append(found[1])
        text = text[found.end() :]
    return valued, plain, text


def variables(text: str) -> list[Variable]:
    """Return the variables of ``.shared .align 16 .b8 name[128] = {...}``."""
    valued, plain, rest = words(text)
    space = next((word for word in plain if word in _SPACES), "")
    names = [word for word in plain if word not in _SPACES | _IGNORED | {"extern"} | {"v2", "v4"} | _SPACES]
    lanes = next((int(word[1]) for word in plain if word in ("v2", "v4")), 1)
    if not space or not names:
        raise PtxSyntaxError(f"no declaration of a variable: {text!r}")
    kind = type_of(names[0])
    made = []
    for item in split(rest):
        found = re.match(r"([\w$%]+)((?:\s*\[\s*\w*\s*\])*)\s*(?:=\s*(.*))?$", item, re.DOTALL)
        if not found:
            raise PtxSyntaxError(f"no declaration of a variable: {text!r}")
        sizes = [int(size or "0", 0) for size in re.findall(r"\[\s*(\w*)\s*\]", found[2])]
        initial = _initial(found[3]) if found[3] else ()
        count = lanes
        for size in sizes:
            count *= size
        if sizes and not count:
            count = len(initial)
        align = int(valued.get("align", kind.nbytes * lanes))
        made.append(Variable(found[1], space, align, kind, count, initial, "extern" in plain))
    return made


def _initial(text: str) -> tuple[int | float | str, ...]:
    found: list[int | float | str] = []
    for item in split(text.strip().replace("{", "").replace("}", "")):
        value = literal(item)
        if isinstance(value, Immediate):
            found.append(f"bits {value.value}" if value.kind == "f32" else value.value)
        else:
            found.append(item)
    return tuple(found)


def header(text: str) -> tuple[str, bool, tuple[Variable, ...], tuple[Variable, ...], dict[str, tuple[int, ...]]]:
    """Return name, whether it is a kernel, parameters, results and limits of a function."""
    found = _HEADER.match(text)
    if not found:
        raise PtxSyntaxError(f"no header of a function: {text!r}")
    limits = {m[1]: tuple(int(n) for n in m[2].replace(",", " ").split()) for m in _LIMIT.finditer(found["rest"])}
    params = tuple(_parameter(item) for item in split(found["params"] or ""))
    returns = tuple(_parameter(item) for item in split(found["returns"] or ""))
    return found["name"], found["kind"] == "entry", params, returns, limits


def _parameter(text: str) -> Variable:
    # .param .u64 .ptr .global .align 16 name: what a pointer points to says nothing of the parameter
    text = re.sub(r"\.ptr\b(\s*\.(global|shared|const|local))?(\s*\.align\s+\d+)?", "", text)
    return variables(text.replace(".reg", ".param"))[0]


def registers(text: str) -> list[tuple[str, Type]]:
    """Return names and types of ``.reg .b32 %r<5>, %x``; a vector gives its components."""
    _, plain, rest = words(text)
    kinds = [word for word in plain if word not in ("reg", "v2", "v4")]
    width = next((int(word[1]) for word in plain if word in ("v2", "v4")), 0)
    kind = type_of(kinds[0])
    found: list[tuple[str, Type]] = []
    for item in split(rest):
        many = re.match(r"([\w$%]+)<(\d+)>$", item)
        names = [f"{many[1]}{n}" for n in range(int(many[2]))] if many else [item]
        if width:
            names = [f"{name}.{letter}" for name in names for letter in "xyzw"[:width]]
        found += [(name, kind) for name in names]
    return found
