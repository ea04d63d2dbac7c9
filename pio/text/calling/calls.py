"""How the calls in the answer to one prompt are found."""

from __future__ import annotations

from dataclasses import dataclass, field

from pio.text.calling.call_format import CallFormat
from pio.text.calling.splitter import CallSplitter
from pio.text.calling.toolbox import Toolbox


@dataclass(frozen=True)
class Calls:
    """Tools that a prompt declares, and how the model writes their calls.

    Attributes:
        form: The format.
        toolbox: The tools.
        begun: The beginning of the answer, where the prompt ends with it.
        begun_ids: Its tokens, with which the prompt ends; none where these are not known.
        tag_ids: Tokens of tags, which stay in the text even where they are special.
        salt: Of the ids of calls.
    """

    form: CallFormat
    toolbox: Toolbox = field(compare=False)
    begun: str = ""
    begun_ids: tuple[int, ...] = ()
    tag_ids: frozenset[int] = frozenset()
    salt: str = ""

    def splitter(self) -> CallSplitter:
        """Return what finds the calls in one answer."""
        return CallSplitter(self.form.body, self.toolbox, self.salt)
