import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba.core import config

from pio.device import Device
from pio.errors import TensorError
from pio.kernels import sizes
from pio.kernels.sizes import AMX, CHAINS, LANE_PRODUCTS
from pio.ops import roofline
from pio.tensor import Tensor
from pio.testing.compare import assert_close
from pio.testing.reference import roofline as reference

LARGEST = 300 if config.DISABLE_JIT else 5000


@given(n=st.integers(0, LARGEST), threads=st.integers(1, 3))
def test_every_whole_step_is_read(n, threads):
    x = [float(i % 31 - 11) for i in range(n)]
    found = roofline.read_all((Tensor.from_list(x) if x else Tensor.empty((0,))).to(Device("cpu", threads)))
    assert found.tolist() == reference.read_all(x, threads)  # whole numbers: no sum is rounded


@given(rounds=st.integers(0, 9), threads=st.integers(1, 3))
def test_every_multiply_add_is_done_and_counted(rounds, threads):
    sums, operations = roofline.fma_all(rounds, 0.75, 0.5, device=Device("cpu", threads))
    chains = operations // (2 * rounds * 16 * threads) if rounds else 12 if roofline.kernels.WIDE else 6
    assert operations == 2 * rounds * chains * 16 * threads
    assert_close(sums, reference.fma_all(rounds, 0.75, 0.5, threads, chains), relative=1e-5)


@given(rounds=st.integers(0, 300), start=st.integers(0, 255), threads=st.integers(1, 3))
def test_every_integer_product_is_done_and_counted(rounds, start, threads):
    sums, operations = roofline.dot_all(rounds, start, device=Device("cpu", threads))
    assert operations == 2 * rounds * CHAINS * 16 * LANE_PRODUCTS * threads
    assert sums.tolist() == reference.dot_all(rounds, start, threads, CHAINS, LANE_PRODUCTS)


@pytest.mark.skipif(not AMX, reason="this processor has no AMX, or the system does not allow it")
@given(rounds=st.integers(0, 300), start=st.integers(0, 255), threads=st.integers(1, 3))
def test_every_product_of_tiles_is_done_and_counted(rounds, start, threads):
    sums, operations = roofline.tile_all(rounds, start, device=Device("cpu", threads))
    assert operations == 2 * rounds * 4 * 16 * 16 * 64 * threads
    assert sums.tolist() == reference.tile_all(rounds, start, threads)


def test_without_amx_there_are_no_tiles(monkeypatch):
    monkeypatch.setattr(sizes, "AMX", False)
    assert not roofline.multiplies_tiles()
    with pytest.raises(TensorError, match="tile_all: the processor has no AMX, or the system does not allow it"):
        roofline.tile_all(1)


@given(rounds=st.integers(0, 300), x=st.integers(-40, 40), threads=st.integers(1, 3))
def test_every_product_of_bfloat16_is_done_and_counted(rounds, x, threads):
    sums, operations = roofline.pair_all(rounds, float(x), device=Device("cpu", threads))
    chains = operations // (2 * rounds * 32 * threads) if rounds else 12 if roofline.kernels.WIDE else 6
    assert operations == 2 * rounds * chains * 32 * threads
    assert sums.tolist() == reference.pair_all(rounds, float(x), threads, chains)  # whole numbers below 2^24


def test_arguments_are_checked():
    with pytest.raises(TensorError, match="read_all: x is int32"):
        roofline.read_all(Tensor.from_list([1, 2], "int32"))
    with pytest.raises(TensorError, match="rounds is -1"):
        roofline.fma_all(-1, 1.0, 0.0)
    with pytest.raises(TensorError, match="rounds is -3"):
        roofline.dot_all(-3)
    with pytest.raises(TensorError, match="rounds is -4"):
        roofline.tile_all(-4)
    with pytest.raises(TensorError, match="rounds is -2"):
        roofline.pair_all(-2)
