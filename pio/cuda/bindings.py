"""CUDA's driver by NVIDIA's own bindings, cuda-bindings."""

# What the methods do is said in driver.py.
# ruff: noqa: D102
# cuda-bindings comes without type stubs
# pyright: reportMissingImports=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportAttributeAccessIssue=false
from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from pio.cuda.driver import NO_PINNED, Facts, Launch
from pio.errors import DeviceError, OutOfMemoryError

try:
    from cuda.bindings import driver as cu
except ImportError as error:
    raise DeviceError(
        'a GPU takes packages that are not installed: pip install "numba-cuda[cu13]>=0.30,<0.31"'
    ) from error

MOST_PARAMETERS: Final = 64
_NO_DRIVER: Final = (
    "there is no NVIDIA driver on this machine ({}); install NVIDIA's driver, release 580 or newer, or use device='cpu'"
)
_NO_GPU: Final = (
    "NVIDIA's driver finds no GPU; see what nvidia-smi says, and whether CUDA_VISIBLE_DEVICES hides it, or use "
    "device='cpu'"
)
_LOST: Final = (
    cu.CUresult.CUDA_ERROR_DEVICE_UNAVAILABLE,
    cu.CUresult.CUDA_ERROR_CONTEXT_IS_DESTROYED,
    cu.CUresult.CUDA_ERROR_ECC_UNCORRECTABLE,
    cu.CUresult.CUDA_ERROR_NVLINK_UNCORRECTABLE,
    cu.CUresult.CUDA_ERROR_ILLEGAL_ADDRESS,
    cu.CUresult.CUDA_ERROR_MISALIGNED_ADDRESS,
    cu.CUresult.CUDA_ERROR_INVALID_ADDRESS_SPACE,
    cu.CUresult.CUDA_ERROR_ILLEGAL_INSTRUCTION,
    cu.CUresult.CUDA_ERROR_INVALID_PC,
    cu.CUresult.CUDA_ERROR_HARDWARE_STACK_ERROR,
    cu.CUresult.CUDA_ERROR_ASSERT,
    cu.CUresult.CUDA_ERROR_LAUNCH_TIMEOUT,
    cu.CUresult.CUDA_ERROR_LAUNCH_FAILED,
)  # behind these a process gets nothing more done on the GPU


@cache
def _ready() -> None:
    """Begin to use the driver.

    Raises:
        DeviceError: There is none, or it finds no GPU.
    """
    try:
        (found,) = cu.cuInit(0)
    except Exception as error:  # cuda-bindings has an exception of its own for a library that is not there
        raise DeviceError(_NO_DRIVER.format(str(error).partition("\n")[0])) from error
    if found == cu.CUresult.CUDA_ERROR_NO_DEVICE:
        raise DeviceError(_NO_GPU)
    _ok(found, "begin")


def _ok(result: Any, what: str = "") -> None:
    """Raise what a result stands for, if it is no success."""
    if result == cu.CUresult.CUDA_SUCCESS:
        return
    name = result.name.removeprefix("CUDA_ERROR_").lower().replace("_", " ")
    if result == cu.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
        raise OutOfMemoryError(f"the GPU has no memory left{what and ' to ' + what}: free some, or ask for less")
    remedy = "; the GPU is lost to this process, which can go on with device='cpu': start it anew for the GPU"
    raise DeviceError(
        f"CUDA's driver says {name!r}{what and ' where it is to ' + what} (error {int(result)})"
        + (remedy if result in _LOST else "")
    )


def _value(found: tuple[Any, ...], what: str = "") -> Any:
    _ok(found[0], what)
    return found[1] if len(found) == 2 else found[1:]


class _Arguments(threading.local):
    """Where a thread's launches have their arguments: eight bytes each, and an array of the places of all."""

    def __init__(self) -> None:
        self._memory = ctypes.create_string_buffer(8 * MOST_PARAMETERS)
        self.first = ctypes.addressof(self._memory)
        self._places = (ctypes.c_void_p * MOST_PARAMETERS)(*range(self.first, self.first + 8 * MOST_PARAMETERS, 8))
        self.places = ctypes.addressof(self._places)


class Bindings:
    """The ``Driver`` that there is on this machine.

    Attributes:
        code: It takes machine code.
    """

    def __init__(self) -> None:
        """Begin to use it.

        Raises:
            DeviceError: There is no driver.
        """
        _ready()
        self.code = "sm"
        self._libraries: list[Any] = []  # their kernels are used as long as the process lives
        self._contexts: dict[int, Any] = {}
        self._functions: dict[int, Any] = {}
        self._streams: dict[int, Any] = {}
        self._arguments = _Arguments()

    def version(self) -> tuple[int, int]:
        number = int(_value(cu.cuDriverGetVersion()))
        return number // 1000, number % 1000 // 10

    def count(self) -> int:
        return int(_value(cu.cuDeviceGetCount()))

    def facts(self, ordinal: int) -> Facts:
        device, kind = _value(cu.cuDeviceGet(ordinal)), cu.CUdevice_attribute

        def ask(attribute: Any) -> int:
            return int(_value(cu.cuDeviceGetAttribute(attribute, device)))

        return Facts(
            name=bytes(_value(cu.cuDeviceGetName(256, device))).split(b"\0")[0].decode(),
            capability=(
                ask(kind.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR),
                ask(kind.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR),
            ),
            multiprocessors=ask(kind.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
            nbytes=int(_value(cu.cuDeviceTotalMem(device))),
            shared=ask(kind.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN),
            identity=bytes(_value(cu.cuDeviceGetUuid(device)).bytes).hex(),
        )

    def open(self, ordinal: int) -> int:
        device = _value(cu.cuDeviceGet(ordinal))
        context = _value(cu.cuDevicePrimaryCtxRetain(device), "open the GPU")
        pool = _value(cu.cuDeviceGetDefaultMemPool(device))
        keep = cu.cuuint64_t(2**64 - 1)  # memory that was given back stays with this process
        (found,) = cu.cuMemPoolSetAttribute(pool, cu.CUmemPool_attribute.CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, keep)
        _ok(found)
        self._contexts[int(context)] = context
        return int(context)

    def enter(self, context: int) -> None:
        _ok(cu.cuCtxSetCurrent(self._contexts[context])[0], "use the GPU")

    def room(self) -> tuple[int, int]:
        free, total = _value(cu.cuMemGetInfo())
        pool, of = self._pool(), cu.CUmemPool_attribute
        reserved, used = (
            int(_value(cu.cuMemPoolGetAttribute(pool, attribute)))
            for attribute in (of.CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, of.CU_MEMPOOL_ATTR_USED_MEM_CURRENT)
        )
        return int(free) + reserved - used, int(total)

    def trim(self) -> None:
        _ok(cu.cuMemPoolTrimTo(self._pool(), 0)[0])

    def _pool(self) -> Any:
        return _value(cu.cuDeviceGetDefaultMemPool(_value(cu.cuCtxGetDevice())))

    def stream(self) -> int:
        made = _value(cu.cuStreamCreate(cu.CUstream_flags.CU_STREAM_NON_BLOCKING.value))
        self._streams[int(made)] = made
        return int(made)

    def end_stream(self, stream: int) -> None:
        _ok(cu.cuStreamDestroy(self._streams.pop(stream))[0])

    def wait(self, stream: int) -> None:
        _ok(cu.cuStreamSynchronize(cu.CUstream(stream))[0], "finish its work")

    def event(self, stream: int) -> int:
        event = _value(cu.cuEventCreate(cu.CUevent_flags.CU_EVENT_DISABLE_TIMING.value))
        _ok(cu.cuEventRecord(event, cu.CUstream(stream))[0])
        return int(event)

    def wait_event(self, stream: int, event: int) -> None:
        _ok(cu.cuStreamWaitEvent(cu.CUstream(stream), cu.CUevent(event), 0)[0])

    def await_event(self, event: int) -> None:
        _ok(cu.cuEventSynchronize(cu.CUevent(event))[0], "finish its work")

    def timer(self, stream: int) -> int:
        event = _value(cu.cuEventCreate(cu.CUevent_flags.CU_EVENT_DEFAULT.value))
        _ok(cu.cuEventRecord(event, cu.CUstream(stream))[0])
        return int(event)

    def elapsed(self, first: int, last: int) -> float:
        return float(_value(cu.cuEventElapsedTime(cu.CUevent(first), cu.CUevent(last)))) / 1e3

    def end_event(self, event: int) -> None:
        _ok(cu.cuEventDestroy(cu.CUevent(event))[0])

    def wait_all(self) -> None:
        _ok(cu.cuCtxSynchronize()[0], "finish its work")

    def allocate(self, nbytes: int, stream: int) -> int:
        return int(_value(cu.cuMemAllocAsync(nbytes, cu.CUstream(stream)), f"allocate {nbytes} bytes"))

    def free(self, address: int, stream: int) -> None:
        _ok(cu.cuMemFreeAsync(cu.CUdeviceptr(address), cu.CUstream(stream))[0])

    def allocate_host(self, nbytes: int) -> int:
        found = cu.cuMemHostAlloc(nbytes, 0)
        if found[0] == cu.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            raise OutOfMemoryError(NO_PINNED.format(nbytes))
        return int(_value(found))

    def free_host(self, address: int) -> None:
        _ok(cu.cuMemFreeHost(address)[0])

    def copy_in(self, target: int, source: int, nbytes: int, stream: int) -> None:
        _ok(cu.cuMemcpyHtoDAsync(cu.CUdeviceptr(target), source, nbytes, cu.CUstream(stream))[0])

    def copy_out(self, target: int, source: int, nbytes: int, stream: int) -> None:
        _ok(cu.cuMemcpyDtoHAsync(target, cu.CUdeviceptr(source), nbytes, cu.CUstream(stream))[0])

    def copy(self, target: int, source: int, nbytes: int, stream: int) -> None:
        into, out_of = cu.CUdeviceptr(target), cu.CUdeviceptr(source)
        _ok(cu.cuMemcpyDtoDAsync(into, out_of, nbytes, cu.CUstream(stream))[0])

    def fill(self, address: int, value: int, nbytes: int, stream: int) -> None:
        _ok(cu.cuMemsetD8Async(cu.CUdeviceptr(address), value, nbytes, cu.CUstream(stream))[0])

    def load(self, code: bytes, entry: str, shared: int) -> int:
        library = _value(cu.cuLibraryLoadData(code, [], [], 0, [], [], 0), f"load the kernel {entry}")
        self._libraries.append(library)
        function = _value(cu.cuKernelGetFunction(_value(cu.cuLibraryGetKernel(library, entry.encode()))))
        if shared > 48 << 10:  # a launch that asks for more has to be told before
            attribute = cu.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            _ok(cu.cuFuncSetAttribute(function, attribute, shared)[0], f"give the kernel {entry} {shared} bytes")
        self._functions[int(function)] = function
        return int(function)

    def launch(self, launch: Launch, stream: int) -> None:
        kernel, grid, block, shared, _, values = launch
        arguments, function = self._arguments, self._functions[kernel]
        ctypes.memmove(arguments.first, values, len(values))
        found = cu.cuLaunchKernel(function, grid, 1, 1, block, 1, 1, shared, self._streams[stream], arguments.places, 0)
        _ok(found[0], "run a kernel")

    def graph(self, launches: Sequence[Launch]) -> int:
        # Node by node: a capture of a stream would be spoilt by another thread that waits for the whole GPU, or works
        # in the default stream, as other libraries do.
        graph = _value(cu.cuGraphCreate(0), "make a graph")
        try:
            before = list[Any]()
            for launch in launches:
                node = self._node(launch)  # copied by the call
                before = [_value(cu.cuGraphAddKernelNode(graph, before, len(before), node), "make a graph")]
            return int(_value(cu.cuGraphInstantiate(graph, 0), "make a graph"))
        finally:
            cu.cuGraphDestroy(graph)

    def _node(self, launch: Launch) -> Any:
        """Return a launch as a node of a graph; it names memory that the next launch of this thread changes."""
        kernel, grid, block, shared, _, values = launch
        node, arguments = cu.CUDA_KERNEL_NODE_PARAMS(), self._arguments
        ctypes.memmove(arguments.first, values, len(values))
        node.func, node.sharedMemBytes, node.kernelParams = self._functions[kernel], shared, arguments.places
        node.gridDimX, node.gridDimY, node.gridDimZ = grid, 1, 1
        node.blockDimX, node.blockDimY, node.blockDimZ = block, 1, 1
        return node

    def run_graph(self, graph: int, stream: int) -> None:
        _ok(cu.cuGraphLaunch(cu.CUgraphExec(graph), cu.CUstream(stream))[0])

    def end_graph(self, graph: int) -> None:
        _ok(cu.cuGraphExecDestroy(cu.CUgraphExec(graph))[0])
