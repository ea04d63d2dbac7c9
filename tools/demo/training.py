"""The demo model: its shape, and how it is trained until the time is up."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import Qwen3Config, Qwen3ForCausalLM

HEAD_DIM = 64
POSITIONS = 2048
EOS = [2, 0]  # the end of an answer, the end of a text
WARM_UP, LAST_SHARE = 150, 0.02  # steps to the peak rate; share of it that is left at the end
REPORT, REPORT_HELD_OUT = 100, 500  # steps


@dataclass(frozen=True, slots=True)
class Plan:
    """How to train."""

    minutes: float
    context: int  # tokens of a row
    batch: int  # rows of a step
    peak: float  # highest learning rate


def new_model(vocab: int, hidden: int, layers: int) -> Qwen3ForCausalLM:
    """Return a model with fresh weights, float32."""
    heads = max(1, hidden // HEAD_DIM)
    config = Qwen3Config(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 2),
        head_dim=HEAD_DIM,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        rms_norm_eps=1e-6,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=0,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )
    return Qwen3ForCausalLM(config)


def old_model(folder: Path) -> Qwen3ForCausalLM:
    """Return the model of an earlier run, float32."""
    return Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32)


def loss_of(model: Qwen3ForCausalLM, rows: Tensor) -> Tensor:
    """Nats per token of rows of token ids, (rows, context + 1)."""
    logits = model(rows[:, :-1], use_cache=False).logits
    return cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten())


def held_out_loss(model: Qwen3ForCausalLM, ids: Tensor, context: int, windows: int) -> float:
    """Mean nats per token over the first windows of a text that the model was not trained on."""
    model.eval()
    count = min(windows, (len(ids) - 1) // context)
    if count < 1:
        raise SystemExit(f"the held-out text has {len(ids)} tokens, expected more than --context, {context}")
    with torch.no_grad():
        rows = (ids[i * context : (i + 1) * context + 1].long()[None] for i in range(count))
        losses = [loss_of(model, row).item() for row in rows]
    model.train()
    return math.fsum(losses) / count


def train(model: Qwen3ForCausalLM, ids: Tensor, held_out: Tensor, plan: Plan) -> int:
    """Train until the minutes are up; the rate rises, then falls along a cosine over the time, not over steps.

    Args:
        model: Trained in place.
        ids: All training text, int32 (tokens,).
        held_out: Text to report the loss of, int32 (tokens,).
        plan: How.

    Returns:
        Steps done.
    """
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=plan.peak, betas=(0.9, 0.95))
    began, seconds, step = time.monotonic(), 60 * plan.minutes, 0
    model.train()
    while (elapsed := time.monotonic() - began) < seconds:
        cosine = 0.5 * (1 + math.cos(math.pi * elapsed / seconds))
        rate = plan.peak * min(1.0, (step + 1) / WARM_UP) * (LAST_SHARE + (1 - LAST_SHARE) * cosine)
        for group in optimizer.param_groups:
            group["lr"] = rate
        starts = torch.randint(len(ids) - plan.context - 1, (plan.batch,)).tolist()
        loss = loss_of(model, torch.stack([ids[s : s + plan.context + 1] for s in starts]).long())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % REPORT == 0:
            speed = step * plan.batch * plan.context / (time.monotonic() - began)
            line = f"step {step}, {elapsed / 60:.1f} min, {speed:.0f} tokens/s, loss {loss.item():.3f}"
            if step % REPORT_HELD_OUT == 0:
                line += f", held out {held_out_loss(model, held_out, plan.context, 24):.3f}"
            print(line, flush=True)
    return step


def write_model(model: Qwen3ForCausalLM, folder: Path) -> None:
    """Write config.json, model.safetensors in bfloat16, and generation_config.json."""
    model.to(torch.bfloat16).save_pretrained(folder)
    sampling = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}
    generation = {"eos_token_id": EOS, "pad_token_id": 0, **sampling}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=1), "utf-8")
