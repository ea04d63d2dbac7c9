"""Kernels that are two, of which a launch takes one by its rows: which one, and that it does not show in the bits."""

import pytest

pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

from gpu_case import bytes_of, numbers

from pio import ops
from pio.kernels import _image, jobs
from pio.kernels._image import Name
from pio.kernels.cuda._variants import FEW, VARIANTS
from pio.ops import compilation
from pio.ops.expert_weights import ExpertWeights
from pio.ops.routing import Choices
from pio.tensor import Tensor


@pytest.fixture
def launched(driver, monkeypatch):
    """The names of kernels that were launched."""
    names, record = [], jobs.record_launch
    monkeypatch.setattr(jobs, "record_launch", lambda name, *rest: (names.append(name), record(name, *rest)))
    return names


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_linear_layer_takes_one_by_its_rows(launched, dtype):
    x, w = numbers(FEW + 1, 40).to("cuda"), numbers(5, 40, seed=2, dtype=dtype).to("cuda")
    many = ops.linear(x, w)
    few = ops.linear(x[1:].clone(), w)
    kernels = [name for name in launched if "linears" in name]
    assert kernels == [f"many_linears_{dtype}", f"few_linears_{dtype}"]
    assert bytes_of(many.to("cpu")[1:].clone()) == bytes_of(few.to("cpu"))


def test_heads_take_one_by_their_rows(launched):
    x, w = numbers(FEW + 1, 2, 24).to("cuda"), numbers(2, 5, 24, seed=2, dtype="bfloat16").to("cuda")
    many, few = ops.head_linear(x, w), ops.head_linear(x[1:].clone(), w)
    assert [name for name in launched if "heads" in name] == ["many_heads_bfloat16", "few_heads_bfloat16"]
    assert bytes_of(many.to("cpu")[1:].clone()) == bytes_of(few.to("cpu"))


def routed(tokens, experts):
    """All tokens go to expert 0, and every eleventh to expert 2 besides, the others to expert 1."""
    logits = Tensor.from_list([[9.0, float(t % 11 > 0), float(t % 11 == 0)] for t in range(tokens)]).to("cuda")
    return ops.route(logits, out=Choices.empty(tokens, 2, experts, logits.device))


def test_experts_with_few_rows_and_with_many_take_theirs(launched):
    tokens, experts, n, k = FEW + 3, 3, 6, 40
    x = numbers(tokens, k).to("cuda")
    weights = ExpertWeights([numbers(n, k, seed=e, dtype="bfloat16").to("cuda") for e in range(experts)])
    outs = []
    for count in (tokens, FEW):
        choices = routed(count, experts)
        out = Tensor.full((count * 2, n), 7.0, device="cuda")
        ops.expert_linears(x[:count].clone(), choices, [weights], [out])
        places = choices.places.tolist()
        rows = out.tolist()
        outs.append([[rows[place] for place in places[t]] for t in range(count)])
    kernels = [name for name in launched if "_experts" in name]
    assert kernels == ["few_experts_bfloat16", "many_experts_bfloat16", "few_experts_bfloat16"]
    assert outs[0][:FEW] == outs[1]
    assert not any(7.0 in row for token in outs[0] for row in token)


def test_both_are_listed_whatever_the_rows(driver, tmp_path, monkeypatch):
    monkeypatch.setattr(_image, "cache_folder", lambda: tmp_path)
    x, w = numbers(2, 40).to("cuda"), numbers(5, 40, seed=2).to("cuda")
    with compilation.listing() as listed:
        ops.linear(x, w)
    module = "pio.kernels.cuda._linears"
    names = [Name(module, name, "float32") for name in VARIANTS[f"{module}.linears"].names]
    assert [kernel.source.name[:3] for kernel in listed] == names


def test_a_step_of_few_rows_is_recorded_with_the_kernel_of_few(launched):
    x, w, out = numbers(3, 40).to("cuda"), numbers(5, 40, seed=2).to("cuda"), Tensor.zeros((3, 5), device="cuda")
    with ops.recording() as program:
        ops.linear(x, w, out=out)
    wanted = out.tolist()
    out.fill_(0.0)
    program.run()
    assert out.tolist() == wanted and [name for name in launched if "linears" in name] == ["few_linears_float32"]
