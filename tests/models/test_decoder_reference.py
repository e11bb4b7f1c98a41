"""The whole forward pass against a slow one, in float64 NumPy.

The reference loops over layers, rows, heads and queries, and is written from
the papers' formulas: it shares no line and no layout trick with the model.
"""

import jax
import numpy as np
import pytest
from flax import nnx

from isft_jax.config import ModelConfig
from isft_jax.models import decoder


def norm(x_D, scale_D, eps):
  return x_D / np.sqrt(np.mean(x_D**2) + eps) * scale_D


def silu(x):
  return x / (1 + np.exp(-x))


def turn(x_A, position, theta):
  """Rotates the plane (i, i + A/2) by position * theta^(-2i/A)."""
  A = len(x_A)
  out_A = np.empty(A)
  for i in range(A // 2):
    angle = position * theta ** (-2 * i / A)
    turned = np.exp(1j * angle) * (x_A[i] + 1j * x_A[i + A // 2])
    out_A[i], out_A[i + A // 2] = turned.real, turned.imag
  return out_A


def attend(config, p, x_LD, positions_L, ids_L):
  """One layer's attention, a query and a head at a time."""

  def project(name, x_D, head, position):
    y_A = x_D @ p[name][:, head]
    if config.qkv_bias:
      y_A = y_A + p[name + '_bias'][head]
    if name != 'v' and config.qk_norm:
      y_A = norm(y_A, p[name + '_norm'], config.norm_eps)
    return y_A if name == 'v' else turn(y_A, position, config.rope_theta)

  out_LD = np.zeros_like(x_LD)
  for t, (x_D, position) in enumerate(zip(x_LD, positions_L, strict=True)):
    seen = [s for s in range(t + 1) if ids_L[s] == ids_L[t]]
    for h in range(config.heads):
      n = h * config.kv_heads // config.heads
      q_A = project('q', x_D, h, position)
      keys = np.array([project('k', x_LD[s], n, positions_L[s]) for s in seen])
      values = np.array([project('v', x_LD[s], n, None) for s in seen])
      scores = np.exp(keys @ q_A / np.sqrt(config.head_size))
      out_LD[t] += scores @ values / scores.sum() @ p['o'][h]
  return out_LD


def reference(config, params, tokens_L, positions_L, ids_L):
  """Logits [L, V] of one row."""
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  x_LD = p['embedding'][tokens_L]
  for i in range(config.layers):
    block = jax.tree.map(lambda x, i=i: x[i], p['blocks'])
    normed_LD = [
      norm(x, block['attention_norm'], config.norm_eps) for x in x_LD
    ]
    x_LD = x_LD + attend(
      config, block['attention'], np.array(normed_LD), positions_L, ids_L
    )
    mlp = block['mlp']
    for t in range(len(x_LD)):
      y_D = norm(x_LD[t], block['mlp_norm'], config.norm_eps)
      x_LD[t] += (silu(y_D @ mlp['gate']) * (y_D @ mlp['up'])) @ mlp['down']
  head_VD = p['embedding' if config.tie_embeddings else 'head']
  out_LD = [norm(x_D, p['norm'], config.norm_eps) for x_D in x_LD]
  return np.array(out_LD) @ head_VD.T


@pytest.mark.parametrize(
  'kv_heads, qkv_bias, qk_norm, tie_embeddings, like',
  [
    (2, True, False, True, 'Qwen2, small'),
    (2, True, False, False, 'Qwen2, large'),
    (1, False, True, True, 'Qwen3, small; one kv head'),
    (4, False, False, False, 'Llama; a kv head a query head'),
    (2, True, True, False, 'everything'),
    (4, False, True, True, 'Qwen3 without groups'),
    (1, True, False, True, 'Qwen2 with one kv head'),
  ],
)
def test_logits_equal_the_reference(
  kv_heads, qkv_bias, qk_norm, tie_embeddings, like
):
  config = ModelConfig(
    vocab_size=17,
    width=8,
    layers=2,
    heads=4,
    kv_heads=kv_heads,
    head_size=6,
    mlp_width=12,
    rope_theta=500.0,
    tie_embeddings=tie_embeddings,
    qkv_bias=qkv_bias,
    qk_norm=qk_norm,
  )
  graphdef, shapes = decoder.abstract(config)
  rng = np.random.default_rng(0)
  # Large enough that attention is far from uniform, and that biases and norms,
  # which start at 0 and 1, are tested too.
  params = jax.tree.map(
    lambda leaf: rng.normal(scale=0.5, size=leaf.shape).astype(np.float32),
    shapes,
  )
  tokens_L = np.array([3, 14, 1, 5, 9, 2, 6, 5, 0])
  positions_L = np.array([0, 1, 2, 3, 4, 0, 1, 2, 0])
  ids_L = np.array([1, 1, 1, 1, 1, 2, 2, 2, 0])
  model = nnx.merge(graphdef, params)
  hidden_1LD = model(tokens_L[None], positions_L[None], ids_L[None])
  logits_LV = model.logits(hidden_1LD)[0]
  expected_LV = reference(config, params, tokens_L, positions_L, ids_L)
  assert expected_LV.std() > 0.3, like
  # float32 has 6e-8; a few hundred roundings on values of order 1 to 10.
  np.testing.assert_allclose(logits_LV, expected_LV, rtol=0, atol=5e-5)
