"""Graphs of launches: node by node, so that nothing that other threads do gets in between."""

import ctypes
import struct
import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')
pytest.importorskip("cuda.bindings", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

from pio import ops
from pio.cuda import bindings
from pio.cuda.bindings import Bindings
from pio.cuda.driver import Launch
from pio.errors import DeviceError, OutOfMemoryError
from pio.tensor import Tensor

LAUNCHES = [
    Launch(71, 5, 128, 0, "qq", struct.pack("=qq", 3, -4)),
    Launch(72, 1, 512, 60_000, "qdq", struct.pack("=qdq", 1, 0.25, 9)),
    Launch(71, 6, 64, 16, "qq", struct.pack("=qq", 7, 8)),
]


@pytest.fixture
def nodes(monkeypatch):
    """Let a library answer that takes nodes and notes what they are, as the driver copies them in the call."""
    cu, added, made = bindings.cu, [], Bindings.__new__(Bindings)
    made._functions = {kernel: cu.CUfunction(1000 + kernel) for kernel in (71, 72)}
    made._arguments = bindings._Arguments()
    fine = cu.CUresult.CUDA_SUCCESS

    def add(graph, before, count, node):
        letters = LAUNCHES[len(added)].letters
        places = (ctypes.c_void_p * len(letters)).from_address(node.kernelParams)
        kinds = {"q": ctypes.c_int64, "d": ctypes.c_double}
        values = [kinds[letter].from_address(place).value for letter, place in zip(letters, places, strict=True)]
        grid, block = ([getattr(node, f"{which}Dim{axis}") for axis in "XYZ"] for which in ("grid", "block"))
        assert (graph, count) == ("a graph", len(before))
        added.append((int(node.func), grid, block, node.sharedMemBytes, values, [*before]))
        return fine, f"node {len(added)}"

    library = {
        "cuGraphCreate": lambda flags: (fine, "a graph"),
        "cuGraphAddKernelNode": add,
        "cuGraphInstantiate": lambda graph, flags: (fine, 4711),
        "cuGraphDestroy": lambda graph: added.append(f"{graph} is gone"),
    }
    own = SimpleNamespace(CUresult=cu.CUresult, CUDA_KERNEL_NODE_PARAMS=cu.CUDA_KERNEL_NODE_PARAMS, **library)
    monkeypatch.setattr(bindings, "cu", own)
    return SimpleNamespace(driver=made, added=added, library=own)


def test_each_launch_is_a_node_behind_the_one_before_it(nodes):
    assert nodes.driver.graph(LAUNCHES) == 4711
    assert nodes.added == [
        (1071, [5, 1, 1], [128, 1, 1], 0, [3, -4], []),
        (1072, [1, 1, 1], [512, 1, 1], 60_000, [1, 0.25, 9], ["node 1"]),
        (1071, [6, 1, 1], [64, 1, 1], 16, [7, 8], ["node 2"]),
        "a graph is gone",
    ]


@pytest.mark.parametrize("call", ["cuGraphAddKernelNode", "cuGraphInstantiate"])
def test_a_graph_that_cannot_be_made_leaves_nothing(nodes, call):
    results = bindings.cu.CUresult
    for result, kind, words in (
        (results.CUDA_ERROR_OUT_OF_MEMORY, OutOfMemoryError, "no memory left to make a graph"),
        (results.CUDA_ERROR_INVALID_VALUE, DeviceError, "'invalid value' where it is to make a graph"),
    ):
        setattr(nodes.library, call, lambda *_, result=result: (result, None))
        with pytest.raises(kind, match=words):
            nodes.driver.graph(LAUNCHES[:1])
        assert nodes.added[-1] == "a graph is gone"


def test_others_wait_for_all_of_the_gpu_while_a_graph_is_made(driver, monkeypatch):
    """What other libraries do in the default stream would spoil a capture; these nodes are nobody else's."""
    x, out = Tensor.from_list([[1.0, 2.0]], device="cuda"), Tensor.zeros((1, 2), device="cuda")
    made, launched = driver.graph, driver._launched

    def wait():
        x.device.stream.gpu.enter().wait_all()
        ops.add(x, x, out=x)

    def beside(*given):
        found = launched(*given)
        monkeypatch.setattr(driver, "_launched", launched)
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join()
        return found

    def graph(launches):
        monkeypatch.setattr(driver, "_launched", beside)
        return made(launches)

    monkeypatch.setattr(driver, "graph", graph)
    with ops.recording() as program:
        ops.add(x, x, out=out)
        ops.mul(out, x, out=out)
    assert (x.tolist(), out.tolist()) == ([[2, 4]], [[2, 8]])
    program.run()
    assert out.tolist() == [[8, 32]]
