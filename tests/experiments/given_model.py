"""A random model and its tokenizer in a folder, as the hub has them."""

import jax

from isft_jax.config import ModelConfig
from isft_jax.hf import pretrained
from isft_jax.models import decoder


def save(folder, encoder):
  """Writes both; the model has 400 ids."""
  shape = ModelConfig(
    vocab_size=400, width=16, layers=1, head_size=4, mlp_width=32
  )
  graphdef, _ = decoder.abstract(shape)
  params = decoder.init(shape, jax.random.key(0))
  pretrained.save(pretrained.Model(graphdef, params), shape, str(folder))
  encoder.save_pretrained(folder)
