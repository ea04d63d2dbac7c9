"""Blocks that models share; a model says which of them stand where."""
