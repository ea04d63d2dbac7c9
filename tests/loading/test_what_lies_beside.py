"""Files of a folder that are not what they should be, or are not read: none of it happens in silence."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from needs import link, needs_symlinks

from pio import dtypes
from pio.errors import CheckpointError
from pio.loading.checkpoint import Checkpoint
from pio.loading.safetensors import write_safetensors
from pio.loading.weights import Weights
from pio.tensor import Tensor
from pio.text.chat_template import ChatTemplate
from pio.text.tokenizer import Tokenizer

USER = {"role": "user", "content": "Hi"}


@needs_symlinks
@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"])
def test_a_link_that_leads_nowhere(name: str, tmp_path: Path) -> None:
    link(tmp_path / name, "gone")
    with pytest.raises(CheckpointError, match=f"{name} is a link to .*gone, where there is no file; download") as found:
        checkpoint = Checkpoint(tmp_path)
        _ = checkpoint.config if name == "config.json" else checkpoint.generation_config
        ChatTemplate.from_folder(tmp_path)
        Tokenizer.from_folder(tmp_path)
    assert "capitals" not in str(found.value)


def test_a_template_that_begins_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"\xef\xbb\xbf{{ messages[0].content }}")
    assert ChatTemplate.from_folder(tmp_path).render([USER]) == "Hi"


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ("adapter_model.safetensors", True),
        ("model-old.safetensors", True),
        ("consolidated.safetensors", False),  # the same weights in their maker's layout
        ("model.safetensors.bak", False),
    ],
)
def test_weights_that_are_not_read(other: str, told: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_safetensors(tmp_path / "model.safetensors", {"a": Tensor.from_list([1.0], dtypes.float32)})
    (tmp_path / other).write_bytes(b"x")
    with caplog.at_level(logging.WARNING, "pio"):
        Weights(tmp_path)
    expected = f"{tmp_path}: not read, for the weights are in 'model.safetensors': {other!r}"
    assert caplog.messages == ([expected] if told else [])


def test_templates_that_are_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    more = tmp_path / "additional_chat_templates"
    more.mkdir()
    with caplog.at_level(logging.WARNING, "pio"):
        ChatTemplate.from_folder(tmp_path)
        assert caplog.messages == []
        (more / "tool_use.jinja").write_text("{{ tools }}")
        assert ChatTemplate.from_folder(tmp_path).render([USER]) == "Hi"
    assert len(caplog.messages) == 1 and "are not read ('tool_use.jinja')" in caplog.messages[0]
