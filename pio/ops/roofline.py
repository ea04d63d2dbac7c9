"""Kernels that do nothing but read, or nothing but multiply and add: what a machine can do at best."""

from __future__ import annotations

from typing import Final

from pio.device import Device, on_device
from pio.dtypes import int64
from pio.errors import TensorError
from pio.kernels import launcher, sizes
from pio.ops._check import check
from pio.tensor import Tensor

kernels = launcher.module("roofline")
# As pio/kernels/cuda/roofline.py has them: blocks of a multiprocessor, chains of a thread or of a warp, and of what
# tensor cores do the products in one instruction of a warp.
BLOCKS: Final = {"read_all": 8, "fma_all": 8, "pair_all": 4, "dot_all": 2}
THREADS: Final = 256  # of a block
CHAINS: Final = 8
PAIR_PRODUCTS, DOT_PRODUCTS = 16 * 8 * 16, 16 * 8 * 32


def read_all(x: Tensor) -> Tensor:
    """Read a buffer once, as fast as the machine can.

    Args:
        x: float32 (n,).

    Returns:
        The sum of each thread's part, but for up to 127 elements at its end; float32 (threads,). On a GPU those of all
        blocks, which together leave out nothing.

    Raises:
        TensorError: x is not a vector of float32.
    """
    check("read_all", "x", x, (None,))
    sums = Tensor.empty((_parts("read_all", x.device),), device=x.device)
    kernels.on(x.device).read_all(sums.address, x.address, x.size, sums.size)
    return sums


def fma_all(rounds: int, x: float, y: float, *, device: Device | None = None) -> tuple[Tensor, int]:
    """Multiply and add in registers, as fast as the machine can.

    Args:
        rounds: Multiply-adds of each chain.
        x: Factor.
        y: Summand.
        device: All of its threads do this, or all blocks of a GPU.

    Returns:
        The sum of what each thread's chains end with, float32 (threads,), on a GPU of each block's, and the
        floating-point operations done, two for each multiply-add.

    Raises:
        TensorError: ``rounds`` is negative.
    """
    if rounds < 0:
        raise TensorError(f"fma_all: rounds is {rounds}, expected 0 or more")
    there = on_device(device)
    sums = Tensor.empty((_parts("fma_all", there),), device=there)
    kernels.on(there).fma_all(sums.address, rounds, x, y, sums.size)
    each = sizes.CHAINS * sizes.LANES if there.stream is None else CHAINS * THREADS
    return sums, 2 * rounds * each * sums.size


def dot_all(rounds: int, start: int = 1, *, device: Device | None = None) -> tuple[Tensor, int]:
    """Multiply bytes and add the products in registers, as fast as the machine can.

    Args:
        rounds: Steps of each chain; one multiplies 64 bytes, 128 where processors multiply matrices of them.
        start: The first byte.
        device: All of its threads do this, or all blocks of a GPU.

    Returns:
        The sum of what each thread's chains end with, int64 (threads,), and the operations done, two for each product.
        On a GPU those of each block, by its tensor cores.

    Raises:
        TensorError: ``rounds`` is negative.
    """
    if rounds < 0:
        raise TensorError(f"dot_all: rounds is {rounds}, expected 0 or more")
    there = on_device(device)
    sums = Tensor.empty((_parts("dot_all", there),), int64, there)
    kernels.on(there).dot_all(sums.address, rounds, start, sums.size)
    if there.stream is None:
        return sums, 2 * rounds * sizes.CHAINS * sizes.LANES * sizes.LANE_PRODUCTS * sums.size
    return sums, 2 * rounds * CHAINS * DOT_PRODUCTS * (THREADS // 32) * sums.size


def multiplies_tiles() -> bool:
    """Return whether kernels multiply tiles of bytes by AMX, as they are compiled: ``tile_all`` can be called."""
    return sizes.AMX


def tile_all(rounds: int, start: int = 1, *, device: Device | None = None) -> tuple[Tensor, int]:
    """Multiply tiles of bytes and add the products in registers of AMX, as fast as the machine can.

    Args:
        rounds: Steps; one multiplies four pairs of tiles of 16 rows of 64 bytes.
        start: The first byte.
        device: All of its threads do this, or all blocks of a GPU.

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
        The sum of what each thread's chains end with, float32 (threads,), and the operations done, two a product. On
        a GPU those of each block, by its tensor cores.

    Raises:
        TensorError: ``rounds`` is negative.
    """
    if rounds < 0:
        raise TensorError(f"pair_all: rounds is {rounds}, expected 0 or more")
    there = on_device(device)
    sums = Tensor.empty((_parts("pair_all", there),), device=there)
    kernels.on(there).pair_all(sums.address, rounds, x, sums.size)
    if there.stream is None:
        return sums, 2 * rounds * sizes.CHAINS * 2 * sizes.LANES * sums.size
    return sums, 2 * rounds * CHAINS * PAIR_PRODUCTS * (THREADS // 32) * sums.size


def _parts(op: str, device: Device) -> int:
    """Return how many threads of a CPU take part, or blocks of a GPU."""
    return device.threads if device.stream is None else BLOCKS[op] * device.stream.multiprocessors
