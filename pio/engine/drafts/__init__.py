"""Tokens that are likely to come next: who proposes them, and how many of them are computed."""
