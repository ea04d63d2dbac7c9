"""Where the protocol of caches lay before it was called so: programs that import it from here go on."""

from __future__ import annotations

from pio.cache.protocol import Cache

__all__ = ["Cache"]
