"""Text in and out: tokenizers, chat templates, messages, reasoning, tool calls."""
