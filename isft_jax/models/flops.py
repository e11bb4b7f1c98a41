"""Floating point operations of a training step, computed from its shapes.

A multiplication and an addition are two operations. As usual, only matrix
products are counted: they are nearly all of the work.
"""

import functools
import math
from typing import NamedTuple

from isft_jax.config import LoraConfig, ModelConfig
from isft_jax.models import (
  decoder,
  layer_kinds,
  projections,
  remat,
  splash_attention,
  triton_attention,
)
from isft_jax.models import lora as lora_lib
from isft_jax.models.likelihood import count_chunks


class Flops(NamedTuple):
  """Numbers of operations, by part of the model.

  Attributes:
    blocks: projections and MLP of every layer, with their adapters.
    attention: scores, and mixing of values, for rows of one document each. For
      packed rows this is an upper bound, because a token sees only its own
      document.
    head: logits, at the scored targets only.
  """

  blocks: int
  attention: int
  head: int

  @property
  def total(self) -> int:
    return sum(self)


def forward(
  config: ModelConfig, batch_size: int, seq_len: int, targets_per_row: int
) -> Flops:
  """Returns the operations of a forward pass.

    blocks    = 2 B L layers (D A (H + 2 N) + A H D + mlp)
    mlp       = 3 D F, or D E + k 3 D F with E experts, of which a token uses k
    attention = 2 B 2 A H (pairs of every layer)
    head      = 2 B K V D

  where a layer has L (L + 1) / 2 pairs of a query and a key that it sees, or
  fewer with a window.

  Args:
    config: config of the model.
    batch_size: rows per batch, B.
    seq_len: tokens per row, L.
    targets_per_row: scored targets per row, K.

  Returns:
    The operations, by part of the model.
  """
  # Query, key, value and output projections, then gate, up and down. With
  # experts, the router and the k experts that a token uses.
  D, A, F = config.width, config.head_size, config.mlp_width
  H, N = config.heads, config.kv_heads
  mlp = D * config.experts + 3 * D * F * (config.experts_per_token or 1)
  weights = 2 * D * A * (H + N) + mlp  # of one layer
  pairs = sum(_pairs(seq_len, w) for w in layer_kinds.windows(config))
  # A product of [m, k] and [k, n] has 2 m k n operations: multiply and add.
  return Flops(
    blocks=2 * batch_size * seq_len * config.layers * weights,
    attention=2 * batch_size * 2 * A * H * pairs,
    head=2 * batch_size * targets_per_row * config.vocab_size * D,
  )


def _pairs(seq_len: int, window: int) -> int:
  """Returns the number of (query, key) with the key in the query's window."""
  outside = max(0, seq_len - window) if window else 0
  # Without a window a triangle; with one, less the triangle out of sight.
  return (seq_len * (seq_len + 1) - outside * (outside + 1)) // 2


def count_adapters(
  config: ModelConfig, lora: LoraConfig, batch_size: int, seq_len: int
) -> tuple[int, int]:
  """Returns the operations of x A and of (x A) B in a forward pass.

    2 B L layers rank (in of every adapter), and the same with out

  Args:
    config: config of the model.
    lora: its adapters.
    batch_size: rows per batch, B.
    seq_len: tokens per row, L.
  """
  sizes = projections.axes(config)
  once = 2 * batch_size * seq_len * config.layers * lora.rank
  ends = [
    [math.prod(sizes[axis] for axis in axes) for axes in (into, out)]
    for name, into, out in projections.KERNELS.values()
    if name in lora_lib.map_names(lora, config)
  ]
  return once * sum(i for i, _ in ends), once * sum(o for _, o in ends)


def model(
  config: ModelConfig,
  batch_size: int,
  seq_len: int,
  targets_per_row: int,
  lora: LoraConfig = decoder.NO_LORA,
) -> Flops:
  """Returns the operations that a step needs, without recomputation.

  The backward pass needs twice the operations of the forward pass: for the
  gradients of the inputs and of the weights. Frozen weights need only the
  former. Without recomputation, the model FLOPs utilization (MFU) can be
  compared between settings of remat.

  Args:
    config: config of the model.
    batch_size: rows per batch, B.
    seq_len: tokens per row, L.
    targets_per_row: scored targets per row, K.
    lora: adapters that learn, while the other weights are frozen.

  Returns:
    The operations, by part of the model.
  """
  # Attention has no weights: both of its products have two gradients.
  once = forward(config, batch_size, seq_len, targets_per_row)
  passes = 2 if lora.rank else 3
  adapters = sum(count_adapters(config, lora, batch_size, seq_len))
  return Flops(
    blocks=passes * once.blocks + 3 * adapters,
    attention=3 * once.attention,
    head=passes * once.head,
  )


def hardware(
  config: ModelConfig,
  batch_size: int,
  seq_len: int,
  targets_per_row: int,
  lora: LoraConfig = decoder.NO_LORA,
  is_anchored: bool = False,
) -> Flops:
  """Returns the operations that a step runs, including recomputation.

  Args:
    config: config of the model. Its `remat`, `head_chunk` and `attention`
      matter here.
    batch_size: rows per batch, B.
    seq_len: tokens per row, L.
    targets_per_row: scored targets per row, K.
    lora: adapters that learn, while the other weights are frozen.
    is_anchored: whether a base runs forward, too. Its logits are computed as
      often as those of the model.

  Returns:
    The operations, by part of the model.
  """
  once = forward(config, batch_size, seq_len, targets_per_row)
  needed = model(config, batch_size, seq_len, targets_per_row, lora)
  again = 0
  if config.remat != 'none':
    again = _recomputed(config, lora, batch_size * seq_len * config.layers)
  chunks = count_chunks(config.vocab_size, config.head_chunk)
  # Attention has 2 products forward. As plain products it has 4 backward, over
  # the whole square of scores. Kernels cover only the blocks on and below the
  # diagonal. Each of the two backward kernels computes the scores again, which
  # gives 7 products.
  kept = remat.kept(config.remat)
  is_kept = remat.ATTENTION in kept
  products = 2
  if config.attention in ('splash', 'triton'):
    # The kernel runs again as a whole, or not at all.
    products += 7 + 2 * (not is_kept)
    count = (
      splash_attention.count_pairs
      if config.attention == 'splash'
      else functools.partial(
        triton_attention.count_pairs,
        head_size=config.head_size,
        dtype=config.dtype,
      )
    )
    pairs = sum(count(seq_len, window=w) for w in layer_kinds.windows(config))
  else:
    # The scores are no activation with a name. The mixed values are the input
    # of o. If its product is kept and it has no gradient, they are not needed.
    is_mixed_once = lora.rank and 'o_proj' not in lora.maps and 'o' in kept
    products += 4 + (config.remat != 'none')
    products += not (is_kept or is_mixed_once)
    pairs = seq_len**2 * config.layers
  # A head in several chunks adds one forward pass. A base has two products of
  # attention forward.
  A, H = config.head_size, config.heads
  heads = (chunks > 1) + is_anchored * (1 + (chunks > 1))
  return Flops(
    blocks=needed.blocks + again + is_anchored * once.blocks,
    attention=2 * batch_size * (products + 2 * is_anchored) * A * H * pairs,
    head=needed.head + heads * once.head,
  )


def _recomputed(config: ModelConfig, lora: LoraConfig, tokens: int) -> int:
  """Returns the operations of the kernels that a backward pass runs again.

  Args:
    config: config of the model, whose `remat` is not 'none'.
    lora: its adapters.
    tokens: of all rows and layers.
  """
  kept, sizes = remat.kept(config.remat), projections.axes(config)
  adapted = lora_lib.map_names(lora, config)
  # Experts have no adapters, and only their products with gate and up have
  # names. The router has none.
  again = config.width * config.experts
  for name, (target, into, out) in projections.KERNELS.items():
    is_expert = bool(config.experts) and name in ('gate', 'up', 'down')
    if name in kept and not (is_expert and name == 'down'):
      continue
    inputs, outputs = (
      math.prod(sizes[axis] for axis in axes) for axes in (into, out)
    )
    rank = lora.rank if target in adapted else 0
    # The gradient of B needs x A.
    again += inputs * rank
    # The last product is the input of nothing, unless a norm follows.
    if name != 'down' or config.norms != 'before':
      copies = config.experts_per_token if is_expert else 1
      again += copies * inputs * outputs + rank * outputs
  return 2 * tokens * again
