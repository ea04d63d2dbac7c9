"""Numba, imported in one piece before anything imports a part of it."""

from pio.shelter import import_whole

import_whole("numba")
