"""Answers in a shape that was asked for: which tokens may come next, by grammars that llguidance compiles."""
