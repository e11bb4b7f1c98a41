"""Random adapters for tests."""

import jax
import numpy as np

from isft_jax.config import LoraConfig, ModelConfig
from isft_jax.models import decoder
from isft_jax.models import lora as lora_lib


def random_adapters(
  model: ModelConfig, lora: LoraConfig, seed: int = 0, scale: float = 1.0
) -> dict:
  """Returns A and B of normal random numbers, as float32 NumPy arrays."""
  _, shapes = decoder.abstract(model, lora)
  draw = np.random.default_rng(seed).standard_normal
  return jax.tree.map(
    lambda leaf: (scale * draw(leaf.shape)).astype(np.float32),
    lora_lib.split(shapes)[0],
  )
