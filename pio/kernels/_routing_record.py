"""The record of a layer's routing: what its kernels read by one address."""

from __future__ import annotations

# int64 but the last, a float64: experts, how many a token takes; groups, how many are kept; whether scores are single
# probabilities, whether weights are divided by their sum; factor of weights.
EXPERTS, K, GROUPS, KEPT, LOGISTIC, RENORMALISE, SCALING = (8 * i for i in range(7))

TINY = 1e-20  # weights that are all zero stay so
