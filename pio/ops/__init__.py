"""Operations on tensors: each checks its arguments, makes the result if none is given, and runs a kernel."""

from pio.ops._elsewhere import cover
from pio.ops.activation import gelu, sigmoid_gate, silu, swiglu
from pio.ops.add_gated import add_gated
from pio.ops.attention import attention_scratch, paged_attention, scaled_dot_product_attention, write_cache
from pio.ops.bfloat16 import bfloat16_linear, bfloat16_linears
from pio.ops.causal_conv import causal_conv
from pio.ops.commit import commit_delta, commit_inputs
from pio.ops.conv import conv1d, conv2d
from pio.ops.copy import copy
from pio.ops.elementwise import add, mul
from pio.ops.expert_weights import ExpertWeights
from pio.ops.experts import add_choices, expert_linears
from pio.ops.gated_delta import delta_gates, gated_delta
from pio.ops.gather import add_rows, gather, gather_by_value, place_rows, scatter_add, scatter_add_by_index
from pio.ops.grid_embedding import add_grid_embedding
from pio.ops.head_linear import absorbed_weights, head_linear, pack_heads
from pio.ops.image_patches import image_patches
from pio.ops.image_resize import image_resize
from pio.ops.image_rgb import image_rgb
from pio.ops.latent_attention import latent_attention, latent_scratch, write_latent_cache
from pio.ops.linear import linear, linears
from pio.ops.matmul import matmul
from pio.ops.norm import fused_add_rms_norm, gated_rms_norm, layer_norm, rms_norm
from pio.ops.pages import Pages
from pio.ops.program import Program, host_call, recording
from pio.ops.quantized import PackedWeight, pack, quantized_linear, quantized_linears, unpack
from pio.ops.reduce import first_non_finite
from pio.ops.rope import qk_norm_rope, rope, rope_table
from pio.ops.routing import Choices, route
from pio.ops.softmax import softmax
from pio.ops.top_k import top_k
from pio.ops.window import Window

__all__ = [
    "Choices",
    "ExpertWeights",
    "PackedWeight",
    "Pages",
    "Program",
    "Window",
    "absorbed_weights",
    "add",
    "add_choices",
    "add_gated",
    "add_grid_embedding",
    "add_rows",
    "attention_scratch",
    "bfloat16_linear",
    "bfloat16_linears",
    "causal_conv",
    "commit_delta",
    "commit_inputs",
    "conv1d",
    "conv2d",
    "copy",
    "delta_gates",
    "expert_linears",
    "first_non_finite",
    "fused_add_rms_norm",
    "gated_delta",
    "gated_rms_norm",
    "gather",
    "gather_by_value",
    "gelu",
    "head_linear",
    "host_call",
    "image_patches",
    "image_resize",
    "image_rgb",
    "latent_attention",
    "latent_scratch",
    "layer_norm",
    "linear",
    "linears",
    "matmul",
    "mul",
    "pack",
    "pack_heads",
    "paged_attention",
    "place_rows",
    "qk_norm_rope",
    "quantized_linear",
    "quantized_linears",
    "recording",
    "rms_norm",
    "rope",
    "rope_table",
    "route",
    "scaled_dot_product_attention",
    "scatter_add",
    "scatter_add_by_index",
    "sigmoid_gate",
    "silu",
    "softmax",
    "swiglu",
    "top_k",
    "unpack",
    "write_cache",
    "write_latent_cache",
]

cover(globals(), __all__)
