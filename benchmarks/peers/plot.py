"""Results as a picture: a bar for each speed, engines below each other, a column for each measure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as xml

from benchmarks.peers.catalogue import BASE

# of plans whose results are drawn together
SAME = ("config", "layers", "rounds", "threads", "prompt_tokens", "depth", "new_tokens", "sequences")
NAMES, BAR, NUMBER, GAP, ROW, HEAD = 158, 152, 48, 14, 20, 30  # pixels
# Colours that can be read on white and on black; a picture does not know on which it is shown.
STYLE = (
    "text { font: 12px system-ui, sans-serif; fill: #767d86 } .head, .pio { font-weight: 600 } "
    ".end { text-anchor: end } rect { fill: #8f98a3 } rect.pio { fill: #2f81f7 } "
    "line { stroke: #8f98a3; stroke-opacity: 0.5 }"
)


def picture(files: Sequence[dict[str, Any]]) -> str:
    """Return an SVG picture of what ``run --json`` wrote; all bars of a measure have one scale.

    Raises:
        ValueError: The files cannot stand in one picture, or hold nothing.
    """
    plan = files[0]["plan"]
    for name in SAME:
        found = [file["plan"].get(name) for file in files]
        if any(value != found[0] for value in found):
            raise ValueError(f"{name} differs: {', '.join(map(str, found))}")
    results = [result for file in files for result in file["results"]]
    titles = {
        "prefill": f"prefill of {plan['prompt_tokens']}",
        "decode": "decode",
        "together": f"{plan['sequences']} decoded together",
    }
    most = {name: max((r["medians"].get(name, 0.0) for r in results), default=0.0) for name in titles}
    columns = {name: title for name, title in titles.items() if most[name] > 0}
    if not columns:
        raise ValueError("no speeds, expected some of " + ", ".join(titles))
    formats = list(dict.fromkeys(result["contestant"]["format"] for result in results))
    width = NAMES + len(columns) * (BAR + NUMBER + GAP)
    height = HEAD + ROW * (len(results) + len(formats)) + HEAD
    root = xml.Element("svg", xmlns="http://www.w3.org/2000/svg", role="img", viewBox=f"0 0 {width} {height}")
    root.attrib |= {"width": str(width), "height": str(height)}
    kept = f", {plan['layers']} layers" if plan.get("layers") else ""
    told = f"{Path(plan['config']).parent.name}{kept}: tokens a second, longer is better; medians of {plan['rounds']} "
    told += f"alternating rounds, {plan['threads']} threads"
    xml.SubElement(root, "title").text = told
    xml.SubElement(root, "style").text = STYLE
    starts = {name: NAMES + i * (BAR + NUMBER + GAP) for i, name in enumerate(columns)}
    for name, title in columns.items():
        _text(root, starts[name], 16, title, "head")
    y = HEAD
    for format in formats:
        _text(root, 0, y + 14, format, "head")
        xml.SubElement(root, "line", x1="40", x2=str(width), y1=str(y + 10), y2=str(y + 10))
        for result in results:
            if result["contestant"]["format"] == format:
                y += ROW
                _row(root, y, result, {name: (starts[name], BAR / most[name]) for name in columns})
        y += ROW
    _text(root, 0, height - 10, told)
    xml.indent(root)
    return xml.tostring(root, "unicode") + "\n"


def _row(root: xml.Element, y: int, result: dict[str, Any], scales: dict[str, tuple[int, float]]) -> None:
    """Draw an engine's name, and for each measure a bar with its number behind, or a dash."""
    engine, variant = result["contestant"]["engine"], result["contestant"]["variant"]
    kind = "pio" if engine == BASE else "other"
    _text(root, NAMES - 8, y + 14, f"{engine} {variant}", f"{kind} end")
    for name, (x, scale) in scales.items():
        value = result["medians"].get(name)
        length = 0.0 if value is None else value * scale
        if value is not None:
            box = {"x": str(x), "y": str(y + 4), "width": f"{length:.2f}", "height": str(ROW - 7)}
            xml.SubElement(root, "rect", box | {"class": f"{kind} {name}"})
        _text(root, x + round(length) + 5, y + 14, "–" if value is None else _short(value), kind)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _text(root: xml.Element, x: int, y: int, text: str, kind: str = "") -> None:
    xml.SubElement(root, "text", {"x": str(x), "y": str(y)} | ({"class": kind} if kind else {})).text = text
