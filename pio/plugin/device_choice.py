"""On which device a model runs: the one that was named, or for ``auto`` the first GPU that can be used and has room."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import Final, TypeVar

from pio.cache.protocol import Cache, check_offered
from pio.config.runtime import RuntimeConfig
from pio.device import Device, usable_gpu
from pio.errors import ConfigError, DeviceError, OutOfMemoryError, PioError
from pio.layers.decoder import Decoder
from pio.machine import thread_count

T = TypeVar("T")

_log: Final = logging.getLogger("pio")


def placed(make: Callable[[RuntimeConfig, bool], T], runtime: RuntimeConfig) -> T:
    """Return what is made with options that name a device; for ``auto`` a line of the log says why it is the CPU.

    Args:
        make: Loads a model, by options and whether a GPU must have room for all of it, so that no weights lie
            elsewhere: for ``auto``, where nobody says how much of its memory to take. What it raises on a GPU that
            ``auto`` has chosen ends nothing.
        runtime: The options.

    Raises:
        PioError: What ``make`` raises on the device that was named, or on the CPU.
    """
    if runtime.device != "auto":
        return make(runtime, False)
    if runtime.threads:
        why = f"threads={runtime.threads} is for the CPU"
    else:
        try:
            gpu, whole = usable_gpu(), not {"gpu_memory", "offloaded_experts"} & runtime.model_fields_set
            return make(runtime.model_copy(update={"device": str(gpu)}), whole)
        except (DeviceError, OutOfMemoryError) as error:
            why = str(error)
            _let_go(error)
    _log.info("device=auto runs on the CPU: %s", why)
    return make(runtime.updated(device="cpu"), False)


def _let_go(error: BaseException) -> None:
    """Let go of the half of a model that was made, which the frames of an error hold."""
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__


def device_of(runtime: RuntimeConfig) -> Device:
    """Return where a model is to run; on the CPU with no more threads than there are cores.

    Raises:
        ConfigError: It is to have threads on a GPU.
        DeviceError: There is no such GPU, no driver, or one that is too old.
    """
    if runtime.device in ("auto", "cpu"):  # auto is the CPU where nobody has placed the model
        usable = thread_count()
        return Device("cpu", min(runtime.threads or usable, usable))
    device = Device(runtime.device)
    if runtime.threads is not None:
        raise ConfigError(
            f"threads={runtime.threads} says nothing on {device}, where the GPU computes; leave it out, or use "
            "device='cpu'"
        )
    return device.without(*runtime.cuda_kernels_off)


def rehearsed(runtime: RuntimeConfig) -> RuntimeConfig:
    """Return options by which a model can be rehearsed that is to run on a GPU, without taking memory there."""
    if device_of(runtime).stream is None:
        return runtime
    return runtime.updated(device="cpu", threads=1)


def rehearsed_cache(model: Decoder, runtime: RuntimeConfig) -> Cache:
    """Return the cache of a model that is rehearsed, whose memory nobody writes, so that it takes none.

    Raises:
        ConfigError: It lacks something that the engine needs.
    """
    cache = model.new_cache(runtime.cache_tokens or model.max_positions)
    try:
        check_offered(cache)
    except PioError:
        if hasattr(cache, "free"):  # one that is refused may lack even this
            cache.free()
        raise
    return cache
