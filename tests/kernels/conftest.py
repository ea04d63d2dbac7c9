"""Small work is split over threads too, so that parallel kernels are tested on sizes that a reference can follow."""

from collections.abc import Iterator

import pytest

from pio.ops import _check


@pytest.fixture(scope="module", autouse=True)
def tiny_parts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_check, "MIN_PART", 1)
        yield
