"""Qwen3-Coder-Next."""
