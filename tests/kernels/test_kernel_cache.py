import os
import subprocess
import sys

import pytest

from pio.ops import compilation

SCRIPT = """
from pio import ops
from pio.tensor import Tensor
print(ops.silu(Tensor.full((3, 5), 0.5)).tolist()[2][4])
"""


def run(folder):
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder)}
    environment.pop("NUMBA_CACHE_DIR", None)
    return subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=environment)


@pytest.mark.skipif(not compilation.enabled(), reason="nothing is compiled")
@pytest.mark.parametrize("kind", ["nbi", "nbc"])
@pytest.mark.parametrize("content", [b"", b"rubbish"])
def test_damaged_files_are_made_anew(tmp_path, kind, content):
    expected = run(tmp_path).stdout
    damaged = list(tmp_path.glob(f"pio/kernels/*/*.{kind}"))
    assert damaged
    for file in damaged:
        file.write_bytes(content)
    again = run(tmp_path)
    assert again.stdout == expected and "damaged" in again.stderr
    healed = run(tmp_path)
    assert healed.stdout == expected and healed.stderr == ""
