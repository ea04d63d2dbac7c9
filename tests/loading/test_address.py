"""Addresses that every program reads alike, and others."""

from __future__ import annotations

import pytest

from pio.loading.address import begins_addresses, plain_address


@pytest.mark.parametrize("url", ["https://a.example/", "http://a.example:80/b/c?d=e#f", "https://[::1]/x", "http://a"])
def test_plain_addresses(url: str) -> None:
    parts = plain_address(url)
    assert parts is not None and parts.geturl() == url


@pytest.mark.parametrize(
    "url",
    ["", "a.example", "ftp://a.example/", "https:///x", "https://u@a.example/", "https://a.example/../x"]
    + [
        "https://a.example/%2e%2e/x",
        "https://a b/",
        "https://a.example\\x",
        "http://a:99999/",
        "https://[::1/",
        "http://a\x7f",
    ],
)
def test_addresses_that_are_read_in_two_ways(url: str) -> None:
    assert plain_address(url) is None and begins_addresses(url) is None


@pytest.mark.parametrize("url", ["https://a.example/?b", "https://a.example/#b"])
def test_a_beginning_has_no_query(url: str) -> None:
    assert plain_address(url) is not None and begins_addresses(url) is None
