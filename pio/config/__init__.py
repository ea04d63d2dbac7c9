"""Typed configuration: the model's, read from its checkpoint, and the runtime's, with profiles."""
