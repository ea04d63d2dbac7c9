"""Weights that are read into memory: the bits of mapped ones, whatever becomes of the file afterwards."""

import gc
import os
import shutil

import pytest
from needs import needs_proc, needs_replaceable_files
from odd_checkpoint import write_odd_checkpoint

import pio
from pio.loading import weight_file
from pio.loading.checkpoint import resolve
from pio.loading.safetensors import SafetensorsFile, write_safetensors
from pio.memory.allocation import allocated_bytes
from pio.tensor import Tensor

PROMPT = [5, 81, 22, 7]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_odd_checkpoint(tmp_path_factory.mktemp("original") / "model")


def bits(path, **options):
    with pio.load(path, context_length=64, **options) as model:
        model.check_weights()
        return bytes(model.logits(PROMPT).memoryview()), model.metadata.memory, model.metadata.formats


def numbers(path, count=70):
    write_safetensors(path, {"a": Tensor.from_list([1.0, 2.0]), "b": Tensor.from_list([0.5 * i for i in range(count)])})
    return path


@pytest.mark.parametrize("options", [{}, {"dtype": "float32"}, {"quantize": "int4"}, {"dtype": "float16"}], ids=str)
def test_the_same_bits_as_mapped(original, options):
    assert bits(original, mmap=False, **options) == bits(original, **options)


def test_the_same_bits_of_a_quantized_folder(original, tmp_path):
    made = pio.quantize(original, tmp_path / "made", format="int8")
    assert bits(made, mmap=False) == bits(made)


def test_the_same_bits_of_shards(original, tmp_path, monkeypatch):
    monkeypatch.setattr(pio.plugin.quantizer, "SHARD", 20_000)
    made = pio.quantize(original, tmp_path / "made", format="int4")
    assert len(list(made.glob("*.safetensors"))) > 2
    assert bits(made, mmap=False) == bits(made)


@pytest.fixture
def own(tmp_path):
    """A copy of the demo model, which a test may spoil."""
    return shutil.copytree(resolve("demo"), tmp_path / "own")


def test_a_loaded_model_needs_its_file_no_more(own):
    asked = {"prompt": "def add(a, b):", "max_new_tokens": 6, "temperature": 0}
    with pio.load("demo") as model:
        expected = model.generate_text(**asked)
    with pio.load(own, mmap=False) as model:
        os.truncate(own / "model.safetensors", 100)
        assert model.generate_text(**asked) == expected
        model.check_weights()


def test_memory_is_counted_and_given_back(own):
    gc.collect()
    before = allocated_bytes()
    with pio.load(own, context_length=32, mmap=False, speculation="off") as model:  # whose texts come later
        taken = model.metadata.memory
        assert allocated_bytes() - before >= sum(taken.values())
    del model
    gc.collect()
    assert allocated_bytes() == before
    with pytest.raises(pio.OutOfMemoryError, match="the weights"):
        pio.load(own, mmap=False, memory_limit=taken["weights"] - 1)


@needs_proc
def test_descriptors_are_given_back(own):
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    with pio.load(own, context_length=32, mmap=False):
        assert len(os.listdir("/proc/self/fd")) > before
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("options", [{}, {"quantize": "int8"}, {"dtype": "float16"}], ids=str)
def test_what_does_not_fit_is_refused_before_it_is_read(own, monkeypatch, options):
    monkeypatch.setattr("pio.machine.available_memory", lambda: 10_000)
    monkeypatch.setattr(weight_file.HERE, "read_at", lambda *_: pytest.fail("a tensor was read"))
    with pytest.raises(pio.OutOfMemoryError, match=r"the weights.* the machine has 9.766 KiB"):
        pio.load(own, mmap=False, **options)


def test_update_changes_it(own):
    with pio.load(own, context_length=32) as model:
        expected = bytes(model.logits(PROMPT).memoryview())
        model.update(mmap=False)
        assert model.runtime.mmap is False and bytes(model.logits(PROMPT).memoryview()) == expected


@pytest.mark.parametrize("left", [0, 8, 200, 8 + 296])
def test_a_file_that_is_cut_short_while_it_is_read(tmp_path, left):
    path = numbers(tmp_path / "w.safetensors")
    file = SafetensorsFile(path, mapped=False)
    os.truncate(path, left)
    with pytest.raises(pio.CheckpointError, match=r"w\.safetensors ended at byte \d+ while .* cut short"):
        file.tensor("b")


def test_a_file_that_is_overwritten_while_it_is_read(tmp_path):
    path = numbers(tmp_path / "w.safetensors")
    file = SafetensorsFile(path, mapped=False)
    first = file.tensor("a")
    with path.open("r+b") as other:
        other.seek(-4, os.SEEK_END)
        other.write(b"\0\0\0\0")
    os.utime(path, ns=(1, 1))
    with pytest.raises(pio.CheckpointError, match="changed while it was read"):
        file.tensor("b")
    assert first.tolist() == file.tensor("a").tolist() == [1.0, 2.0]


@needs_replaceable_files
def test_a_file_that_is_replaced_is_the_old_one(tmp_path):
    path = numbers(tmp_path / "w.safetensors", 5)
    file = SafetensorsFile(path, mapped=False)
    write_safetensors(path, {"b": Tensor.from_list([9.0] * 5)})
    assert file.tensor("b").tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]


def test_pieces_and_edges(tmp_path, monkeypatch):
    monkeypatch.setattr(weight_file, "PIECE", 7)
    file = SafetensorsFile(numbers(tmp_path / "w.safetensors", 11), mapped=False)
    tensor = file.tensor("b")
    assert tensor.tolist() == [0.5 * i for i in range(11)]
    assert tensor.address % 64 == 0 and tensor.storage.readonly
    assert file.tensor("b").address == tensor.address  # what is in use is not read again
    write_safetensors(tmp_path / "empty.safetensors", {"e": Tensor.zeros((0, 3))})
    assert SafetensorsFile(tmp_path / "empty.safetensors", mapped=False).tensor("e").tolist() == []


def test_what_is_no_longer_used_is_given_back(tmp_path):
    file = SafetensorsFile(numbers(tmp_path / "w.safetensors", 300_000), mapped=False)
    before = allocated_bytes()
    tensor = file.tensor("b")
    assert allocated_bytes() == before + tensor.nbytes
    file.let_go("b")
    assert tensor.tolist()[-1] == 149_999.5
    del tensor
    assert allocated_bytes() == before
