"""What a program pays before the first word: imports, opening files, loading."""

from __future__ import annotations

import subprocess
import sys

from pio.loading.checkpoint import Checkpoint, resolve

DEMO = "demo"


class Import:
    def timeraw_import_pio(self) -> str:
        return "import pio"

    def timeraw_import_and_load_name(self) -> str:
        return "import pio; pio.load; pio.Tensor"


class Load:
    def setup(self) -> None:
        self.time_load_demo()

    def time_open_checkpoint(self) -> None:
        checkpoint = Checkpoint(resolve(DEMO))
        len(checkpoint.weights())

    def time_tokenizer(self) -> None:
        from pio.text.tokenizer import Tokenizer

        Tokenizer.from_folder(resolve(DEMO))

    def time_load_demo(self) -> None:
        import pio

        pio.load(DEMO, progress=False).cleanup()


class FirstToken:
    """A new interpreter's way to its first token, imports included; kernels come from the cache on disk."""

    params = ("bfloat16", "int8", "int4")
    param_names = ("weights",)

    def setup(self, weights: str) -> None:
        """Compile what is not in the cache."""
        subprocess.run([sys.executable, "-c", self.timeraw_first_token(weights)], check=True)

    def timeraw_first_token(self, weights: str) -> str:
        quantize = None if weights == "bfloat16" else weights
        return (
            f"import pio; model = pio.load({DEMO!r}, quantize={quantize!r}, progress=False); "
            "model.generate([3, 5], max_new_tokens=1); model.cleanup()"
        )
