"""A model without norms on queries and keys, by a plugin of another package, against a naive one in plain Python."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from third_party import CONFIG, PLUGIN, installed

import pio
from pio.loading.safetensors import SafetensorsFile
from pio.testing.compare import assert_close
from pio.testing.random_checkpoint import write_random_checkpoint

LLAMA = PLUGIN.replace("head_dim=c.head_dim, eps=eps)", "head_dim=c.head_dim, eps=eps, qk_norm=False)").replace(
    'model_type: Literal["acorn"]', 'model_type: Literal["acorn"]\n    qk_norm: ClassVar[bool] = False'
)
PROMPT = [3, 100, 7, 55, 21, 3, 130]
HEADS, PAIRS, DIM, EPS = 4, 2, 6, 1e-5


def times(matrix: list[list[float]], x: list[float]) -> list[float]:
    return [sum(a * b for a, b in zip(row, x, strict=True)) for row in matrix]


def norm(x: list[float], weight: list[float]) -> list[float]:
    root = math.sqrt(sum(v * v for v in x) / len(x) + EPS)
    return [v / root * w for v, w in zip(x, weight, strict=True)]


def turned(x: list[float], position: int) -> list[float]:
    half = len(x) // 2
    out = [0.0] * len(x)
    for i in range(half):
        angle = position * 10_000.0 ** (-2 * i / len(x))
        c, s = math.cos(angle), math.sin(angle)
        out[i], out[i + half] = x[i] * c - x[i + half] * s, x[i + half] * c + x[i] * s
    return out


def naive(w: dict[str, Any], tokens: list[int]) -> list[list[float]]:
    stream = [list(w["embed.weight"][t]) for t in tokens]
    for layer in range(CONFIG["num_hidden_layers"]):
        at = f"block.{layer}."
        heads: dict[str, list[list[list[float]]]] = {"q": [], "k": [], "v": []}
        for position, x in enumerate(stream):
            normed = norm(x, w[at + "before.weight"])
            for name, found in heads.items():
                flat = times(w[f"{at}attn.{name}_proj.weight"], normed)
                parts = [flat[i : i + DIM] for i in range(0, len(flat), DIM)]
                found.append([p if name == "v" else turned(p, position) for p in parts])
        for position, x in enumerate(stream):
            mixed: list[float] = []
            for head in range(HEADS):
                pair, q = head // (HEADS // PAIRS), heads["q"][position][head]
                seen = range(position + 1)
                scores = [sum(map(float.__mul__, q, heads["k"][j][pair])) / math.sqrt(DIM) for j in seen]
                shares = [math.exp(s - max(scores)) for s in scores]
                whole = sum(shares)
                mixed += [sum(shares[j] * heads["v"][j][pair][d] for j in seen) / whole for d in range(DIM)]
            for i, v in enumerate(times(w[at + "attn.o_proj.weight"], mixed)):
                x[i] += v
            normed = norm(x, w[at + "after.weight"])
            gate, up = (times(w[f"{at}mlp.{name}_proj.weight"], normed) for name in ("gate", "up"))
            inner = [g / (1 + math.exp(-g)) * u for g, u in zip(gate, up, strict=True)]
            for i, v in enumerate(times(w[at + "mlp.down_proj.weight"], inner)):
                x[i] += v
    return [times(w["embed.weight"], norm(x, w["norm.weight"])) for x in stream]


def test_a_llama_of_another_package_computes_what_a_naive_one_does(tmp_path: Path) -> None:
    with installed(tmp_path / "site", plugin=LLAMA):
        config = {**CONFIG, "use_qk_norm": False}
        folder = write_random_checkpoint(tmp_path / "model", config, tokenizer=False)
        file = SafetensorsFile(folder / "model.safetensors")
        weights = {name: file.tensor(name).tolist() for name in file.names}
        assert not any("_norm." in name for name in weights)
        expected = naive(weights, PROMPT)
        with pio.load(folder, progress=False, kv_cache_dtype="float32") as model:
            assert model.metadata.parameters == sum(file.tensor(name).size for name in file.names)
            found = model.logits(PROMPT).tolist()
            answer = model.generate(PROMPT, temperature=0.0, max_new_tokens=6, ignore_eos=True).token_ids
    assert_close(found, expected if isinstance(found[0], list) else expected[-1], relative=1e-4, absolute=1e-4)
    tokens = list(PROMPT)
    for token in answer:
        last = naive(weights, tokens)[-1]
        assert last[token] > max(last) - 1e-3
        tokens.append(token)
