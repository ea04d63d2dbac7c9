"""A model whose layers of bfloat16 multiply inputs that are rounded to bfloat16."""

import pytest

import pio
from pio import ops
from pio.layers.linear import Linear, together
from pio.layers.quantization import Quantization
from pio.layers.source import Source
from pio.layers.workspace import Workspace
from pio.tensor import Tensor
from pio.testing.compare import bits

TEXT = "class Point:\n    def __init__(self, x, y):\n        self.x, self.y = x, y\n\n    def __repr__(self):\n"


class Stored:
    """Random matrices by name; a name ends with its type."""

    def __contains__(self, name):
        return True

    def take(self, name, shape):
        rows, columns = shape
        values = [[(7 * i + 3 * j + len(name)) % 23 / 9 - 1.2 for j in range(columns)] for i in range(rows)]
        return Tensor.from_list(values, name.split(".")[-2].split("_")[-1])

    def take_packed(self, name, shape):
        return None

    def convert(self, name, shape, pack):
        return pack(self.take(name, shape))

    def let_go(self, name):
        pass


def source(*, quantize=None, rows=8):
    return Source(Stored(), Workspace(rows, round_inputs=True), quantization=Quantization.of(quantize, "uniform"))


def test_a_layer_rounds_where_its_own_weight_is_bfloat16():
    """Alone and together with layers of other types, which take the inputs as they are."""
    stored, k = source(), 39
    x = Tensor.from_list([[0.3 * i - 0.017 * j for j in range(k)] for i in range(5)])
    layers = [Linear(stored / f"w_{kind}", n, k) for n, kind in ((7, "bfloat16"), (11, "float32"), (13, "bfloat16"))]
    expected = [
        bits((ops.bfloat16_linear if layer.weight.dtype is pio.bfloat16 else ops.linear)(x, layer.weight))
        for layer in layers
    ]
    assert expected[0] != bits(ops.linear(x, layers[0].weight))
    for chosen in ([0, 2], [0, 1], [1], [0, 1, 2]):
        outs = [Tensor.full((5, layers[i].weight.shape[0]), float("nan")) for i in chosen]
        together(x, [layers[i] for i in chosen], outs)
        assert [bits(out) for out in outs] == [expected[i] for i in chosen]
    packed = Linear(source(quantize="int8") / "w_bfloat16", 7, k)
    assert bits(packed(x, Tensor.empty((5, 7)))) == bits(ops.quantized_linear(x, packed.weight))


@pytest.mark.parametrize("kinds", [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_memory_for_rounded_rows_is_that_of_the_widest_such_layer(kinds):
    stored = source(rows=3)
    for kind, k in zip(kinds, (70, 45), strict=True):
        Linear(stored / f"w_{kind}", 5, k)
    wide = 96 if kinds[0] == "bfloat16" else 64  # whole steps of 32
    assert stored.workspace.nbytes == stored.workspace.inputs.nbytes == 3 * 2 * wide
    assert Workspace(3).rounds(Tensor.zeros((5, 7), "bfloat16")) is False


def test_logits_do_not_depend_on_chunks_or_threads():
    found = set()
    for steps in ({}, {"prefill_chunk": 1, "max_batch_sequences": 1}, {"prefill_chunk": 7}, {"threads": 1}):
        with pio.load("demo", context_length=256, activation_dtype="bfloat16", **steps) as model:
            found.add(bytes(model.logits(model.tokenize(TEXT)).memoryview()))
    assert len(found) == 1


def test_an_answer_is_what_its_own_logits_say():
    """What was written token by token, in recorded steps, is what one pass writes."""
    with pio.load("demo", context_length=256, prefill_chunk=9, activation_dtype="bfloat16") as model:
        ids = model.tokenize(TEXT[:70])
        made = model.generate(ids, max_new_tokens=40, temperature=0.0, ignore_eos=True)
        rows = model.logits([*ids, *made.token_ids[:-1]]).tolist()[len(ids) - 1 :]
        assert [max(range(len(row)), key=row.__getitem__) for row in rows] == list(made.token_ids)


def test_rounding_moves_logits_by_less_than_a_hundredth():
    rows = []
    for kind in ("float32", "bfloat16"):
        with pio.load("demo", context_length=256, activation_dtype=kind) as model:
            rows.append([x for row in model.logits(model.tokenize(TEXT)).tolist() for x in row])
    difference = sum((a - b) ** 2 for a, b in zip(*rows, strict=True)) / sum(a * a for a in rows[0])
    assert 0 < difference < 0.005**2
