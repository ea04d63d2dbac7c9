"""What the scripts that make golden checkpoints share: cases, random draws, and the questions put to transformers."""

import argparse
import json
import shutil
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import GenerationConfig

NEW_TOKENS = 24
SMALLEST_MARGIN = 0.02  # between the two best logits, in units of the row's root mean square
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Case:
    """One checkpoint: what differs from its architecture's base, how it is stored, which prompts it answers."""

    name: str
    prompts: tuple[int, ...]  # lengths
    config: dict[str, Any]
    dtype: str = "float32"
    published: bool = False  # config.json as in the published files, else as transformers 5 writes it
    rope: dict[str, Any] = field(default_factory=dict)  # beside rope_theta
    stored_head: bool = False  # keep lm_head.weight in the file although it is tied
    shard_size: str | None = None
    layers: bool = False  # store the activations of every layer too


def seeded(text: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(text.encode()))


def config_json(
    case: Case, config_class: Any, architecture: str, base: dict[str, Any], *, dtype_key: str = "torch_dtype"
) -> dict[str, Any]:
    values = {**base, **case.config}
    theta = values.pop("rope_theta")
    common = {"architectures": [architecture], "model_type": config_class.model_type, **values}
    if case.published:
        style = {"rope_theta": theta, "rope_scaling": case.rope or None, dtype_key: case.dtype}
        return dict(sorted({**common, **style, "transformers_version": "4.51.0"}.items()))
    # what transformers itself would write: it adds layer_types and more
    rope = {"rope_theta": theta, "rope_type": "default", **case.rope}
    written = config_class(**common, rope_parameters=rope).to_diff_dict()
    return dict(sorted({**written, "dtype": case.dtype}.items()))


def greedy(model: Any, ids: list[int]) -> tuple[list[int], list[float]]:
    """The tokens of `generate`, and the lead of each over the second best."""
    settings = GenerationConfig(do_sample=False, max_new_tokens=NEW_TOKENS, use_cache=True, pad_token_id=0)
    prompt = torch.tensor([ids])
    out = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        generation_config=settings,
        output_logits=True,
        return_dict_in_generate=True,
    )
    rows = torch.cat(out.logits).double()
    best = rows.topk(2).values
    margins = (best[:, 0] - best[:, 1]) / rows.pow(2).mean(-1).sqrt()
    return out.sequences[0, len(ids) :].tolist(), [round(m, 4) for m in margins.tolist()]


def outputs(model: Any, modules: dict[str, Any], ids: list[int], **inputs: Any) -> dict[str, torch.Tensor]:
    """What each of the modules returned for this prompt, without the batch dimension."""
    kept: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            value = output[0] if isinstance(output, tuple) else output
            kept[name] = (value[0] if value.dim() == 3 else value).detach().clone()

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    model(torch.tensor([ids]), use_cache=False, **inputs)
    for hook in hooks:
        hook.remove()
    return kept


def check_cache(case: Case, whole: torch.Tensor, prompt: dict[str, Any]) -> None:
    """Compare the logits of prompt and answer together, without a cache, with the answer."""
    if whole[len(prompt["ids"]) - 1 : -1].argmax(-1).tolist() != prompt["greedy"]:
        raise RuntimeError(f"{case.name}: generate with a cache and one forward without disagree")


def write_prompts(case: Case, prompts: list[dict[str, Any]], expected: Path) -> None:
    versions = {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]}
    lines = ",\n  ".join(json.dumps(p) for p in prompts)
    (expected / "greedy.json").write_text(
        f'{{"made with": {json.dumps(versions)},\n "dtype": "{case.dtype}",\n "prompts": [\n  {lines}\n ]}}\n'
    )


@torch.no_grad()
def make(
    description: str | None, cases: dict[str, list[Case]], write: Callable[[Case, str, Path], str], threads: int = 2
) -> None:
    """Write the folders of all cases, or of those named; `write` takes case, architecture and an empty folder."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", default=Path(__file__).parent, help="where the folders go")
    parser.add_argument("--only", default="", help="architecture, or architecture/case")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(threads)
    for architecture, case in ((a, c) for a, some in cases.items() for c in some):
        if f"{architecture}/{case.name}/".startswith(arguments.only.rstrip("/") + "/" if arguments.only else ""):
            folder = arguments.out / architecture / case.name
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            said = write(case, architecture, folder)
            size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
            print(f"{architecture + '/' + case.name:44} {size / 1024:6.0f} KiB   {said}", flush=True)
