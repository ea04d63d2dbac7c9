"""The checks of ``pio verify``, each a title and a function that raises a PioError."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from pio.cli.console import size
from pio.cli.loading import describe
from pio.errors import CheckpointError, ConfigError, PioError
from pio.plugin.manifest import AREAS, PluginManifest, import_object
from pio.tensor import Tensor

if TYPE_CHECKING:
    from pio.plugin import TextModelPlugin
    from pio.plugin.loaded_model import LoadedModel

Check: TypeAlias = tuple[str, Callable[[], object]]


def manifest_checks(problem: ConfigError) -> Generator[Check]:
    """Yield the one check of a plugin that the registry had to leave out."""

    def fail() -> None:
        raise problem

    yield "manifest", fail


def plugin_checks(manifest: PluginManifest) -> Generator[Check]:
    """Yield the checks of an installed plugin."""
    yield "components", lambda: _components(manifest)
    yield "interface, imports and behaviour", lambda: _promises(manifest)
    yield "a small model", lambda: _small_model(manifest)


def _components(manifest: PluginManifest) -> str:
    missing = [area for area in AREAS if area not in manifest.components]
    if missing:
        raise ConfigError(f"components lacks {', '.join(missing)}; name the code of each area, shared or own")
    for path in manifest.components.values():
        import_object(path)
    return ", ".join(manifest.components)


def _promises(manifest: PluginManifest) -> str:
    from pio.testing.check_plugin import check_plugin

    findings = check_plugin(manifest.name)
    if findings:
        raise ConfigError("; ".join(f"{finding.where}: {finding.problem}" for finding in findings))
    return manifest.plugin


def _small_model(manifest: PluginManifest) -> str:
    """Build a small model of random weights and have it answer."""
    from pio.benchmarks.random_model import random_model
    from pio.cli.warmup import tiny_config

    try:
        raw = tiny_config(manifest)
    except PioError as error:
        return f"not built, for its config needs more: {error}"
    with random_model(raw, plugin=manifest.name) as model:
        answer = model.generate([1, 2, 3], max_new_tokens=2, ignore_eos=True, temperature=0.0)
        seen = _look(model)
        return f"answers with {len(answer.token_ids)} tokens" + (f", {seen}" if seen else "")


def _look(model: TextModelPlugin) -> str:
    """Show a model a picture, where it sees any, and have it answer; say how large the picture is to it."""
    media = model.loaded.prompts.media
    if media is None:
        return ""
    prompt = {"text": [1, media.mark_ids[0], 2], "image": Tensor.zeros((32, 48, 3), "uint8")}
    answer = model.generate(prompt, max_new_tokens=2, ignore_eos=True, temperature=0.0)
    return f"sees a picture as {answer.usage.image_tokens} tokens"


def model_checks(name: str, given: Mapping[str, Any] = MappingProxyType({})) -> Generator[Check]:
    """Yield the checks of a model; each builds on the ones before.

    Args:
        name: Of the model.
        given: Options by which it is loaded.
    """
    from pio.loading.checkpoint import Checkpoint, resolve
    from pio.plugin import registry
    from pio.plugin.loader import load

    found: dict[str, Any] = {}

    def loaded() -> LoadedModel:
        return found["model"].loaded

    def folder() -> str:
        found["folder"] = resolve(name)
        return str(found["folder"])

    def config() -> str:
        raw = Checkpoint(found["folder"]).config
        return f"{raw['model_type']}, runs with {registry.choose(raw)[0].name}"

    def tensors() -> str:
        found["model"] = load(name, **given)
        describe(name, found["model"])
        skipped = [f"{count} skipped: {why}" for why, count in loaded().weights.skipped.items()]
        return "; ".join((f"all accounted for, {size(loaded().memory['weights'])}", *skipped))

    def text() -> str:
        tokenizer = loaded().prompts.optional_tokenizer
        if tokenizer is None:
            return "none: token ids only"
        ids = tokenizer.encode("def f(x):\n    return x\n")
        if not ids or max(ids) >= loaded().model.vocab_size:
            raise CheckpointError("tokenizer.json makes token ids that the model does not have; download both again")
        return f"{tokenizer.size} tokens"

    def template() -> str:
        prompts = loaded().prompts
        if not prompts.chat_template:
            return "none: no chat"
        prompts.encode([{"role": "user", "content": "Hi"}])
        return "renders"

    def pictures() -> str:
        return _look(found["model"]) or "none: text alone"

    def steps() -> str:
        from pio.testing.check_plugin import check_commits, check_steps

        findings = [*check_steps(found["model"]), *check_commits(found["model"])]
        if findings:
            raise ConfigError("; ".join(findings))
        return "the same recorded as afresh"

    yield "folder", folder
    yield "config", config
    try:
        yield "tensors", tensors
        yield "weights are numbers", lambda: found["model"].check_weights()
        yield "tokenizer", text
        yield "chat template", template
        yield "pictures", pictures
        yield "steps", steps
    finally:
        if "model" in found:
            found["model"].cleanup()
