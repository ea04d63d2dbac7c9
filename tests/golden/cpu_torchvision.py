"""Lets torchvision be imported beside a torch that computes on the CPU alone; import this before transformers.

The wheel of the package index is compiled against the torch for CUDA: its own operators cannot be loaded beside the
other, and its import ends there, at the first one that it wants to describe. Resizing and normalising need none of
them, so it is enough that the names are known.
"""

from __future__ import annotations

import torch

_BOXES = "Tensor dets, Tensor scores, float iou_threshold"
_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    if not hasattr(torch.ops.torchvision, _name):
        _LIBRARY.define(f"{_name}({_BOXES}) -> Tensor")
