"""Does a plugin keep its promises? What its author and ``pio verify`` are told, without loading a model."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pio
from pio.errors import ConfigError, PioError
from pio.plugin import TextModelPlugin, registry
from pio.plugin.manifest import AREAS, MANIFEST, PluginManifest, import_object
from pio.testing.check_commits import check_commits
from pio.testing.check_steps import check_steps

# A plugin builds on these parts of pio; the engine, the kernels and its siblings are not its business.
ALLOWED = {
    "cache",
    "config",
    "device",
    "dtypes",
    "errors",
    "layers",
    "loading",
    "media",
    "memory",
    "ops",
    "plugin",
    "tensor",
    "testing",
    "text",
}
PUBLIC = ALLOWED | set(pio.__all__)
INTERFACE = (
    "initialize load_model infer infer_batch generate generate_text stream chat_completion tokenize detokenize logits "
    "apply_chat_template supports_config cleanup build_model"
).split()


@dataclass(frozen=True, slots=True)
class Finding:
    """One promise that a plugin breaks.

    Attributes:
        plugin: Name of the plugin, or of its folder.
        where: File, field or method.
        problem: What was found, what was expected, and what to do.
    """

    plugin: str
    where: str
    problem: str

    def __str__(self) -> str:
        """The finding in one line."""
        return f"{self.plugin}: {self.where}: {self.problem}"


def check_plugin(plugin: str | Path | TextModelPlugin) -> list[Finding]:
    """Check the manifest, the class, the imports and the behaviour of one plugin, and the steps of a loaded model.

    Args:
        plugin: Its name, its folder, or an instance. Of one that is loaded, steps run recorded and afresh; no request
            may run meanwhile.

    Returns:
        What is wrong; an empty list for a plugin that complies.

    Raises:
        ConfigError: No installed plugin has that name, or there is no such folder.
    """
    folder = _folder(plugin)
    try:
        manifest = PluginManifest.read(folder / MANIFEST)
    except ConfigError as error:
        return [Finding(folder.name, MANIFEST, str(error))]
    findings = [*_check_manifest(folder, manifest), *_check_imports(folder)]
    try:
        factory, found = import_object(manifest.factory), import_object(manifest.plugin)
    except ConfigError as error:
        return [Finding(manifest.name, where, problem) for where, problem in [*findings, (MANIFEST, str(error))]]
    findings += _check_class(manifest, found)
    if not findings:
        findings += _check_behaviour(manifest, factory, found)
    if isinstance(plugin, TextModelPlugin) and plugin.is_loaded:
        findings += [("steps", problem) for problem in [*check_steps(plugin), *check_commits(plugin)]]
    return [Finding(manifest.name, where, problem) for where, problem in findings]


def _folder(plugin: str | Path | TextModelPlugin) -> Path:
    if isinstance(plugin, Path):
        if not plugin.is_dir():
            raise ConfigError(f"{plugin} is no folder; give the folder of a plugin, with its {MANIFEST}")
        return plugin
    if isinstance(plugin, TextModelPlugin):
        source = inspect.getsourcefile(type(plugin))
        return Path(source or ".").parent
    for folder in registry.plugin_folders():
        manifest = registry.manifests().get(plugin)
        if folder.name == plugin or (manifest is not None and folder == _home(manifest)):
            return folder
    raise ConfigError(f"plugin {plugin[:80]!r} is not installed; installed are {', '.join(registry.manifests())}")


def _home(manifest: PluginManifest) -> Path | None:
    spec = importlib.util.find_spec(manifest.plugin.partition(":")[0].rpartition(".")[0])
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _check_manifest(folder: Path, manifest: PluginManifest) -> Iterator[tuple[str, str]]:
    expected = {"name": folder.name, "factory": f"create_{manifest.name}_plugin"}
    found = {"name": manifest.name, "factory": manifest.factory.partition(":")[2]}
    for field, value in expected.items():
        if found[field] != value:
            yield f"{MANIFEST}, {field}", f"found {found[field]!r}, expected {value!r}; rename one of the two"
    if not re.fullmatch(r"\d+\.\d+\.\d+\S*", manifest.version):
        yield f"{MANIFEST}, version", f"found {manifest.version!r}, expected three numbers such as '0.1.0'"
    if not manifest.modalities:
        yield f"{MANIFEST}, modalities", "found none, expected at least 'text'"
    for area in AREAS:
        if area not in manifest.components:
            yield f"{MANIFEST}, components", f"{area!r} is missing; name the code that does it, as 'module:name'"
    readme = folder / "README.md"
    text = readme.read_text("utf-8") if readme.is_file() else ""
    if not text:
        yield "README.md", "there is none; describe the model and the code of each of its areas"
    for area, path in manifest.components.items():
        try:
            import_object(path)
        except ConfigError as error:
            yield f"{MANIFEST}, components, {area}", str(error)
            continue
        if text and path.partition(":")[2] not in text:
            yield "README.md", f"does not name {path.partition(':')[2]}, the code of {area!r}; add it to the table"
    if not any((folder / "tests").glob("test_*.py")):
        yield "tests", "there are none; derive a class from pio.testing.plugin_case.PluginCase"


def _check_imports(folder: Path) -> Iterator[tuple[str, str]]:
    own = _package(folder)
    for path in sorted(folder.glob("*.py")):
        try:
            tree = ast.parse(path.read_text("utf-8"))
        except (SyntaxError, ValueError) as error:
            yield path.name, f"cannot be read as Python: {error}"
            continue
        for node in ast.walk(tree):
            modules: list[str] = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = [f"{node.module}.{alias.name}" for alias in node.names]
            for module in modules:
                parts = module.split(".")
                inside = own is not None and f"{module}.".startswith(f"{own}.")
                if parts[0] == "pio" and len(parts) > 1 and parts[1] not in PUBLIC and not inside:
                    yield (
                        f"{path.name}:{getattr(node, 'lineno', 0)}",
                        f"imports {module}; a plugin builds on {', '.join(sorted(ALLOWED - {'testing'}))} and itself",
                    )


def _package(folder: Path) -> str | None:
    """The dotted name of pio's own plugins; another package's imports of itself need no permission."""
    return f"pio.models.{folder.name}" if folder.parent.name == "models" else None


def _check_class(manifest: PluginManifest, found: Any) -> Iterator[tuple[str, str]]:
    where = manifest.plugin
    if not (inspect.isclass(found) and issubclass(found, TextModelPlugin)):
        yield where, f"found {found!r}, expected a subclass of pio.TextModelPlugin"
        return
    for name in sorted(found.__abstractmethods__):
        yield f"{where}.{name}", "is abstract; define it in the plugin's class"
    for name in INTERFACE:
        own, wanted = getattr(found, name, None), getattr(TextModelPlugin, name)
        if not callable(own):
            yield f"{where}.{name}", f"found {own!r}, expected a method"
        elif own is not wanted:
            missing = _missing_parameters(own, wanted)
            if missing:
                yield f"{where}.{name}", f"does not take {', '.join(missing)} as TextModelPlugin.{name} does; add them"
    if getattr(found, "manifest_name", None) != manifest.name:
        shown = getattr(found, "manifest_name", None)
        yield f"{where}.manifest_name", f"found {shown!r}, expected {manifest.name!r}"
    reads = getattr(found, "media_processor", None) is not TextModelPlugin.media_processor
    if reads != any(name != "text" for name in manifest.modalities):
        expected = "one, because modalities has more than text" if not reads else "modalities to say what it takes"
        yield f"{where}.media_processor", f"found {'one' if reads else 'none of its own'}, expected {expected}"
    if not hasattr(getattr(found, "config_class", None), "from_checkpoint"):
        yield f"{where}.config_class", "expected a subclass of pio.config.decoder.DecoderConfig"


def _missing_parameters(own: Any, wanted: Any) -> list[str]:
    """Parameters of the interface that a method of its own could not be given by name or place."""
    have = inspect.signature(own).parameters
    kinds = {p.kind for p in have.values()}
    if inspect.Parameter.VAR_KEYWORD in kinds and inspect.Parameter.VAR_POSITIONAL in kinds:
        return []
    by_name = inspect.Parameter.VAR_KEYWORD in kinds
    return [
        name
        for name, p in inspect.signature(wanted).parameters.items()
        if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        and name not in have
        and not (by_name and p.kind is p.KEYWORD_ONLY)
    ]


def _check_behaviour(manifest: PluginManifest, factory: Any, found: type[TextModelPlugin]) -> Iterator[tuple[str, str]]:
    where = manifest.factory
    try:
        plugin = factory()
    except Exception as error:
        yield where, f"raised {error!r} when called without arguments; expected a plugin that has nothing loaded"
        return
    if type(plugin) is not found:
        yield where, f"made a {type(plugin).__name__}, but the manifest's plugin is {found.__name__}"
        return
    try:
        factory(no_such_option=1)
        yield where, "took no_such_option=1; expected a ConfigError, because an unknown option must not be ignored"
    except ConfigError:
        pass
    except Exception as error:
        yield where, f"raised {error!r} for an unknown option; expected a ConfigError"
    for config in (
        {},
        {"model_type": "no-such-architecture"},
        {"model_type": manifest.model_types[0], "vocab_size": "x"},
    ):
        try:
            if plugin.supports_config(config):
                yield f"{manifest.plugin}.supports_config", f"is True for {config}; expected False"
        except Exception as error:
            yield f"{manifest.plugin}.supports_config", f"raised {error!r} for {config}; expected False"
    try:
        plugin.generate_text("x")
        yield f"{manifest.plugin}.generate_text", "worked before load_model; expected a PioError"
    except PioError:
        pass
    except Exception as error:
        yield f"{manifest.plugin}.generate_text", f"raised {error!r} before load_model; expected a PioError"
    for _ in range(2):
        if plugin.cleanup() is not True:
            yield f"{manifest.plugin}.cleanup", "did not return True; it must be harmless at any time"
            break


__all__ = ["Finding", "check_commits", "check_plugin", "check_steps"]
