from __future__ import annotations

import json
from pathlib import Path

import pytest

from pio import dtypes
from pio.errors import CheckpointError
from pio.loading import weights as weights_module
from pio.loading.safetensors import write_safetensors
from pio.loading.weights import Weights
from pio.tensor import Tensor

INDEX = "model.safetensors.index.json"


@pytest.fixture
def single(tmp_path: Path) -> Path:
    tensors = {
        "embed.weight": Tensor.from_list([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtypes.bfloat16),
        "norm.weight": Tensor.from_list([1.0, 2.0, 4.0]),
        "lm_head.weight": Tensor.from_list([[0.0] * 3] * 2, dtypes.bfloat16),
        "ids": Tensor.from_list([1, 2, 3, 4, 5], dtypes.int32),
    }
    write_safetensors(tmp_path / "model.safetensors", tensors)
    return tmp_path


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    write_safetensors(tmp_path / "m-00001-of-00002.safetensors", {"a": Tensor.from_list([1.0, 2.0])})
    write_safetensors(
        tmp_path / "m-00002-of-00002.safetensors", {"b": Tensor.from_list([3.0]), "c": Tensor.zeros((2, 0))}
    )
    weight_map = {"c": "m-00002-of-00002.safetensors", "a": "m-00001-of-00002.safetensors"}
    weight_map["b"] = weight_map["c"]
    (tmp_path / INDEX).write_text(json.dumps({"metadata": {"total_size": 12}, "weight_map": weight_map}))
    return tmp_path


def test_every_tensor_is_accounted_for(single: Path) -> None:
    weights = Weights(single)
    assert set(weights) == {"embed.weight", "norm.weight", "lm_head.weight", "ids"} and len(weights) == 4
    assert "norm.weight" in weights and "norm.bias" not in weights
    assert weights.nbytes == 2 * 3 * 2 + 3 * 4 + 2 * 3 * 2 + 5 * 4
    assert weights.shape("embed.weight") == (2, 3) and weights.used == frozenset()
    assert weights.take("embed.weight", (2, 3)).tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    assert weights.take("norm.weight", (3,)).dtype is dtypes.float32
    assert weights.take("ids", (5,), dtypes=(dtypes.int64, dtypes.int32)).tolist() == [1, 2, 3, 4, 5]
    assert weights.used == {"embed.weight", "norm.weight", "ids"}
    with pytest.raises(CheckpointError, match=r"does not use 1 of the 4 tensors: 'lm_head\.weight'"):
        weights.finish()
    weights.ignore(["lm_head.weight", "never.stored"])
    weights.finish()


def test_ignore_takes_a_name_or_a_function(single: Path) -> None:
    weights = Weights(single)
    weights.ignore("ids")
    weights.ignore(lambda name: name.endswith(".weight"))
    weights.finish()


def test_what_is_skipped_is_counted_by_what_it_is(single: Path) -> None:
    weights = Weights(single)
    assert weights.skipped == {}
    weights.take("embed.weight", (2, 3))
    weights.ignore(lambda name: name.endswith(".weight"), "matrices for training")
    weights.ignore(["ids", "never.stored"], "notes")
    assert weights.skipped == {"matrices for training": 2, "notes": 1}  # what is taken is not skipped
    weights.finish()


def test_an_optional_tensor_may_be_missing(single: Path) -> None:
    weights = Weights(single)
    assert weights.take("norm.bias", (3,), optional=True) is None
    found = weights.take("norm.weight", (3,), optional=True)
    assert found is not None and found.tolist() == [1.0, 2.0, 4.0]
    with pytest.raises(CheckpointError, match="shape"):  # optional does not mean of any shape
        weights.take("norm.weight", (4,), optional=True)


def test_tied_weights_may_be_taken_twice(single: Path) -> None:
    weights = Weights(single)
    first, second = weights.take("embed.weight", (2, 3)), weights.take("embed.weight", (2, 3))
    assert first.address == second.address


def test_a_refused_tensor_is_not_used(single: Path) -> None:
    weights = Weights(single)
    with pytest.raises(CheckpointError, match="int32"):
        weights.take("ids", (5,))
    assert weights.used == frozenset()


def test_shards(sharded: Path) -> None:
    weights = Weights(sharded)
    assert sorted(weights) == ["a", "b", "c"] and weights.nbytes == 12
    assert weights.take("a", (2,)).tolist() == [1.0, 2.0]
    assert weights.take("b", (1,)).tolist() == [3.0]
    assert weights.take("c", (2, 0)).shape == (2, 0)
    weights.finish()


def test_the_single_file_wins_over_an_index(sharded: Path) -> None:
    write_safetensors(sharded / "model.safetensors", {"only": Tensor.from_list([7.0])})
    assert list(Weights(sharded)) == ["only"]


def test_one_file_of_another_name(single: Path) -> None:
    (single / "model.safetensors").rename(single / "weights-v2.safetensors")
    assert len(Weights(single)) == 4


def test_a_stored_tensor_that_the_index_forgets_counts_as_leftover(sharded: Path) -> None:
    index = json.loads((sharded / INDEX).read_text())
    del index["weight_map"]["b"]
    (sharded / INDEX).write_text(json.dumps(index))
    weights = Weights(sharded)
    weights.ignore(["a", "c"])
    with pytest.raises(CheckpointError, match="'b'"):
        weights.finish()


def test_finite_weights_pass(single: Path) -> None:
    weights = Weights(single)
    for name in weights:
        weights.check_finite(name)


@pytest.mark.parametrize("differ", [None, 0, 777, 1036])
def test_an_equal_tensor_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, differ: int | None) -> None:
    monkeypatch.setattr(weights_module, "_COMPARED", 256)
    table = Tensor.from_list([float(i % 97) for i in range(1037)], dtypes.bfloat16).reshape(17, 61)
    head = table.clone()
    if differ is not None:
        head.reshape(-1)[differ : differ + 1].fill_(-1.0)
    write_safetensors(tmp_path / "model.safetensors", {"head": head, "table": table, "wide": table.astype("float32")})
    weights = Weights(tmp_path)
    weights.take("table", (17, 61))
    for _ in range(2):
        assert weights.same("head", "table") == (differ is None)
        assert not weights.same("wide", "table")
    weights.ignore("wide")
    assert weights.used == {"table"}
    if differ is None:
        weights.finish()
    else:
        with pytest.raises(CheckpointError, match="'head'"):
            weights.finish()


def test_memory_that_was_let_go_is_read_again(single: Path) -> None:
    weights = Weights(single)
    tensor = weights.take("embed.weight", (2, 3))
    before = tensor.tolist()
    weights.let_go("embed.weight")
    assert tensor.tolist() == before
