"""Addresses on the network that every program reads alike."""

from __future__ import annotations

from urllib.parse import SplitResult, unquote, urlsplit


def plain_address(url: str) -> SplitResult | None:
    """Return the parts of a plain address of http or https, None of one in which programs read different things."""
    if any(c <= " " or c in "\\\x7f" for c in url):
        return None
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # a port or an IPv6 address that is none
        return None
    dotted = any(piece in (".", "..") for piece in unquote(parts.path).split("/"))
    return parts if usable and "@" not in parts.netloc and not dotted else None


def begins_addresses(prefix: str) -> SplitResult | None:
    """Return the parts of what addresses may begin with: a plain one without a query or a fragment; None of others."""
    parts = plain_address(prefix)
    return None if parts is None or parts.query or parts.fragment else parts
