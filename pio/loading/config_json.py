"""Fields of config.json that published folders and transformers 5 spell differently, brought to one form."""

from __future__ import annotations

from typing import Any, NoReturn, cast

from pio.errors import CheckpointError, UnsupportedModelError
from pio.loading.model_file import shown

_SCALED = ("yarn", "llama3", "longrope")
_POSITIVE = (
    "rope_theta",
    "factor",
    "original_max_position_embeddings",
    "attention_factor",
    "partial_rotary_factor",
    "low_freq_factor",
    "high_freq_factor",
)


def dtype(raw: dict[str, Any]) -> str | None:
    """Return the element type in which the weights are said to be stored, such as ``"bfloat16"``, or None.

    Raises:
        CheckpointError: The field is not a name.
    """
    key = "dtype" if raw.get("dtype") is not None else "torch_dtype"
    value = raw.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        _fail(key, value, "the name of an element type such as 'bfloat16'")
    return value.removeprefix("torch.")


def rope_parameters(raw: dict[str, Any], *, default_theta: float = 10_000.0) -> dict[str, Any]:
    """Return the rotary-embedding parameters of either style of config.json as one flat dict.

    ``rope_type`` and ``rope_theta`` are always there. The rest is there when the file gives it, with nulls left out:
    ``factor``, ``original_max_position_embeddings``, ``attention_factor``, ``beta_fast``, ``beta_slow``, ``mscale``,
    ``mscale_all_dim``, ``truncate``, ``partial_rotary_factor``, ``mrope_section`` and whatever else it holds. For YaRN,
    ``factor`` and ``original_max_position_embeddings`` are filled in as transformers does.

    Args:
        raw: The object in config.json, or its text part.
        default_theta: The base where the file gives none, as the model's class in transformers has it.

    Raises:
        CheckpointError: A field has the wrong type or value.
        UnsupportedModelError: Layers of different kinds have different parameters.
    """
    nested = _object(raw, "rope_scaling") or _object(raw, "rope_parameters")
    found = {key: value for key, value in _shared(nested, raw).items() if value is not None}
    for key in ("rope_theta", "partial_rotary_factor"):
        if raw.get(key) is not None:
            found.setdefault(key, raw[key])
    found.setdefault("rope_theta", default_theta)
    old_name = found.pop("type", "default")
    rope_type = found.setdefault("rope_type", old_name)
    if not isinstance(rope_type, str) or not rope_type:
        _fail("rope_type", rope_type, "a name such as 'default' or 'yarn'")
    if rope_type in _SCALED:
        _fill_lengths(found, raw)
    for key in _POSITIVE:
        if key in found:
            found[key] = _positive(key, found[key])
    for key in ("beta_fast", "beta_slow", "mscale", "mscale_all_dim"):
        if key in found:
            found[key] = _number(key, found[key])
            if found[key] < 0:
                _fail(key, found[key], "a number of at least 0")
    if not isinstance(found.get("truncate", True), bool):
        _fail("truncate", found["truncate"], "true or false")
    return found


def _fill_lengths(found: dict[str, Any], raw: dict[str, Any]) -> None:
    longest = raw.get("max_position_embeddings")
    original = raw.get("original_max_position_embeddings") or found.get("original_max_position_embeddings") or longest
    if original is None:
        _fail("original_max_position_embeddings", None, "the context length before scaling")
    found["original_max_position_embeddings"] = original
    if "factor" not in found and longest is not None:
        found["factor"] = _positive("max_position_embeddings", longest) / _positive(
            "original_max_position_embeddings", original
        )


def _shared(nested: dict[str, Any], raw: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that all layers share, where the file may give them for each type of layer."""
    if not nested or not all(isinstance(value, dict) for value in nested.values()):
        return nested
    by_layer = cast("dict[str, dict[str, Any]]", nested)
    layers = raw.get("layer_types")
    if isinstance(layers, list):
        used = {name: by_layer[name] for name in by_layer if name in cast("list[Any]", layers)}
        by_layer = used or by_layer
    first, *others = by_layer.values()
    if any(other != first for other in others):
        raise UnsupportedModelError(
            f"config.json: rope_parameters differ between {', '.join(shown(name) for name in list(by_layer)[:4])} "
            "layers; pio runs models whose layers share them, choose another model or a plugin for this one"
        )
    return first


def _object(raw: dict[str, Any], key: str) -> dict[str, Any]:
    value = raw.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        _fail(key, value, "an object or null")
    return cast("dict[str, Any]", value)


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e30:
        _fail(key, value, "a finite number")
    return float(value)


def _positive(key: str, value: Any) -> float | int:
    if _number(key, value) < 1e-30:  # so that no power or quotient of these leaves float64
        _fail(key, value, "a number above zero")
    if key == "original_max_position_embeddings":
        if not isinstance(value, int):
            _fail(key, value, "a whole number")
        return value
    return float(value)


def _fail(key: str, value: Any, expected: str) -> NoReturn:
    raise CheckpointError(
        f"config.json: {key} is {shown(value)}, expected {expected}; correct the field or download the model again"
    )
