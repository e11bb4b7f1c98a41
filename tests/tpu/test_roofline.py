"""Bytes of a step, by hand."""

import dataclasses

from isft_jax.config import ModelConfig
from isft_jax.tpu.roofline import Roofline, estimate_traffic

MODEL = ModelConfig(
  vocab_size=48,
  width=16,
  layers=3,
  heads=4,
  kv_heads=2,
  head_size=8,
  mlp_width=24,
  dtype='bfloat16',
  attention='xla',
)
B, L, K = 2, 10, 5


def traffic(state=0.0, frozen=0.0, microbatches=1, **changes):
  config = dataclasses.replace(MODEL, **changes)
  return estimate_traffic(config, B, L, K, state, frozen, microbatches)


def test_layers_and_head_by_hand():
  """4 arrays of 16 and 3 of 24 in 3 layers; logits 4 times in float32."""
  head = 4 * (B * K) * 48 * 4
  once = 3 * (B * L) * 2 * (4 * 16 + 3 * 24) * 2
  assert traffic() == 3 * once + head
  assert traffic(remat='full') == 4 * once + head


def test_what_is_kept_is_not_written_again():
  full = traffic(remat='full')
  assert full - traffic(remat='gate') == 3 * (B * L) * 24 * 2
  assert full - traffic(remat='q,o') == 3 * (B * L) * (4 * 8 + 16) * 2
  # The last product is not even computed again.
  assert full - traffic(remat='down') == 0


def test_parameters_and_moments_by_hand():
  """300 bytes of state are 100 of parameters and 200 of moments."""
  none = traffic()
  assert traffic(state=300) - none == 2 * 300 + 2 * 100
  assert traffic(frozen=100) - none == 3 * 100
  assert traffic(frozen=100, remat='full') - traffic(remat='full') == 400


def test_each_microbatch_reads_the_parameters_and_adds_its_gradients():
  one, three = (traffic(300, 50, n, remat='full') for n in (1, 3))
  assert three - one == 2 * (4 * (100 + 50) + 2 * 100)


def test_half_of_the_traffic_between_chips_is_not_hidden():
  for least, bound, cautious in (
    (Roofline(compute=4, hbm=3, ici=1, dcn=0), 4, 4.5),
    (Roofline(compute=4, hbm=5, ici=1, dcn=2), 5, 6.5),
    (Roofline(compute=4, hbm=3, ici=20, dcn=0), 20, 20),
  ):
    assert (least.seconds, least.cautious_seconds) == (bound, cautious)
