"""A batch for tests of recurrent layers."""

from pio.ops.slices import Slices


def batch_of(*sequences):
    """What a batch says of its sequences: the slot of each, how many tokens came before, and how many come now."""
    made = Slices(len(sequences), 0)
    for slot, past, new in sequences:
        made.append(new, past, [], slot)
    return made
