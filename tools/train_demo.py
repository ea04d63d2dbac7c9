"""Train the demo model: a small Qwen3 that has read the Python standard library.

    pip install torch transformers tokenizers
    python tools/train_demo.py --out OUT --minutes 80
    python tools/train_demo.py --out OUT --minutes 20 --resume OLD --peak 8e-4

It learns, in the formats of the published Qwen3 models, to continue Python source, to answer a request for a function
with or without a thought before it, and to fill in the middle of a file. OUT becomes a Hugging Face folder that pio
loads, with heldout.txt (source that it never saw) and figures.json beside it. To ship it, copy model and tokenizer
files to pio/demo and the held-out text to tests/golden, and run tests/golden/make_demo.py for the expected answers.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import random
from pathlib import Path

import torch
from demo import corpus, training, vocabulary
from tokenizers import Tokenizer


def main() -> None:
    """Read, train, measure, write."""
    given = arguments()
    rng = random.Random(given.seed)
    torch.manual_seed(given.seed)
    files, held_out_text = corpus.split(corpus.standard_library(), rng)
    if given.resume:
        tokenizer, model = Tokenizer.from_file(str(given.resume / "tokenizer.json")), training.old_model(given.resume)
    else:
        tokenizer = vocabulary.train_tokenizer((file.text for file in files), given.vocab)
        model = training.new_model(given.vocab, given.hidden, given.layers)
    ids = encode(tokenizer, corpus.documents(files, rng))
    held_out = encode(tokenizer, [held_out_text])
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{len(files)} files, {len(ids):,} tokens, held out {len(held_out):,}; {parameters:,} parameters", flush=True)

    plan = training.Plan(given.minutes, given.context, given.batch, given.peak)
    steps = training.train(model, ids, held_out, plan)

    given.out.mkdir(parents=True, exist_ok=True)
    training.write_model(model, given.out)
    vocabulary.write_tokenizer(tokenizer, given.out, training.POSITIONS)
    (given.out / "heldout.txt").write_text(held_out_text, "utf-8")
    nats = training.held_out_loss(model.float(), held_out, given.context, 60)  # of the rounded weights
    figures = {
        "held-out nats per token": round(nats, 5),
        "perplexity": round(math.exp(nats), 4),
        "window": given.context,
        "steps": steps,
        "training tokens": len(ids),
        "parameters": parameters,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    (given.out / "figures.json").write_text(json.dumps(figures, indent=1), "utf-8")
    print(f"held out: {nats:.4f} nats per token, perplexity {math.exp(nats):.2f}; wrote {given.out}")


def encode(tokenizer: Tokenizer, texts: list[str]) -> torch.Tensor:
    """Return the token ids of texts one behind the other, int32 (tokens,)."""
    encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    return torch.tensor([i for e in encoded for i in e.ids], dtype=torch.int32)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--minutes", type=float, default=80, help="how long to train")
    parser.add_argument("--resume", type=Path, help="folder of an earlier run to go on from, with its tokenizer")
    parser.add_argument("--peak", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--vocab", type=int, default=4096, help="tokens of the vocabulary")
    parser.add_argument("--hidden", type=int, default=256, help="width, a multiple of 64")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--context", type=int, default=384, help="tokens of a training row")
    parser.add_argument("--batch", type=int, default=16, help="rows of a step")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.hidden % training.HEAD_DIM or min(given.layers, given.context, given.batch) < 1 or given.minutes <= 0:
        parser.error(f"--hidden is a multiple of {training.HEAD_DIM}, sizes are at least 1, --minutes above 0")
    if given.vocab < 256 + len(vocabulary.SPECIAL):
        parser.error(f"--vocab has room for 256 bytes and {len(vocabulary.SPECIAL)} special tokens")
    return given


if __name__ == "__main__":
    main()
