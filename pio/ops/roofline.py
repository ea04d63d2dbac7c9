"""Kernels that do nothing but read, or nothing but multiply and add: what a machine can do at best."""

from __future__ import annotations

from pio.device import Device, on_device
from pio.dtypes import int64
from pio.errors import DeviceError, TensorError
from pio.kernels import launcher, sizes
from pio.ops._check import check
from pio.tensor import Tensor

kernels = launcher.module("roofline")


def read_all(x: Tensor) -> Tensor:
    """Read a buffer once, as fast as the machine can.

    Args:
        x: float32 (n,).

    Returns:
        The sum of each thread's part, but for up to 127 elements at its end; float32 (threads,).

    Raises:
        TensorError: x is not a vector of float32.
    """
    check("read_all", "x", x, (None,))
    sums = Tensor.empty((_threads("read_all", x.device),), device=x.device)
    kernels.read_all(sums.address, x.address, x.size, sums.size)
    return sums


def fma_all(rounds: int, x: float, y: float, *, device: Device | None = None) -> tuple[Tensor, int]:
    """Multiply and add in registers, as fast as the machine can.

    Args:
        rounds: Multiply-adds of each chain.
        x: Factor.
        y: Summand.
        device: All of its threads do this.

    Returns:
        The sum of what each thread's chains end with, float32 (threads,), and the floating-point operations done, two
        for each multiply-add.

    Raises:
        TensorError: ``rounds`` is negative.
    """
    if rounds < 0:
        raise TensorError(f"fma_all: rounds is {rounds}, expected 0 or more")
    sums = Tensor.empty((_threads("fma_all", device),), device=device)
    kernels.fma_all(sums.address, rounds, x, y, sums.size)
    return sums, 2 * rounds * sizes.CHAINS * sizes.LANES * sums.size


def dot_all(rounds: int, start: int = 1, *, device: Device | None = None) -> tuple[Tensor, int]:
    """Multiply bytes and add the products in registers, as fast as the machine can.

    Args:
        rounds: Steps of each chain; one multiplies 64 bytes, 128 where processors multiply matrices of them.
        start: The first byte.
        device: All of its threads do this.

    Returns:
        The sum of what each thread's chains end with, int64 (threads,), and the operations done, two for each product.

    Raises:
        TensorError: ``rounds`` is negative.
    """
    if rounds < 0:
        raise TensorError(f"dot_all: rounds is {rounds}, expected 0 or more")
    sums = Tensor.empty((_threads("dot_all", device),), int64, device)
    kernels.dot_all(sums.address, rounds, start, sums.size)
    return sums, 2 * rounds * sizes.CHAINS * sizes.LANES * sizes.LANE_PRODUCTS * sums.size


def multiplies_tiles() -> bool:
    """Return whether kernels multiply tiles of bytes by AMX, as they are compiled: ``tile_all`` can be called."""
    return sizes.AMX


def tile_all(rounds: int, start: int = 1, *, device: Device | None = None) -> tuple[Tensor, int]:
    """Multiply tiles of bytes and add the products in registers of AMX, as fast as the machine can.

    Args:
        rounds: Steps; one multiplies four pairs of tiles of 16 rows of 64 bytes.
        start: The first byte.
        device: All of its threads do this.

    Returns:
        The sum of what each thread's tiles end with, int64 (threads,), and the operations done, two for each product.

    Raises:
        TensorError: ``rounds`` is negative, or there is no AMX.
    """
    if rounds < 0:
        raise TensorError(f"tile_all: rounds is {rounds}, expected 0 or more")
    if not sizes.AMX:
        raise TensorError("tile_all: the processor has no AMX, or the system does not allow it; call dot_all")
    sums = Tensor.empty((on_device(device).threads,), int64, device)
    kernels.tile_all(sums.address, rounds, start, sums.size)
    return sums, 2 * rounds * sizes.TILE_PRODUCTS * sums.size


def pair_all(rounds: int, x: float = 1.0, *, device: Device | None = None) -> tuple[Tensor, int]:
    """Multiply bfloat16 numbers and add the products in registers, as fast as the machine can.

    Args:
        rounds: Steps of each chain; one multiplies 32 numbers.
        x: A factor, which is a bfloat16; each thread's is one more than that of the one before.
        device: All of its threads do this.

    Returns:
        The sum of what each thread's chains end with, float32 (threads,), and the operations done, two a product.

    Raises:
        TensorError: ``rounds`` is negative.
    """
    if rounds < 0:
        raise TensorError(f"pair_all: rounds is {rounds}, expected 0 or more")
    sums = Tensor.empty((_threads("pair_all", device),), device=device)
    kernels.pair_all(sums.address, rounds, x, sums.size)
    return sums, 2 * rounds * sizes.CHAINS * 2 * sizes.LANES * sums.size


def _threads(op: str, device: Device | None) -> int:
    """Return how many threads take part.

    Raises:
        DeviceError: It is a GPU.
    """
    there = on_device(device)
    if there.stream is not None:
        raise DeviceError(f"{op} measures a CPU, by its threads, and {there} is none; give device='cpu'")
    return there.threads
