"""Ranges of the sizes and constants that a model's file may give a decoder.

A number outside of them is a mistake or a damaged file. Without the check it
would become a traceback of a library, hours of allocation, or NaN logits.
"""

import math

from isft_jax.config import ModelConfig

# Field of ModelConfig -> (type, least, most). The largest models have a width
# of 16,384, 128 heads, 126 layers, an MLP of 53,248 and 256,000 tokens.
_RANGES: dict[str, tuple[type, float, float]] = {
  'vocab_size': (int, 1, 2**26),
  'width': (int, 1, 2**20),
  'layers': (int, 1, 2**12),
  'heads': (int, 1, 2**14),
  'kv_heads': (int, 1, 2**14),
  'head_size': (int, 2, 2**14),
  'mlp_width': (int, 1, 2**22),
  # RoFormer has 10,000, and models for a million tokens have up to 1e10. The
  # limits keep its powers in the range of float32.
  'rope_theta': (float, 1.0, 1e30),
  # 1e-5 or 1e-6 in practice. 0 makes NaN of a row of zeros.
  'norm_eps': (float, 1e-30, 1.0),
  'window': (int, 1, 2**40),
  'experts': (int, 1, 2**16),
  'experts_per_token': (int, 1, 2**16),
  'normalize_experts': (bool, 0, 1),
  'tie_embeddings': (bool, 0, 1),
  # Granite has 12, 0.016, 0.22 and 8, Gemma 3 up to 73 and 0.0625.
  'embedding_scale': (float, 1e-6, 1e6),
  'query_scale': (float, 1e-6, 1e6),
  'residual_scale': (float, 1e-6, 1e6),
  'logits_divisor': (float, 1e-6, 1e6),
}
# Numbers of a rotary scaling. Llama 3's factor is 8 or 32, its frequency
# factors are 1 and 4, its length is 8,192.
_SCALING: dict[str, tuple[type, float, float]] = {
  'factor': (float, 1.0, 1e6),
  'low_freq_factor': (float, 1e-6, 1e6),
  'high_freq_factor': (float, 1e-6, 1e6),
  'original_max_position_embeddings': (float, 1.0, 1e12),
  'beta_fast': (float, 1e-6, 1e6),
  'beta_slow': (float, 1e-6, 1e6),
  'attention_factor': (float, 1e-3, 1e3),
  'mscale': (float, 1e-3, 1e3),
  'mscale_all_dim': (float, 1e-3, 1e3),
}
# The order of these numbers in `rope_scaling`, by kind.
LLAMA3 = (
  *('factor', 'low_freq_factor', 'high_freq_factor'),
  'original_max_position_embeddings',
)
YARN = (
  *('factor', 'beta_fast', 'beta_slow', 'original_max_position_embeddings'),
  'attention_factor',
)


def problem(field: str, value: object) -> str:
  """Returns why a value cannot be a field's, as in 'must be ...'; '' if it can.

  Args:
    field: name of a field of ModelConfig, or of a number of the rotary scaling.
    value: the value in the file, of any type.
  """
  kind, least, most = (_RANGES | _SCALING)[field]
  # bool is an int in Python, and NaN is within no range.
  allowed = (int, float) if kind is float else (kind,)
  if type(value) in allowed and least <= value <= most:  # type: ignore[operator]
    return ''
  if kind is bool:
    return 'must be true or false'
  if kind is int:
    return f'must be an integer from {least} to {most:,}'
  return f'must be a number from {least:g} to {most:g}'


def mismatch(config: ModelConfig) -> str:
  """Returns why the sizes of a decoder do not fit each other; '' if they do."""
  if config.heads % config.kv_heads:
    return (
      f'{config.heads} query heads do not divide into {config.kv_heads} groups '
      'of key and value heads'
    )
  if config.experts_per_token > config.experts:
    return (
      f'{config.experts_per_token} experts per token are more than '
      f'{config.experts} experts'
    )
  if config.head_size % 2:
    return (
      f'heads of size {config.head_size} cannot be rotated; it must be even'
    )
  if config.rope_scaling and config.rope_type == 'llama3':
    _, low, high, _ = config.rope_scaling
    if not low < high:
      return f'low_freq_factor={low:g} must be below high_freq_factor={high:g}'
  return ''


def is_whole(value: object, least: int = 0, most: float = math.inf) -> bool:
  """Returns whether a value is an integer (not a bool) in a range."""
  return type(value) is int and least <= value <= most


def is_number(value: object, least: float, most: float = math.inf) -> bool:
  """Returns whether a value is a finite number (not a bool) in a range."""
  is_finite = type(value) is int or (
    type(value) is float and math.isfinite(value)
  )
  return is_finite and least <= value <= most  # type: ignore[operator]
