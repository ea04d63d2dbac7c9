"""The test class for authors of plugins finds a decoder that ignores what comes with a prompt."""

from __future__ import annotations

from pathlib import Path

import pytest
from third_party import CONFIG, NAME, PLUGIN, installed

from pio.testing.plugin_case import PluginCase

DECODER = """
from pio import ops


class OwnDecoder(Decoder):
    def hidden_states(self, batch, cache):
        tokens, count = batch.num_tokens, batch.num_outputs
        x, normed = self._stream(tokens)
        BEGIN
        self.rotary(batch.rotary_positions[0, :tokens])
        for layer in self.layers:
            layer(x, normed, batch, cache)
        rows = self._outputs(0)[0][:count]
        return ops.gather(x, batch.output_rows[:count], out=rows) if count else rows


class AcornPlugin("""


class Case(PluginCase):
    plugin = NAME
    config = {**CONFIG, "vocab_size": 4099}


@pytest.mark.parametrize(
    ("begin", "finds"),
    [("x = self.embed(batch)", ""), ("self.embed_tokens(batch.tokens[:tokens], x)", r"without Decoder\.embed")],
    ids=["embed", "tokens alone"],
)
def test_a_decoder_that_looks_tokens_up_itself_is_found(tmp_path: Path, begin: str, finds: str) -> None:
    plugin = PLUGIN.replace("class AcornPlugin(", DECODER.replace("BEGIN", begin)).replace(
        "return Decoder(", "return OwnDecoder("
    )
    with installed(tmp_path, plugin=plugin):
        Case.setup_class()
        try:
            if finds:
                with pytest.raises(AssertionError, match=finds):
                    Case().test_prompt_embeddings()
            else:
                Case().test_prompt_embeddings()
            Case().test_prompt_in_pieces()
        finally:
            Case.teardown_class()
