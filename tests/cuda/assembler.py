"""NVIDIA's assembler, where it is installed (with numba-cuda): it says whether a text of these tests is PTX at all."""

from __future__ import annotations

import re
from functools import cache

try:
    from cuda.bindings import nvjitlink

    nvjitlink.version()
except (ImportError, RuntimeError):  # not there, or without its library
    nvjitlink = None


class NotAssembled(AssertionError):
    """The assembler refused a text that the interpreter ran."""


@cache
def assemble(text: str) -> None:
    """Raise NotAssembled, with what the assembler says, where it refuses a text; without it do nothing."""
    if nvjitlink is None:
        return
    target = re.search(r"^\.target (\w+)", text, re.MULTILINE)
    assert target is not None
    handle = nvjitlink.create(1, [f"-arch={target[1]}"])
    try:
        data = text.encode()
        nvjitlink.add_data(handle, nvjitlink.InputType.PTX, data, len(data), "text")
        nvjitlink.complete(handle)
    except nvjitlink.nvJitLinkError:
        said = bytearray(nvjitlink.get_error_log_size(handle))
        nvjitlink.get_error_log(handle, said)
        raise NotAssembled(f"{said.decode(errors='replace').strip()}\n{text}") from None
    finally:
        nvjitlink.destroy(handle)
