"""What a chat template does with a conversation, as far as its syntax tree tells."""

from __future__ import annotations

from typing import Any, NamedTuple

from jinja2 import nodes

_WALKS = ("items", "dictsort", "list", "map", "select", "reject", "selectattr", "rejectattr")


class TemplateFacts(NamedTuple):
    """What a template reads, and in which form it wants it."""

    reads: frozenset[str]  # the variables whose values it looks at
    words: frozenset[str]  # names of fields, and texts that stand in it
    reads_parts: bool  # whether it looks into a content that is a list
    tests_none: bool  # whether it asks if a content is None
    text_arguments: bool  # whether it takes arguments of calls as text and writes them as they are
    walks_messages: bool  # whether it goes through all messages, instead of taking those at certain places


def facts(tree: nodes.Template) -> TemplateFacts:
    """Read a parsed template."""
    names = frozenset(name.name for name in tree.find_all(nodes.Name) if name.ctx == "load")
    attributes = {step.attr for step in tree.find_all(nodes.Getattr)}
    texts = {const.value for const in tree.find_all(nodes.Const) if isinstance(const.value, str)}
    return TemplateFacts(
        reads=names,
        words=frozenset(attributes | texts),
        reads_parts=_reads_parts(tree),
        tests_none=any(test.name == "none" and _names_content(test.node) for test in tree.find_all(nodes.Test)),
        text_arguments=_takes_text_arguments(tree),
        walks_messages=_walks_messages(tree),
    )


def _walks_messages(tree: nodes.Template) -> bool:
    names = {"messages"}

    def derived(node: nodes.Node) -> bool:
        return any(name.name in names for name in (node, *node.find_all(nodes.Name)) if isinstance(name, nodes.Name))

    for step in tree.find_all(nodes.Assign):  # such as ``loop_messages = messages[1:]``
        if isinstance(step.target, nodes.Name) and derived(step.node):
            names.add(step.target.name)
    walked: list[Any] = [loop.iter for loop in tree.find_all(nodes.For)]
    walked += [step.node for step in tree.find_all(nodes.Filter) if step.name in (*_WALKS, "tojson", "string", "join")]
    return any(node is not None and derived(node) for node in walked)


def _names_content(node: nodes.Node) -> bool:
    found = [node, *node.find_all((nodes.Name, nodes.Getattr, nodes.Const))]
    return any("content" in str(getattr(part, name, "")) for part in found for name in ("name", "attr", "value"))


def _reads_parts(tree: nodes.Template) -> bool:
    """Say whether a template looks into the parts of a message's content.

    Where it does not, a list of text parts would be dropped or written out as Python, so its texts are joined first.
    """
    walks: list[nodes.Node] = [loop.iter for loop in tree.find_all(nodes.For)]
    walks += [
        step.node
        for step in tree.find_all(nodes.Filter)
        if step.node is not None and step.name in ("map", "select", "selectattr", "reject", "rejectattr", "join")
    ]
    walks += [
        step.node
        for step in tree.find_all(nodes.Getitem)
        if isinstance(step.arg, nodes.Const) and isinstance(step.arg.value, int)
    ]
    return any(
        _names_content(walk)
        for walk in walks
        # ``content.split(x)[0]`` takes a piece of text, not a part.
        if not any(walk.find_all(nodes.Call)) and not isinstance(walk, nodes.Call)
    )


def _takes_text_arguments(tree: nodes.Template) -> bool:
    """Say whether a template asks if a call's arguments are text, and walks them nowhere.

    One that walks them where they are a dict has a form of its own for them, and JSON text would miss it.
    """
    aliases = _aliases(tree)
    tested = any(test.name == "string" and _is_arguments(test.node, aliases) for test in tree.find_all(nodes.Test))
    walked: list[Any] = [loop.iter for loop in tree.find_all(nodes.For)]
    walked += [step.node for step in tree.find_all(nodes.Filter) if step.name in _WALKS]
    walked += [step.node for step in tree.find_all(nodes.Getattr) if step.attr in ("items", "keys", "values")]
    return tested and not any(_is_arguments(node, aliases) for node in walked)


def _aliases(tree: nodes.Template) -> set[str]:
    """Return the names under which arguments of calls are known: set, or as parameters of macros."""
    found = {"arguments"}
    macros = {macro.name: macro for macro in tree.find_all(nodes.Macro)}
    while True:
        before = len(found)
        for step in tree.find_all(nodes.Assign):
            if isinstance(step.target, nodes.Name) and _is_arguments(step.node, found):
                found.add(step.target.name)
        for call in tree.find_all(nodes.Call):
            macro = macros.get(call.node.name) if isinstance(call.node, nodes.Name) else None
            for parameter, given in zip(macro.args if macro else (), call.args, strict=False):
                if _is_arguments(given, found):
                    found.add(parameter.name)
        if len(found) == before:
            return found


def _is_arguments(node: Any, aliases: set[str]) -> bool:
    match node:
        case nodes.Name():
            return node.name in aliases
        case nodes.Getattr():
            return node.attr == "arguments"
        case nodes.Getitem(arg=nodes.Const(value="arguments")):
            return True
        case nodes.Call(node=nodes.Getattr(attr="get"), args=[nodes.Const(value="arguments"), *_]):
            return True
        case nodes.Filter(name="default" | "d" | "safe"):
            return _is_arguments(node.node, aliases)
        case nodes.Or():
            return _is_arguments(node.left, aliases)
        case _:
            return False
