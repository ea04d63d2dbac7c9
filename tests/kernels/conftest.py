"""What holds for tests of kernels.

Small work is split over threads too, so that parallel kernels are tested on sizes that a reference can follow. And
kernels take addresses, which nobody checks: so tensors are alone in their pages, and the next page is closed.
"""

from collections.abc import Iterator

import guarded
import pytest

from pio.memory import allocation
from pio.ops import _check


@pytest.fixture(scope="module", autouse=True)
def tiny_parts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_check, "MIN_PART", 1)
        yield


@pytest.fixture(scope="module", autouse=True)
def guarded_memory() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(allocation, "_from_heap", guarded.allocate)
        patch.setattr(allocation, "_map", guarded.allocate)
        yield
