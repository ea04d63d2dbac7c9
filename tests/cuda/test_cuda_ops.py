"""Every operation that GPUs have, called as a program calls it, beside the CPU: each argument in its place."""

import pytest

pytest.importorskip("numba_cuda", reason='kernels for GPUs take numba-cuda: pip install "numba-cuda[cu13]"')

import cache_cases
import elementwise_cases
import expert_cases
import linear_cases
import picture_cases
import state_cases
import table_cases
from operation_case import check_close, integers, lies_anywhere, numbers, placed

from pio import ops
from pio.device import Device
from pio.errors import DeviceError, NumericalError, TensorError
from pio.kernels import _compilers, _image
from pio.kernels._image import Name
from pio.kernels.cuda import _kept
from pio.ops import attention, compilation
from pio.ops.penalties import Penalties
from pio.ops.sampling import Choice, Sampler
from pio.ops.slices import Slices
from pio.tensor import Tensor

MODULES = (
    elementwise_cases, table_cases, linear_cases, picture_cases, expert_cases, state_cases, cache_cases,
)  # fmt: skip
CASES = {name: case for module in MODULES for name, case in module.CASES.items()}
NO_CASES = {  # what operations are called with, what runs others, and what moves no number by itself
    "Choices", "ExpertWeights", "PackedWeight", "Pages", "Program", "Window", "recording", "host_call",
    "attention_scratch", "latent_scratch", "absorbed_weights", "copy",
}  # fmt: skip
WITHIN_OTHERS = {"write_cache", "write_latent_cache"}  # in cases of what reads them


def test_every_operation_is_a_case():
    cased = {name.partition(" ")[0] for name in CASES}
    assert set(ops.__all__) - NO_CASES - WITHIN_OTHERS - cased == set()


@pytest.mark.parametrize("name", CASES)
def test_an_operation(driver, name):
    case = CASES[name]
    wanted = case.act(*placed(list(case.make()), "cpu"))
    check_close(case.act(*placed(list(case.make()), "cuda")), wanted, case.within)


@pytest.mark.parametrize("name", CASES)
def test_an_argument_of_another_device(driver, name):
    """One typed error that names both devices and the way out, whichever argument it is."""
    case = CASES[name]
    values = list(case.make())
    places = [i for i, value in enumerate(values) if lies_anywhere(value)]
    for place in places if len(places) > 1 else ():
        given = [placed(value, "cpu" if i == place else "cuda") for i, value in enumerate(values)]
        with pytest.raises(DeviceError, match="an operation runs on one device") as raised:
            case.act(*given)
        assert "cuda:0" in str(raised.value) and "cpu" in str(raised.value)


def test_a_batch_is_sent_to_the_gpu(driver):
    """Positions and blocks of two sequences are written here and read there, each time when they are sent."""
    k, v = numbers(3, 1, 16), numbers(3, 1, 16, seed=2)
    kind, key_shape, value_shape = attention.cache_layout("float32", 3, 1, 16)
    kept = []
    for device in ("cpu", "cuda"):
        batch = Slices(2, 2, device=k.to(device).device)
        keys, values = Tensor.zeros(key_shape, kind, device), Tensor.zeros(value_shape, kind, device)
        scratch = attention.attention_scratch(16, k.to(device).device)
        for blocks in ([[2], [0]], [[1], [2]]):
            batch.begin()
            batch.append(2, 5, blocks[0])
            batch.append(1, 0, blocks[1])
            batch.send()
            attention.write_cache(keys, values, k.to(device), v.to(device), batch, scratch)
        kept.append((keys.tolist(), values.tolist()))
    assert kept[0] == kept[1]
    with pytest.raises(DeviceError, match="write_cache: keys lies on cuda:0 and batch on cpu"):
        attention.write_cache(keys, values, k.to("cuda"), v.to("cuda"), Slices(1, 1), scratch)


def test_an_index_out_of_range_is_found_before_it_is_read(driver):
    table, out = numbers(4, 6).to("cuda"), Tensor.zeros((2, 3), device="cuda")
    wrong = Tensor.from_list([3, 4, -1], "int32", "cuda")
    with pytest.raises(TensorError, match=r"gather: indices\[1\] is 4, expected 0 to 3"):
        ops.gather(table, wrong)
    with pytest.raises(TensorError, match=r"unpack: indices\[2\] is -1, expected 0 to 4"):
        ops.unpack(ops.pack(numbers(5, 6), "int8").to("cuda"), wrong)
    at, rows = integers(1, 2, 0).to("cuda"), Tensor.zeros((3, 3), device="cuda")
    with pytest.raises(TensorError, match=r"scatter_add: indices\[1\] is 2, expected 0 to 1"):
        ops.scatter_add(out, at, rows)
    with pytest.raises(TensorError, match=r"scatter_add_by_index: indices\[1\] is 2, expected 0 to 1"):
        ops.scatter_add_by_index(out, at, rows, Tensor.zeros((3,), device="cuda"))
    assert out.tolist() == [[0] * 3] * 2


@pytest.mark.parametrize("form", ["int8", "int4", "int4_zero_point"])
def test_a_weight_that_cannot_be_packed_is_told_as_the_cpu_tells_it(driver, form):
    large, infinite = numbers(7, 70), numbers(7, 70)
    large[5, 69:].fill_(-7e4)
    infinite[2, 3:4].fill_(float("inf"))
    for weight in (large, infinite):
        with pytest.raises(NumericalError) as here:
            ops.pack(weight, form)
        with pytest.raises(NumericalError) as there:
            ops.pack(weight.to("cuda"), form)
        assert str(there.value) == str(here.value)


def test_tokens_are_chosen_as_on_the_cpu(driver):
    chosen, logits, vocab = [], numbers(5, 307), 307
    for device in ("cpu", "cuda"):
        edited = Penalties([3, 9], 4, vocab, repetition=1.3, presence=0.2, bias={7: 1.5})
        options = ({}, {"top_k": 9}, {"top_p": 0.8, "logprobs": 3}, {"min_p": 0.1}, {"penalties": edited})
        choices = [Choice(0.0 if i == 0 else 0.7, **how) for i, how in enumerate(options)]
        for row, choice in enumerate(choices):
            choice.aim(4 - row, 0.37)
        Sampler(vocab, device=Device(device)).sample(logits.to(device), choices)
        chosen.append([(choice.token, [token for token, _ in choice.likeliest]) for choice in choices])
    assert chosen[0] == chosen[1] and all(token >= 0 for token, _ in chosen[0])


def test_tokens_are_not_chosen_from_logits_that_lie_elsewhere(driver):
    with pytest.raises(DeviceError, match="cuda:0"):
        Sampler(9).sample(numbers(1, 9).to("cuda"), [Choice()])


def test_a_kernel_is_kept_and_found_without_the_compiler(driver, monkeypatch):
    name = Name("pio.kernels.cuda.norm", "rms_norm", "float32")
    made = _kept.find(name, "compute_90a")
    monkeypatch.setattr(_kept, "_compile", None)
    assert _kept.find(name, "compute_90a") == made and b".target sm_90a" in made.code
    assert made.letters == "qqqqqqqqdq" and made.block in (128, 256, 512)


def test_kernels_are_listed_and_compiled_by_other_processes(driver, tmp_path, monkeypatch):
    folder = tmp_path / "pio" / "kernels" / _image.source_stamp()
    folder.mkdir(parents=True, mode=0o700)
    monkeypatch.setattr(_image, "cache_folder", lambda: folder)
    x = numbers(3, 5).to("cuda")
    with compilation.listing() as listed:
        assert ops.add(x, x).tolist() == [[0] * 5] * 3  # nothing runs
    name = Name("pio.kernels.cuda.elementwise", "add")
    assert [kernel.source.name for kernel in listed] == [(*name, "compute_90a")]
    assert not listed[0].source.is_kept()
    _compilers.compile_missing(listed, 1)
    assert listed[0].source.is_kept()
    monkeypatch.setattr(_kept, "_compile", None)
    with compilation.listing() as listed:
        ops.add(x, x)
    assert listed == []
    assert ops.add(x, x).tolist() == [[2 * v for v in row] for row in x.tolist()]
