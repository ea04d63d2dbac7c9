"""A batch for tests of recurrent layers."""

from itertools import accumulate

from pio.tensor import Tensor


class Slices:
    """What a batch says of its sequences: the slot of each, how many tokens came before, and how many come now."""

    def __init__(self, *sequences):
        self.slots = Tensor.from_list([slot for slot, _, _ in sequences], "int32")
        self.past = Tensor.from_list([past for _, past, _ in sequences], "int32")
        self.starts = Tensor.from_list([0, *accumulate(new for _, _, new in sequences)], "int32")
        self.num_sequences = len(sequences)
