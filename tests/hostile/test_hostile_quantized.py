"""Quantized folders that must be refused, and options that contradict them."""

import json
import shutil

import pytest

import pio
from pio.loading.safetensors import SafetensorsFile, write_safetensors
from pio.tensor import Tensor
from pio.testing.random_checkpoint import write_random_checkpoint

CONFIG = {
    "model_type": "qwen3",
    "vocab_size": 71,
    "hidden_size": 68,
    "intermediate_size": 100,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "dtype": "float32",
    "eos_token_id": 3,
}
DOWN, TABLE = "model.layers.1.mlp.down_proj.weight", "model.embed_tokens.weight"
AGAIN = "quantize the original folder again with pio quantize"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_random_checkpoint(tmp_path_factory.mktemp("original") / "model", CONFIG, tokenizer=False)


@pytest.fixture(scope="module")
def made(original):
    return {
        form: pio.quantize(original, original.parent / form, format=form)
        for form in ("int4", "int8", "int4_zero_point")
    }


@pytest.fixture
def quantized(made, tmp_path):
    return shutil.copytree(made["int4"], tmp_path / "quantized")


def change_config(folder, **fields):
    path = folder / "config.json"
    raw = json.loads(path.read_text())
    raw["quantization_config"].update(fields)
    path.write_text(json.dumps(raw))


def change_tensors(folder, change):
    tensors = read_tensors(folder)
    change(tensors)
    write_safetensors(folder / "model.safetensors", tensors)


def read_tensors(folder):
    """All tensors of a folder, whose file is mapped no more."""
    file = SafetensorsFile(folder / "model.safetensors")
    return {name: file.tensor(name).clone() for name in file.names}


def refused(load, error, *words):
    with pytest.raises(error) as caught:
        load()
    message = str(caught.value)
    assert type(caught.value) is error and len(message) < 2000 and message.isprintable()
    for word in words:
        assert word in message
    return message


@pytest.mark.parametrize(
    ("fields", "program"),
    [
        ({"quantization": {"group_size": 64, "bits": 4}}, "MLX"),
        ({"quantization": {"group_size": 64, "bits": 4}, "quantization_config": {"group_size": 64, "bits": 4}}, "MLX"),
        ({"compression_config": {"format": "pack-quantized"}}, "compressed-tensors"),
        ({"quantization_config": {"load_in_4bit": True}}, "bitsandbytes"),
        ({"quantization_config": {"_load_in_8bit": True, "bits": 8}}, "bitsandbytes"),
        ({"quantization_config": {"bits": 4, "group_size": 128}}, "GPTQ or MLX"),
        ({"quantization_config": {}}, "another program"),
    ],
)
def test_what_other_programs_quantized_without_saying_how(original, tmp_path, fields, program):
    folder = shutil.copytree(original, tmp_path / "m")
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, **fields}))
    words = program, next(iter(fields)), "original 16-bit folder"
    refused(lambda: pio.load(folder), pio.UnsupportedModelError, *words)


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8", "bitsandbytes", "compressed-tensors", None, 7, "x" * 5000])
def test_what_other_programs_quantized(quantized, tmp_path, method):
    change_config(quantized, quant_method=method)
    found = "missing" if method is None else str(method)[:40]
    words = "quantization_config.quant_method", found, "original 16-bit folder"
    refused(lambda: pio.load(quantized), pio.UnsupportedModelError, *words)
    refused(lambda: pio.quantize(quantized, tmp_path / "new"), pio.UnsupportedModelError, *words)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("version", 2, "reads 1"),
        ("version", True, "reads 1"),
        ("version", None, "reads 1"),
        ("format", "int3", "int4"),
        ("format", ["int4"], "int4"),
        ("format", None, "int4"),
        ("policy", "best", "balanced or uniform"),
        ("group_size", 128, "reads 32"),
        ("group_size", 32.0, "reads 32"),
        ("group_size", "32", "reads 32"),
    ],
)
def test_a_layout_that_is_not_known(quantized, field, value, expected):
    change_config(quantized, **{field: value})
    words = f"quantization_config.{field}", expected, "update pio", AGAIN
    refused(lambda: pio.load(quantized), pio.UnsupportedModelError, *words)


@pytest.mark.parametrize("value", ["int4", [1], 3])
def test_a_field_that_is_no_object(quantized, value):
    path = quantized / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": value}))
    refused(lambda: pio.load(quantized), pio.CheckpointError, "quantization_config", "expected an object", "download")


def test_options_must_agree_with_the_folder(quantized):
    already = "this folder is quantized already, with"
    refused(
        lambda: pio.load(quantized, quantize="int8"), pio.ConfigError, "quantize='int8'", f"{already} quantize='int4'"
    )
    refused(
        lambda: pio.load(quantized, quantize="int4", quantize_policy="uniform"),
        pio.ConfigError,
        "quantize_policy='uniform'",
        f"{already} quantize_policy='balanced'",
    )
    with pio.load(quantized, quantize="int4", quantize_policy="balanced") as model:
        refused(lambda: model.update(quantize="int4_zero_point"), pio.ConfigError, already)
        assert len(model.generate([1, 2], max_new_tokens=2, ignore_eos=True).token_ids) == 2


@pytest.mark.parametrize("form", ["int4", "int8", "int4_zero_point"])
@pytest.mark.parametrize("bits", [0x7E00, 0x7C00, 0xFC00])  # NaN and both infinities
def test_a_scale_that_is_no_number(made, tmp_path, form, bits):
    quantized = shutil.copytree(made[form], tmp_path / "quantized")
    minimum = form == "int4_zero_point"

    def change(tensors):
        scales = tensors[DOWN].memoryview().cast("B").cast("H")  # (5, 2, ...): rows 16, columns 64
        pair = tensors[DOWN].shape[2] // 2
        scales[(2 * 3 + 1) * pair + 32 * minimum + 16 + 5] = bits  # block 3, pair 1, group 1, row 5

    change_tensors(quantized, change)
    with pio.load(quantized) as model:
        words = f"tensor '{DOWN}'", "scale that is NaN or infinite", "[53, 96]", AGAIN
        refused(model.check_weights, pio.CheckpointError, *words)


def test_answers_of_broken_scales_name_the_tensor(quantized):
    def change(tensors):
        tensors[DOWN].memoryview().cast("B").cast("H")[:16] = memoryview(b"\x00\x7e" * 16).cast("H")

    change_tensors(quantized, change)
    with pio.load(quantized) as model:
        refused(lambda: model.generate([1, 2], max_new_tokens=2), pio.CheckpointError, DOWN)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop(DOWN), (DOWN, "missing", "download")),
        (lambda t: t.update({DOWN: t[DOWN][:-1]}), (DOWN, "[4, 2, 576]", "[5, 2, 576] as int4", AGAIN)),
        (lambda t: t.update({DOWN: t[DOWN][:, :1]}), (DOWN, "[5, 1, 576]", "[68, 100]")),
        (lambda t: t.update({DOWN: t[DOWN][:, :, :570]}), (DOWN, "[5, 2, 570]", "[68, 100]")),
        (lambda t: t.update({DOWN: t[DOWN].contiguous().reshape(-1)}), (DOWN, "[5760]", "[68, 100]")),
        (lambda t: t.update({DOWN: Tensor.zeros((5, 2, 576), "int8")}), (DOWN, "[5, 2, 576]", "[68, 100]")),
        (lambda t: t.update({DOWN: Tensor.zeros((68, 100))}), ("layers are int4", "stored as floats and int4", AGAIN)),
        (lambda t: t.update({DOWN: Tensor.zeros((5, 2, 1088), "uint8")}), ("stored as int4 and int8", AGAIN)),
        (
            lambda t: t.update({TABLE: Tensor.zeros((5, 2, 576), "uint8")}),
            ("the embedding and the output head are int8",),
        ),
        (lambda t: t.update({"model.norm.weight": Tensor.zeros((68,), "uint8")}), ("model.norm.weight", "uint8")),
        (lambda t: t.update({"extra": Tensor.zeros((5, 2, 576), "uint8")}), ("extra", "does not use")),
    ],
)
def test_packed_tensors_that_do_not_fit(quantized, change, words):
    change_tensors(quantized, change)
    refused(lambda: pio.load(quantized), pio.CheckpointError, *words)


def test_config_and_tensors_must_tell_the_same(made, original, tmp_path):
    packed, plain = (shutil.copytree(folder, tmp_path / folder.name) for folder in (made["int4"], original))
    configs = [folder / "config.json" for folder in (packed, plain)]
    texts = [path.read_text() for path in configs]
    for path, text in zip(configs, reversed(texts), strict=True):
        path.write_text(text)
    refused(lambda: pio.load(packed), pio.CheckpointError, "are floats", "stored as int8", AGAIN)
    refused(lambda: pio.load(packed, quantize="int4"), pio.CheckpointError, "are floats", "stored as int8", AGAIN)
    refused(lambda: pio.load(plain), pio.CheckpointError, "are int8", "stored as floats", AGAIN)
    configs[0].write_text(texts[0])
    change_config(packed, format="int8")
    refused(lambda: pio.load(packed), pio.CheckpointError, "layers are int8", "stored as int4", AGAIN)
