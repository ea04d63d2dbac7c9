"""What the roofline on paper knows of kernels is what they take."""

import json

import pytest

pytest.importorskip("numba.cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')
pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

import roofline_table

from pio.benchmarks.gpu.kernel_table import TABLE
from pio.kernels.cuda import roofline as kernels
from pio.ops import roofline

WRITE = "write the table anew: python tests/cuda/roofline_table.py"


def test_the_table_is_what_kernels_take():
    assert json.loads(TABLE.read_text("utf-8")) == roofline_table.rows(), WRITE


def test_operations_know_how_much_the_kernels_do():
    for name, blocks in roofline.BLOCKS.items():
        shape = getattr(kernels, name).shape
        assert (shape.blocks, shape.block) == (blocks, roofline.THREADS)
    assert (roofline.CHAINS, roofline.PAIR_PRODUCTS) == (kernels.CHAINS, kernels.PRODUCTS_BF16)
    assert roofline.DOT_PRODUCTS == kernels.PRODUCTS_S8
