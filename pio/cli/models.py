"""``pio models``: what can be run here."""

from __future__ import annotations

from importlib.metadata import packages_distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pio.cli import options
from pio.cli.console import count, size, write, write_json, write_lines
from pio.errors import PioError

if TYPE_CHECKING:
    from pio.plugin.manifest import PluginManifest


def models(json: options.Json = False) -> None:
    """List the plugins, and the models in the local Hugging Face cache."""
    from pio.plugin import registry

    manifests, found = registry.manifests().values(), local_models()
    if json:
        plugins = [{**m.model_dump(mode="json"), "source": _source(m)} for m in manifests]
        write_json({"plugins": plugins, "models": found})
        return
    write_lines(
        "Models here",
        ["name", "architecture", "plugin", ">weights", "input"],
        [
            [m["name"], m["model_type"], m["plugin"], size(m["weights_bytes"]), ", ".join(m["modalities"])]
            for m in found
        ],
    )
    write("\n")
    write_lines(
        "Models that pio was made for",
        ["name", ">parameters", ">memory", "plugin", "input", "capabilities", "from"],
        [
            [repo, count(m.parameters), size(m.memory_bytes), m.name, *map(", ".join, (m.modalities, m.capabilities))]
            + [_source(m)]
            for m in manifests
            for repo in m.checkpoints or ("-",)
        ],
    )
    write("\npio download NAME fetches one, pio chat NAME and pio generate NAME PROMPT run it.\n")


def local_models() -> list[dict[str, Any]]:
    """Describe the demo model and every complete model in the Hugging Face cache."""
    from pio.loading.hub_cache import cache_folder, is_repo_id, snapshot

    folders = {"demo": _demo()}
    root = cache_folder()
    for path in sorted(root.glob("models--*--*")) if root.is_dir() else []:
        repo = path.name.removeprefix("models--").replace("--", "/", 1)
        try:
            folder = snapshot(repo) if is_repo_id(repo) else None
        except PioError:  # half a download or a damaged one is no model that can be run
            folder = None
        if folder is not None:
            folders[repo] = folder
    return [_describe(name, folder) for name, folder in folders.items()]


def _demo() -> Path:
    from pio.loading.checkpoint import DEMO, resolve

    return resolve(DEMO)


def _describe(name: str, folder: Path) -> dict[str, Any]:
    from pio.loading.checkpoint import Checkpoint
    from pio.loading.quantization_config import StoredQuantization
    from pio.plugin import registry

    model_type = plugin = ""
    modalities: tuple[str, ...] = ()
    try:
        config: dict[str, Any] = Checkpoint(folder).config
        model_type = str(config.get("model_type"))
        manifest, _ = registry.choose(config)
        plugin, modalities = manifest.name, manifest.modalities
        StoredQuantization.read(config)  # refuses what other programs quantized
    except PioError as error:
        plugin = f"none: {type(error).__name__}"
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    about = {"name": name, "model_type": model_type, "plugin": plugin, "modalities": modalities}
    return {**about, "path": str(folder), "weights_bytes": weights}


def _source(manifest: PluginManifest) -> str:
    """The installed distribution that a plugin comes from."""
    package = manifest.plugin.partition(".")[0].partition(":")[0]
    return "pio" if package == "pio" else ", ".join(packages_distributions().get(package, [package]))
