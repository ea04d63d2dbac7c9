"""A model folder: where it is, what lies in it, and its files that are JSON or safetensors, read and written."""
