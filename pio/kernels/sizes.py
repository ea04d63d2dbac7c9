"""What operations must know of kernels before they call one: how memory is laid out, what scratch is, how work is cut.

Nothing here needs the compiler, so that an operation whose kernels are compiled does not import it.
"""

from __future__ import annotations

from typing import Final

from pio.kernels._formats import BLOCK as OUTPUTS
from pio.kernels._formats import FORMATS, PAIR, RECORD, START
from pio.kernels._processor import AMX as AMX
from pio.kernels._processor import DOT as DOT
from pio.kernels._processor import LANES as LANES
from pio.kernels._processor import PAIRS as PAIRS
from pio.kernels._processor import WIDE

ITEMSIZE: Final = {"float32": 4, "float16": 2, "bfloat16": 2}
INTEGERS: Final = {"int8": 8, "uint8": 8, "int32": 32, "int64": 64}  # bits

BLOCK: Final = 32  # positions of a cache block: two vectors of scores
PARTS: Final = 4  # pieces for each thread, with scratch of their own: who is held up leaves the rest to others
ROWS: Final = 16  # queries that walk the cache together; their state stays in the first-level cache
SPAN: Final = 4  # blocks that queries who see everything take at once
# Bytes for each pair of all queries that tiles of AMX multiply (what sums start from, exponents), and the room of them.
TILE_STARTS: Final = (2 * ROWS + 3) * 4 * LANES
STARTS: Final = TILE_STARTS if AMX else 0
LATENT_STEP: Final = 2 * LANES  # a latent takes a multiple of so many numbers: values are walked two vectors at a time
KEY_STEP: Final = 8  # and the key behind it a multiple of so many: sixteen bytes divide where a row begins
LATENT_ROWS: Final = (
    20  # queries that walk the cache together: a block is read, and widened to float32, for all of them
)
KEY_PAIR: Final = FORMATS["int8"].pair_bytes  # of sixteen positions
CHANCE: Final = BLOCK + 16  # bytes of a query's quantized probabilities in a block, and their scale behind them
SPAN_CHANCE: Final = SPAN * BLOCK + 16  # the same of a span, and what is left of earlier ones

LARGEST_FLOAT16: Final = 65504.0  # float16 holds the scales and minima of packed weights
PACKING_FLOATS: Final = PAIR + 16  # scratch of each part that packs, in whole lines
PAIR_LANES: Final = 2 * LANES  # bfloat16 that a tile takes at once
LINEAR_COLUMNS: Final = 6 if WIDE else 2  # outputs of a float matrix that a tile has
EXPERT_COLUMNS: Final = 4 * LINEAR_COLUMNS  # outputs of a float matrix that are dealt to parts together
ROUNDED: Final = "rounded"  # bfloat16 weights that meet rounded inputs, beside the formats and the element types
SLICE: Final = 2 * LANES  # columns of a recurrent state that are walked together
SLICE_PARTS: Final = 16  # pieces for each thread that walks a recurrent state, with a slice of their own to walk on
MAXIMA: Final = 64  # elements of a row of logits that one maximum stands for; of 151,936 there are 2,374
# Thirty-two registers hold 6 x 4 accumulators beside their operands; sixteen half as wide ones hold 3 x 2.
MATMUL_ROWS, MATMUL_VECTORS = (6, 4) if WIDE else (3, 2)
MATMUL_PANEL: Final = MATMUL_VECTORS * LANES  # columns of b that all rows of a meet before the next ones
LANE_PRODUCTS: Final = 8 if DOT == "i8mm" else 4  # of bytes that an instruction adds to each int32
TILE_PRODUCTS: Final = 4 * LANES * LANES * PAIR  # of bytes in a round of ``roofline.tile_range``
PIXELS: Final = LANES // 3  # pixels of three bytes in a vector; its last lane is none of them
RESIZE_PARTS: Final = 4  # pieces for each thread that resizes rows of a picture, with scratch of their own
CONV_COLUMNS: Final = 4 * LANES  # outputs of a convolution beside each other
CONV_PARTS: Final = 4  # pieces for each thread that convolves, with scratch of their own
CHAINS: Final = 12 if WIDE else 6  # accumulators that fit into registers beside two operands, and hide the latency

# Of attention on a GPU: how many pieces of work of a batch blocks may share at once, each with a counter of those that
# are done, zero between launches; queries of a piece, of latents more; blocks that a multiprocessor has.
GPU_COUNTERS: Final = 8192
GPU_ROWS, GPU_LATENT_ROWS = 16, 24
GPU_BLOCKS: Final = 2
# Results of runs of positions that are kept: for each multiprocessor, and at least as many as a token has of 262,144
# positions, where eight heads have their own keys, or where latents are met by up to 48 heads.
GPU_SLOTS, GPU_LATENT_SLOTS = (32, 8 * 176), (16, 2 * 176)

# What a GPU's shared memory and registers hold: heads of attention, rows of latents with their key, keys of
# the delta rule, groups of experts.
GPU_HEAD_DIM, GPU_LATENT_ROW, GPU_DELTA_DIM, GPU_GROUPS = 512, 1728, 256, 2048

# Rows of activations that each block of a GPU which multiplies them quantizes itself, and the room of their records in
# its shared memory: as many as cost less than a kernel that quantizes them before, see ``docs/gpu.md``.
GPU_OWN_ROWS: Final = 4
GPU_OWN_BYTES: Final = GPU_OWN_ROWS * (START + 1536 // PAIR * RECORD)


def size_of(dtype: str) -> int:
    """Return the bytes of one element."""
    return INTEGERS[dtype] // 8 if dtype in INTEGERS else ITEMSIZE[dtype]


def pairs_of(n: int) -> int:
    """Return how many pairs of groups hold that many numbers."""
    return -(-n // PAIR)


def gpu_own(rows: int, k: int) -> bool:
    """Return whether blocks of a GPU quantize that many rows of k numbers themselves."""
    return rows <= GPU_OWN_ROWS and rows * (START + pairs_of(k) * RECORD) <= GPU_OWN_BYTES


def attention_floats(head_dim: int, value_dim: int) -> int:
    """Return how many float32 of scratch one thread needs: queries, scores, outputs, running maxima and sums."""
    return ROWS * (head_dim + BLOCK + value_dim + 2) + LANES


def int8_attention_bytes(head_dim: int, width: int) -> int:
    """Return how much scratch one thread needs: queries, probabilities, scores, outputs, running maxima and sums."""
    pairs = pairs_of(head_dim)
    row = START + pairs * RECORD
    return ROWS * (row + CHANCE + 4 * (BLOCK + width + 2 * LANES + 5)) + 4 * width + 64 + pairs * STARTS


def int8_full_attention_bytes(head_dim: int, width: int) -> int:
    """Return how much scratch one thread needs where every query sees everything: the same for SPAN blocks at once."""
    pairs = pairs_of(head_dim)
    row = START + pairs * RECORD
    rows = ROWS * (row + SPAN_CHANCE + SPAN * 4 * BLOCK + 4 * (width + 2 * LANES + 5))
    return rows + 32 * SPAN + 4 * width + 64 + pairs * STARTS


def int8_key_bytes(head_dim: int) -> int:
    """Return the bytes of a cache block's keys of one head."""
    return BLOCK // OUTPUTS * pairs_of(head_dim) * KEY_PAIR


def int8_value_bytes(width: int) -> int:
    """Return the bytes of a cache block's values of one head, scales included."""
    return BLOCK * width + 4 * BLOCK


def latent_width(rank: int) -> int:
    """Return how many numbers of a row the latent takes."""
    return -(-rank // LATENT_STEP) * LATENT_STEP


def latent_row(rank: int, rope_dim: int) -> int:
    """Return how many numbers a row of floats has: a latent and a key, each with zeros behind it."""
    return latent_width(rank) + -(-rope_dim // KEY_STEP) * KEY_STEP


def latent_floats(rank: int, rope_dim: int) -> int:
    """Return how many float32 of scratch one part needs: queries, outputs, scores, running maxima and sums."""
    values = latent_width(rank)
    return LATENT_ROWS * (latent_row(rank, rope_dim) + values + BLOCK + 2) + LANES


def int8_latent_bytes(rank: int, rope_dim: int) -> int:
    """Return how much scratch one part needs: queries, outputs, scores, probabilities, running maxima and sums."""
    pairs, width = pairs_of(rank) + pairs_of(rope_dim), PAIR * pairs_of(rank)
    return ROWS * (START + pairs * RECORD + CHANCE + 4 * (BLOCK + width + 2 * LANES + 5)) + 4 * (PAIR * pairs + 48)


def int8_latent_block(rank: int, rope_dim: int) -> int:
    """Return the bytes of a cache block of one layer."""
    return BLOCK // OUTPUTS * (pairs_of(rank) + pairs_of(rope_dim)) * KEY_PAIR


def gpu_attention_floats(width: int, multiprocessors: int, *, latent: bool = False) -> int:
    """Return how many float32 of scratch attention needs on a GPU, however long sequences are.

    Args:
        width: Of a head's outputs.
        multiprocessors: Of the GPU.
        latent: Whether it is attention over latents.
    """
    each, least = GPU_LATENT_SLOTS if latent else GPU_SLOTS
    slots = GPU_BLOCKS * multiprocessors + max(each * multiprocessors, least)
    return GPU_COUNTERS + slots * (GPU_LATENT_ROWS if latent else GPU_ROWS) * (width + 2)
