"""Qwen3-Coder-30B-A3B-Instruct."""
