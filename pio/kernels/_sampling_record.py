"""The record of one answer, which says how the token of a row is chosen and takes what was chosen.

It has words of eight bytes, whole numbers or float64, at these offsets.
"""

from __future__ import annotations

from typing import Final

# What is asked: which row of the logits; how to draw, with temperature 0 for the likeliest token; whether anything
# changes the row before; and of how many likeliest tokens the log probabilities are wanted, -1 for not even the chosen.
ROW, U, TEMPERATURE, TOP_K, TOP_P, MIN_P, EDITED, TOP = range(0, 64, 8)
# Penalties and biases, as ``penalize`` takes them, then what must not come: a mask, 0 for none, and lists of tokens.
IDS, COUNTS, SEEN, REPETITION, PRESENCE, FREQUENCY, BIAS_IDS, BIASES, BIASED = range(64, 136, 8)
MASK, LISTS, NUM_LISTS = range(136, 160, 8)
# What was chosen: a token or one of the codes, its log probability, and of how many likeliest ones a token and its log
# probability follow.
TOKEN, LOGPROB, NUM_LIKELIEST, LIKELIEST = range(160, 192, 8)
WORDS: Final = LIKELIEST // 8  # and two more for each of the likeliest

NOT_FINITE, NOTHING_LEFT = -1, -2  # in place of a token: the row is broken, or all that it allows is forbidden
