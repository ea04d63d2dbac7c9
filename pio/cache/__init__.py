"""Caches that models keep between steps: paged keys and values."""
