"""``pio warmup``: compile everything once, so that no first request has to wait for it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from pio.cli import options
from pio.cli.console import note, size, write, write_json
from pio.errors import ConfigError, DeviceError, PioError

if TYPE_CHECKING:
    from pio.plugin.manifest import PluginManifest

DTYPES = ("float32", "float16", "bfloat16")

# Small, and with a part of everything: several heads a group, rows that are no whole vectors.
TINY: dict[str, Any] = {
    "vocab_size": 519,
    "hidden_size": 72,
    "intermediate_size": 136,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "max_position_embeddings": 512,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
}

# What architectures ask for that are not like others: as many key/value heads as heads, a layer of each kind.
FURTHER: tuple[dict[str, Any], ...] = ({}, {"num_key_value_heads": 4}, {"full_attention_interval": 2})

# Models that see have the decoder's fields apart, beside a tower's.
SEEING: dict[str, Any] = {
    "text_config": {**TINY, "rope_parameters": {"rope_theta": 10000.0, "mrope_section": [4, 4, 4]}},
    "vision_config": {
        "depth": 2,
        "hidden_size": 48,
        "intermediate_size": 56,
        "num_heads": 2,
        "patch_size": 16,
        "num_position_embeddings": 49,
        "out_hidden_size": 72,
        "deepstack_visual_indexes": [0],
    },
    "tie_word_embeddings": True,
    "image_token_id": 515,
    "video_token_id": 516,
    "vision_start_token_id": 517,
    "vision_end_token_id": 518,
}


def warmup(
    models: Annotated[
        list[str] | None, typer.Argument(help="Models to load and run.", show_default="all that plugins can need")
    ] = None,
    device: options.Device = None,
    cuda_kernels: options.CudaKernels = None,
    gpu_memory: options.GpuMemory = None,
    offloaded_experts: options.OffloadedExperts = None,
    quantize: options.Quantize = None,
    quantize_policy: options.QuantizePolicy = None,
    activation_dtype: options.ActivationDtype = None,
    json: options.Json = False,
    progress: options.Progress = None,
) -> None:
    """Compile kernels for this machine, once; they are kept on disk."""
    given = options.runtime_options({n: value for n, value in locals().items() if n != "progress"})
    own = [name for name in given if name not in ("device", "cuda_kernels")]
    if own and not models:
        option = own[0].replace("_", "-")
        raise ConfigError(f"--{option} is for models that are named; without one, every kind is warmed up")
    from pio.ops import compilation
    from pio.progress.progress import Progress

    folder = compilation.cache_folder()
    if folder is None:
        raise DeviceError("compiled kernels have no folder to be kept in; pio doctor says what to do about it")
    there, _ = compilation.cache_size()
    with Progress(progress, "warming up", delay=0.0) as shown:
        if models:
            for name in models:
                shown.say(f"running {name}")
                _run_model(name, given)
        else:
            _run_plugins(shown, given)
    files, nbytes = compilation.cache_size()
    if json:
        write_json(
            {
                "compiled": files - there,
                "already_there": there,
                "cache_folder": str(folder),
                "cache_bytes": nbytes,
            }
        )
        return
    write(f"{files - there} kernels compiled, {there} were there already\n")
    write(f"They are kept in {folder} ({size(nbytes)}).\n")


def _run_model(name: str, given: dict[str, Any]) -> None:
    from pio.plugin.loader import load

    with load(name, **given) as model:
        model.generate([0, 0], max_new_tokens=2, ignore_eos=True)


def _run_plugins(shown: Any, given: dict[str, Any]) -> None:
    """Run a tiny random model of each architecture that pio itself has, with weights of each kind; convert types.

    The options that are given are those of all of them: where they run.
    """
    from pio.loading.quantization_config import Format
    from pio.plugin import registry
    from pio.tensor import Tensor

    kinds = [{"dtype": dtype} for dtype in DTYPES]
    kinds.append({"dtype": "bfloat16", "activation_dtype": "bfloat16"})
    kinds += [{"dtype": "bfloat16", "quantize": form, "quantize_policy": "uniform"} for form in get_args(Format)]
    for manifest in registry.manifests().values():
        for kind in kinds if manifest.plugin.startswith("pio.") else ():
            inputs = " and inputs" if "activation_dtype" in kind else ""
            title = f"{manifest.name} with {kind.get('quantize', kind['dtype'])} weights{inputs}"
            shown.say(title)
            try:
                _run_random(manifest, {**given, **kind})
            except PioError as error:
                note(f"note: {title} was left out: {error}")
    shown.say("conversions")
    for stored in DTYPES:
        for wanted in DTYPES:
            Tensor.zeros((2, 3), stored).astype(wanted)


def tiny_config(manifest: PluginManifest) -> dict[str, Any]:
    """Return a small config.json of a plugin's architecture.

    Raises:
        PioError: The architecture needs fields that nobody here knows; the message is that of its config class.
    """
    from pio.plugin.earlier import plugin_code
    from pio.plugin.manifest import import_object

    plugin = import_object(manifest.plugin)
    shapes = [*({**TINY, **further} for further in FURTHER), SEEING]
    candidates = [{"model_type": manifest.model_types[0], **shape} for shape in shapes]
    with plugin_code(plugin):
        for raw in candidates:
            with suppress(PioError):
                plugin.config_class.from_checkpoint(raw)
                return raw
        plugin.config_class.from_checkpoint(candidates[0])  # says what is wrong with it
    return candidates[0]


def _run_random(manifest: PluginManifest, kind: dict[str, Any]) -> None:
    from pio.benchmarks.random_model import random_model

    with random_model(tiny_config(manifest), plugin=manifest.name, **kind) as model:
        model.generate([1, 2, 3], max_new_tokens=3, ignore_eos=True)
        model.check_weights()
        model.logits([1, 2, 3])
