"""Qwen3-VL-2B-Instruct."""
