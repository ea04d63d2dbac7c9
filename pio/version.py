"""The version of this package, where what must not import all of it can read it."""

__version__ = "0.1.0"
