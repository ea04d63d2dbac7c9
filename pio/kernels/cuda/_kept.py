"""Kernels for GPUs as they are kept on disk, beside the CPU's: each compiled once for an architecture.

A file holds what a launch takes, then the code: machine code, or PTX where the architecture asks for that. Reading one
imports neither Numba nor numba-cuda. Its key covers all sources of this folder and the versions of the packages that
compile; the folder, where it lies, covers those of the modules of ``pio.kernels`` that kernels here share.
"""

from __future__ import annotations

import hashlib
import json
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, NamedTuple

from pio.kernels import _image, _watch
from pio.kernels._image import CudaName, Name
from pio.kernels._missing import MissingKernel, NoCompiler
from pio.shelter import import_whole

SUFFIX: Final = ".cuda"
COMPILERS: Final = ("numba-cuda", "nvidia-nvvm", "nvidia-nvjitlink")
_HERE: Final = __package__ or "pio.kernels.cuda"


class Kept(NamedTuple):
    """A kernel for GPUs of one architecture.

    Attributes:
        entry: Its name in the code.
        letters: One for each parameter, ``q`` for an int64 and ``d`` for a float64.
        block: Threads of a block.
        blocks: Of a multiprocessor: the grid is that many times their number.
        shared: Bytes of shared memory of a block.
        code: Machine code, or PTX.
    """

    entry: str
    letters: str
    block: int
    blocks: int
    shared: int
    code: bytes


def find(name: Name, architecture: str) -> Kept:
    """Return a kernel from the folder of compiled kernels, or else compile it and keep it there.

    Args:
        name: Of a kernel of this folder.
        architecture: ``sm_90a`` for machine code, ``compute_90a`` for PTX.

    Raises:
        MissingKernel: There is no such kernel.
        NoCompiler: It has to be compiled, and numba-cuda is not installed.
        Exception: The compiler or the linker fails.
    """
    file = _file(name, architecture)
    content = None if file is None else _image.read_item(*file)
    if content is not None:
        head, _, code = content.partition(b"\n")
        _watch.say_loaded(name.full)
        entry, letters, block, blocks, shared = json.loads(head)
        return Kept(entry, letters, block, blocks, shared, code)
    made = _compile(name, architecture)
    if file is not None:
        _image.keep_item(*file, json.dumps(made[:-1]).encode() + b"\n" + made.code)
    return made


class Source:
    """A kernel that another process can compile, see ``jobs.Wanted``.

    Attributes:
        name: How it finds the kernel.
    """

    def __init__(self, name: Name, architecture: str) -> None:
        """Name it; nothing is read."""
        self.name = CudaName(*name, architecture)
        self._found = _file(name, architecture)

    def is_kept(self) -> bool:
        """Return whether there is a file, or can never be one."""
        return self._found is None or self._found[0].exists()


def _file(name: Name, architecture: str) -> tuple[Path, bytes] | None:
    folder, stamp = _image.cache_folder(), source_stamp()
    if folder is None:
        return None
    key = repr((tuple(name), stamp, architecture)).encode()
    digest = hashlib.sha256(key).hexdigest()[:16]
    return folder / f"{name.module}.{name.full}-{architecture}-{digest}{SUFFIX}", key


@cache
def source_stamp() -> str:
    """Return a digest of everything that decides the code of kernels here, except the architecture."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for source in sorted(here.rglob("*.py")):
        digest.update(repr(source.relative_to(here).parts).encode() + b"\0" + source.read_bytes())
    digest.update(repr([_version(name) for name in COMPILERS]).encode() + sys.implementation.cache_tag.encode())
    return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _compile(name: Name, architecture: str) -> Kept:
    module = name.module.removeprefix(f"{_HERE}.")
    absent = MissingKernel(f"the operation {name.full} has no kernel for GPUs yet ({module}.{name.name})")
    if not Path(__file__).with_name(f"{module}.py").exists():
        raise absent
    try:
        import_whole("numba.cuda")
        import_whole("numba_cuda")
    except ImportError as error:
        raise NoCompiler(
            'a GPU\'s kernels have to be compiled, which takes pip install "numba-cuda[cu13]>=0.30,<0.31"'
        ) from error
    kernel = getattr(import_whole(name.module), name.name, None)
    if kernel is not None and name.dtype:
        try:
            kernel = kernel[name.dtype]
        except KeyError:
            kernel = None
    if kernel is None:
        raise absent
    _watch.say_started(name.full)
    try:
        kind, _, target = architecture.partition("_")
        text, entry = kernel.ptx(f"sm_{target}")
        code = text.encode() if kind == "compute" else kernel.cubin(architecture)[0]
    finally:
        _watch.say_finished(name.full)
    shape = kernel.shape
    return Kept(entry, kernel.letters, shape.block, shape.blocks, shape.shared, code)
