"""What a program pays before the first word: imports, opening files, loading."""

from __future__ import annotations

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
        from pio.loading.tokenizer import Tokenizer

        Tokenizer.from_folder(resolve(DEMO))

    def time_load_demo(self) -> None:
        import pio

        pio.load(DEMO, progress=False).cleanup()
