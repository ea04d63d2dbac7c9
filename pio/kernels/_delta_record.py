"""The records of the gated delta rule, as kernels read them and operations make them; imported without a compiler.

That of ``gated_delta`` is int64 but the last, a float64: heads of values, heads of queries and keys, the widths of
both; how far tokens and heads lie apart; how many bytes beta lies behind decay; how many tokens a window keeps, the
addresses of its learned, keys and decay and of the slices to walk on; how far tokens lie apart in what gates are made
of; what is added to sums of squares.

That of ``commit_delta`` is int64: layers, heads of values, heads of keys, slices of a head, width of a key, tokens that
a window keeps; how far layers lie apart in states and in windows' learned, keys and decay, in elements.
"""

from __future__ import annotations

HEADS, KEY_HEADS, DIM, VALUE_DIM, TOKEN_OUT, TOKEN_Q, HEAD_Q, TOKEN_K, HEAD_K, TOKEN_V, HEAD_V = (
    8 * i for i in range(11)
)
BETA, ROOM, LEARNED, KEYS, DECAY, DESKS, TOKEN_B, TOKEN_A, EPS = (8 * i for i in range(11, 20))

LAYERS, COMMIT_HEADS, COMMIT_KEY_HEADS, SLICES, COMMIT_DIM, COMMIT_ROOM = (8 * i for i in range(6))
LAYER_STATE, LAYER_LEARNED, LAYER_KEYS, LAYER_DECAY = (8 * i for i in range(6, 10))
