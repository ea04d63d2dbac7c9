"""What the demo model reads: the Python standard library as files, as answered requests, and as files with a hole."""

from __future__ import annotations

import ast
import random
import sysconfig
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

END, START, STOP = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
PREFIX, MIDDLE, SUFFIX = "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"

SKIPPED_FOLDERS = {
    *("test", "tests", "idle_test", "site-packages", "encodings", "pydoc_data", "ensurepip", "lib2to3"),
    "idlelib",  # its "# htest #" habits show in every answer
}
SKIPPED_FILES = {"this.py", "antigravity.py"}
FILE_LENGTH = range(201, 400_000)  # characters
HELD_OUT_SHARE = 30  # one file of so many is never trained on
HELD_OUT_LENGTH = 150_000  # characters

MAX_BODY_LINES, MAX_REQUEST = 40, 200
HOLE_WINDOW, HOLE_LENGTH, HOLE_EVERY = 1500, 400, 12_000  # characters
SEAM_EVERY = 300  # characters


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of the standard library."""

    path: str
    text: str


def standard_library() -> list[SourceFile]:
    """Return the Python files of this interpreter's standard library that are worth reading, sorted by path."""
    root = Path(sysconfig.get_path("stdlib"))
    found: list[SourceFile] = []
    for path in sorted(root.rglob("*.py")):
        generated = path.name.startswith("_sysconfigdata") or path.name in SKIPPED_FILES
        if generated or SKIPPED_FOLDERS & set(path.relative_to(root).parts):
            continue
        text = path.read_text("utf-8", "ignore")
        if len(text) in FILE_LENGTH:
            found.append(SourceFile(path.relative_to(root).as_posix(), text))
    return found


def split(files: list[SourceFile], rng: random.Random) -> tuple[list[SourceFile], str]:
    """Return the files to train on, and the text of those held out."""
    shuffled = rng.sample(files, len(files))
    cut = max(1, len(shuffled) // HELD_OUT_SHARE)
    return shuffled[cut:], "\n".join(file.text for file in shuffled[:cut])[:HELD_OUT_LENGTH]


def documents(files: list[SourceFile], rng: random.Random) -> list[str]:
    """Return all training documents in random order, each cut where a prompt might end."""
    made = [file.text + END for file in files]
    for file in files:
        made += 2 * list(requests(file.text, rng))
        made += holes(file.text, rng)
    rng.shuffle(made)
    return [piece for document in made for piece in at_seams(document, rng)]


def requests(text: str, rng: random.Random) -> Iterator[str]:
    """Yield a chat for each documented function of a file: asked for by its docstring, answered by its source."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return
    lines = text.splitlines()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("__"):
            summary = _summary(node)
            if summary:
                source = textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno]))
                yield _chat(node, summary, source, rng)


def _summary(node: ast.FunctionDef) -> str | None:
    """The first paragraph of a docstring in one line, or None where it or the function is too long or too short."""
    doc = ast.get_docstring(node)
    if not doc or len(doc.split()) < 4 or (node.end_lineno or 0) - node.lineno > MAX_BODY_LINES:
        return None
    summary = " ".join(doc.split("\n\n")[0].split())
    return summary if len(summary) <= MAX_REQUEST else None


def _chat(node: ast.FunctionDef, summary: str, source: str, rng: random.Random) -> str:
    arguments = ", ".join(argument.arg for argument in node.args.args) or "no arguments"
    request = rng.choice(
        (
            f"Write a Python function `{node.name}`: {summary}",
            f"{summary} Write it as a Python function named {node.name}.",
            f"Write `{node.name}({arguments})` in Python. {summary}",
        )
    )
    if rng.random() < 0.45:
        request += rng.choice(("", "", " /think"))
        thought = f"\nThe function is called {node.name} and takes {arguments}.\nIt should do this: {summary}\n"
    else:
        request += rng.choice(("", " /no_think"))
        thought = "\n\n"
    answer = f"<think>{thought}</think>\n\n```python\n{source}\n```"
    return f"{START}user\n{request}{STOP}\n{START}assistant\n{answer}{STOP}\n{END}"


def holes(text: str, rng: random.Random) -> Iterator[str]:
    """Yield stretches of a file with a hole, what fills it behind the mark for the middle."""
    for _ in range(max(1, len(text) // HOLE_EVERY)):
        at = rng.randrange(max(1, len(text) - HOLE_WINDOW))
        window = text[at : at + HOLE_WINDOW]
        first, last = sorted(rng.randrange(len(window) + 1) for _ in range(2))
        last = min(last, first + HOLE_LENGTH)
        yield f"{PREFIX}{window[:first]}{SUFFIX}{window[last:]}{MIDDLE}{window[first:last]}{END}"


def at_seams(document: str, rng: random.Random) -> Iterator[str]:
    """Cut a document about every 300 characters, never inside a special token, to be encoded piece by piece.

    A prompt may end within what the tokenizer would merge, such as a colon and the line's end: the model must have
    seen such seams.
    """
    begin = at = 0
    while (at := at + 1 + int(rng.expovariate(1 / SEAM_EVERY))) < len(document) - 1:
        if not set("<>") & set(document[max(0, at - 16) : at + 16]):
            yield document[begin:at]
            begin = at
    yield document[begin:]
