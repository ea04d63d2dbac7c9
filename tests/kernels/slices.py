"""A batch for tests of recurrent layers."""

from pio.ops.slices import Slices


def batch_of(*sequences):
    """What a batch says of its sequences: the slot of each, how many tokens came before and how many come now; whether
    they are tentative, and from which slot its state comes first."""
    made = Slices(len(sequences), 0)
    for slot, past, new, *more in sequences:
        made.append(new, past, [], slot, more[1] if len(more) > 1 else None, tentative=any(more[:1]))
    return made
