"""A model folder with random weights of a config's shapes, which every engine is given."""

from __future__ import annotations

import hashlib
import json
import math
import random
import shutil
import struct
from array import array
from pathlib import Path
from typing import Any, BinaryIO

from benchmarks.peers.gguf_tensors import ZERO_CENTRED
from benchmarks.peers.shapes import shapes

TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
# what a model that sees needs too: where a picture stands in a prompt, and how large it is seen
SIGHT = ("chat_template.jinja", "preprocessor_config.json", "video_preprocessor_config.json")
ADDED = ("bias", "A_log")  # endings of vectors that are no factors
BLOCK = (1 << 20) + 7  # random numbers before they repeat, a length that no row has


def name_of(config: dict[str, Any], seed: int) -> str:
    """Return a folder name that differs where weights do."""
    digest = hashlib.sha256(json.dumps([config, seed], sort_keys=True).encode()).hexdigest()
    decoder = decoder_of(config)
    return f"{config['model_type']}-{decoder['hidden_size']}x{decoder['num_hidden_layers']}-{digest[:8]}"


def sees(config: dict[str, Any]) -> bool:
    """Return whether the model takes pictures."""
    return "vision_config" in config


def decoder_of(config: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a config that describes what writes text."""
    return config["text_config"] if sees(config) else config


def write_checkpoint(folder: Path, config: dict[str, Any], beside: Path, seed: int = 0) -> Path:
    """Write the folder: config.json, bfloat16 weights in safetensors, a tokenizer.

    The same config and seed give the same bytes. Vectors leave what they scale as it is; matrices keep the size of
    what they multiply. The tokenizer is the one in the folder ``beside``, or one made up with as many tokens; a model
    that sees takes more files from there, and must find them.

    Args:
        folder: Where to; what is there already is kept.
        config: What config.json holds.
        beside: Where the config came from.
        seed: Of the weights.

    Returns:
        The folder.

    Raises:
        PioError: No plugin knows such a config, or it contradicts itself.
        ValueError: The model sees, and a file that says how is missing.
    """
    done = folder / "model.safetensors"
    if done.is_file():
        return folder
    tensors, copied = shapes(config), ()
    if sees(config):
        copied = (*TOKENIZER, *SIGHT)
        missing = [name for name in copied if not (beside / name).is_file()]
        if missing:
            raise ValueError(f"{', '.join(missing)}: not in {beside}, and models that see need it; download the folder")
    elif all((beside / name).is_file() for name in TOKENIZER):
        copied = TOKENIZER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config | {"torch_dtype": "bfloat16"}, indent=2), "utf-8")
    for name in copied:
        shutil.copyfile(beside / name, folder / name)
    if not copied:
        write_tokenizer(folder, config)
    partial = folder / "model.partial"
    with partial.open("wb") as file:
        _write_weights(file, config, tensors, seed)
    partial.rename(done)
    return folder


def _write_weights(file: BinaryIO, config: dict[str, Any], tensors: dict[str, tuple[int, ...]], seed: int) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": (begin, end)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    source = random.Random(seed)
    normal = [source.gauss(0.0, 1.0) for _ in range(min(BLOCK, max(map(math.prod, tensors.values()))))]
    blocks: dict[int, bytes] = {}
    for name, shape in tensors.items():
        count, width = math.prod(shape), math.prod(shape[1:])  # a kernel of patches multiplies all of one
        if len(shape) == 1:
            file.write(to_bfloat16([neutral(config, name)]) * count)
            continue
        if width not in blocks:
            blocks[width] = to_bfloat16([x / math.sqrt(width) for x in normal])
        start = 2 * source.randrange(len(normal))
        left = 2 * count
        while left:
            file.write(piece := blocks[width][start : start + left])
            left, start = left - len(piece), 0


def neutral(config: dict[str, Any], name: str) -> float:
    """Return the number that every element of a vector is: a norm so made only normalises."""
    plus = config["model_type"] in ZERO_CENTRED and not name.endswith("linear_attn.norm.weight")
    return 0.0 if plus or name.endswith(ADDED) else 1.0


def to_bfloat16(numbers: list[float]) -> bytes:
    """Return the upper halves of float32 numbers, rounded to nearest, little-endian."""
    bits = array("I", array("f", numbers).tobytes())
    return struct.pack(f"<{len(bits)}H", *((b + 0x7FFF + (b >> 16 & 1)) >> 16 for b in bits))


def write_tokenizer(folder: Path, config: dict[str, Any]) -> None:
    """Write a byte-level tokenizer with a name for every id of the vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    size = config["vocab_size"]
    names = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "the"]
    names += [f"Ġword{i}" for i in range(size - len(names) - 1)]
    tokenizer = Tokenizer(
        models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[("t", "h"), ("th", "e")], fuse_unk=False)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(folder / TOKENIZER[0]))
    facts = {"tokenizer_class": "Qwen2TokenizerFast", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (folder / TOKENIZER[1]).write_text(json.dumps(facts, indent=2), "utf-8")
