"""How much a training step computes, counted from its shapes.

A multiply and an add are two operations. Matrix products alone are counted, as
usual: they are nearly all of the work.
"""

from typing import NamedTuple

from isft_jax.config import ModelConfig
from isft_jax.models import splash_attention
from isft_jax.models.likelihood import vocabulary_parts


class Flops(NamedTuple):
  """Operations of something, by where they are spent.

  blocks: the projections and the MLP of every layer.
  attention: scores and their mixing. Of rows of one document each: packed
    documents see less of a row, so that for them it is an upper bound.
  head: logits at the scored targets alone.
  """

  blocks: int
  attention: int
  head: int

  @property
  def total(self) -> int:
    return sum(self)


def forward(config: ModelConfig, rows: int, length: int, targets: int) -> Flops:
  """Returns the operations of a forward pass.

    blocks    = 2 B L layers (D A (H + 2 N) + A H D + 3 D F)
    attention = 2 B layers 2 A H (L (L + 1) / 2)
    head      = 2 B K V D

  rows, length, targets: B, L and K of a batch.
  """
  D, A, F = config.width, config.head_size, config.hidden
  H, N = config.heads, config.kv_heads
  of_token = 2 * D * A * (H + N) + 3 * D * F
  pairs = length * (length + 1) // 2
  return Flops(
    blocks=2 * rows * length * config.layers * of_token,
    attention=2 * rows * config.layers * 2 * A * H * pairs,
    head=2 * rows * targets * config.vocab_size * D,
  )


def model(config: ModelConfig, rows: int, length: int, targets: int) -> Flops:
  """Returns the operations that a step needs: forward, and twice that back.

  What is computed again to save memory is not in it, so that a share of the
  peak made of it (MFU) compares between settings.
  """
  once = forward(config, rows, length, targets)
  return Flops(*(3 * part for part in once))


def hardware(
  config: ModelConfig, rows: int, length: int, targets: int
) -> Flops:
  """Returns the operations that a step does, recomputation included.

  Remat runs a layer's forward pass again: all of it but the last product, which
  nothing needs ('full'), or all but the products that were kept ('dots'). A
  head in parts makes its logits again.
  Attention by plain products has whole squares of scores, and two products
  forward, four backward. The kernel has the blocks on and below the diagonal;
  its two backward kernels each make the scores again: seven products.
  """
  once = forward(config, rows, length, targets)
  down = 2 * rows * length * config.layers * config.width * config.hidden
  again = once.blocks - down if config.remat == 'full' else 0
  parts = vocabulary_parts(config.vocab_size, config.head_chunk)
  products = 2 + 2 * (config.remat != 'none')
  if config.attention == 'splash':
    count, block = splash_attention.blocks(length)
    products, pairs = products + 7, count * (count + 1) // 2 * block**2
  else:
    products, pairs = products + 4, length**2
  A, H = config.head_size, config.heads
  return Flops(
    blocks=3 * once.blocks + again,
    attention=2 * rows * config.layers * products * A * H * pairs,
    head=(3 + (parts > 1)) * once.head,
  )
