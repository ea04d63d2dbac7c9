"""pio beside other engines: same weights, same machine, same minutes. ``python -m benchmarks.peers --help``."""
