"""Asks the real processor what it makes of texts with pictures and videos; pixels of videos are resized by Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cpu_torchvision  # noqa: F401 - before transformers
import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedTokenizerFast
from transformers.image_utils import load_image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor
from vision_request import Clip


def read_processor(folder: Path) -> Qwen3VLProcessor:
    """The processor of a folder, with the image processor that uses Pillow."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    template = folder / "chat_template.jinja"
    return Qwen3VLProcessor(
        Qwen2VLImageProcessorPil.from_pretrained(folder),
        tokenizer,
        # told what it does if nothing is said, so that it is silent about it
        Qwen3VLVideoProcessor.from_pretrained(folder, cap_pixels_per_frame=False),
        chat_template=template.read_text("utf-8") if template.exists() else tokenizer.chat_template,
    )


def read_frames(folder: Path, names: Sequence[str]) -> np.ndarray[Any, Any]:
    """uint8 (frames, height, width, 3)."""
    return np.stack([np.array(load_image(str(folder / name))) for name in names])


def video_pixels(processor: Any, frames: np.ndarray[Any, Any], grid: Sequence[int]) -> torch.Tensor:
    """Patches of frames that are resized as pictures are: the video processor's torchvision does it otherwise."""
    video = processor.video_processor
    size = (grid[2] * video.patch_size, grid[1] * video.patch_size)
    resized = [np.array(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)) for frame in frames]
    stacked = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).contiguous()
    scaled = video.rescale_and_normalize(stacked, True, 1 / 255, True, video.image_mean, video.image_std)
    patches, *found = video.patchify(scaled[None], video.patch_size, video.merge_size, video.temporal_patch_size)
    assert found == list(grid)
    return patches[0]


def timestamps(processor: Any, metadata: Any) -> list[str]:
    """The text before each time step of a video."""
    size = processor.video_processor.temporal_patch_size
    times = processor._calculate_timestamps(list(metadata.frames_indices), metadata.fps, size)
    return [f"<{time:.1f} seconds>" for time in times]


def ask(processor: Any, text: str, folder: Path, names: Sequence[str], clips: Sequence[Clip]) -> dict[str, Any]:
    """What the processor makes of a text with marks: `ids`, tensors for the model, and facts to store."""
    videos = [read_frames(folder, clip.frames) for clip in clips]
    metadata = [{"total_num_frames": len(clip.frames), "fps": clip.fps} for clip in clips]
    made = processor(
        text=[text],
        images=[load_image(str(folder / name)) for name in names] or None,
        videos=videos or None,
        return_tensors="pt",
        return_metadata=True,
        **({"video_metadata": metadata} if clips else {}),
    )
    kwargs = {k: made[k] for k in ("pixel_values", "image_grid_thw", "video_grid_thw") if k in made}
    facts: dict[str, Any] = {}
    if names:
        facts |= {"pictures": list(names), "image_grid_thw": made["image_grid_thw"].tolist()}
    if clips:
        grids = made["video_grid_thw"].tolist()
        patches: list[torch.Tensor] = []
        facts["videos"] = []
        for clip, frames, grid, about in zip(clips, videos, grids, made["video_metadata"], strict=True):
            sampled = [int(i) for i in about.frames_indices]
            patches.append(video_pixels(processor, frames[sampled], grid))
            times = timestamps(processor, about)
            facts["videos"].append(
                {
                    "frames": list(clip.frames),
                    "fps": clip.fps,
                    "sampled": sampled,
                    "timestamps": times,
                    "timestamp_ids": [processor.tokenizer(time).input_ids for time in times],
                    "grid": grid,
                }
            )
        kwargs["pixel_values_videos"] = torch.cat(patches)
        difference = (kwargs["pixel_values_videos"] - made["pixel_values_videos"]).abs().max() * 127.5
        if difference > 24:  # steps of 255: a wrong order of frames or patches differs by more
            raise RuntimeError(f"frames resized by Pillow are {difference:.0f} away from those of the processor")
    return {"ids": made["input_ids"][0].tolist(), "kwargs": kwargs, "facts": facts}
