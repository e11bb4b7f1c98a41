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


def norm(x, scale, config):
  scale = scale + 1 if config.norm_plus_one else scale
  return x / np.sqrt(np.mean(x**2) + config.norm_eps) * scale


def activate(x, name):
  if name == 'silu':
    return x / (1 + np.exp(-x))
  return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def turn(x_A, position, theta):
  """Rotates the plane (i, i + A/2) by position * theta^(-2i/A)."""
  A = len(x_A)
  out_A = np.empty(A)
  for i in range(A // 2):
    angle = position * theta ** (-2 * i / A)
    turned = np.exp(1j * angle) * (x_A[i] + 1j * x_A[i + A // 2])
    out_A[i], out_A[i + A // 2] = turned.real, turned.imag
  return out_A


def attend(config, kind, p, x_LD, positions_L, ids_L):
  """One layer's attention, a query and a head at a time."""
  theta = config.rope_theta
  if kind == 'window' and config.window_theta:
    theta = config.window_theta

  def project(name, x_D, head, position):
    y_HA = np.einsum('D,DHA->HA', x_D, p[name])
    if config.qkv_bias:
      y_HA = y_HA + p[name + '_bias']
    if name != 'v' and config.qk_norm_all_heads:
      y_HA = norm(y_HA, p[name + '_heads_norm'], config)
    y_A = y_HA[head]
    if name != 'v' and config.qk_norm and not config.qk_norm_all_heads:
      y_A = norm(y_A, p[name + '_norm'], config)
    is_turned = name != 'v' and kind != 'nope'
    return turn(y_A, position, theta) if is_turned else y_A

  out_LD = np.zeros_like(x_LD)
  for t, (x_D, position) in enumerate(zip(x_LD, positions_L, strict=True)):
    first = max(0, t + 1 - config.window) if kind == 'window' else 0
    seen = [s for s in range(first, t + 1) if ids_L[s] == ids_L[t]]
    for h in range(config.heads):
      n = h * config.kv_heads // config.heads
      q_A = project('q', x_D, h, position)
      keys = np.array([project('k', x_LD[s], n, positions_L[s]) for s in seen])
      values = np.array([project('v', x_LD[s], n, None) for s in seen])
      scale = config.query_scale or 1 / np.sqrt(config.head_size)
      scores = np.exp(keys @ q_A * scale)
      out_LD[t] += scores @ values / scores.sum() @ p['o'][h]
  return out_LD


def feed(config, p, x_D):
  """The MLP of one token: dense, or of the experts that it chooses."""

  def one(gate, up, down):
    return (activate(x_D @ gate, config.activation) * (x_D @ up)) @ down

  if not config.experts:
    return one(p['gate'], p['up'], p['down'])
  p_E = np.exp(x_D @ p['router'])
  p_E /= p_E.sum()
  best = np.argsort(-p_E)[: config.experts_per_token]
  total = p_E[best].sum() if config.normalize_experts else 1
  return sum(
    p_E[e] / total * one(p['gate'][e], p['up'][e], p['down'][e]) for e in best
  )


def reference(config, params, tokens_L, positions_L, ids_L):
  """Logits [L, V] of one row."""
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  x_LD = p['embedding'][tokens_L] * config.embedding_scale
  for i in range(config.layers):
    block = jax.tree.map(lambda x, i=i: x[i], p['blocks'])
    kind = config.layer_kinds[i % len(config.layer_kinds)]

    def normed(name, x_LD, block=block):
      if name not in block:
        return x_LD
      return np.array([norm(x_D, block[name], config) for x_D in x_LD])

    mixed_LD = attend(
      *(config, kind, block['attention'], normed('attention_norm', x_LD)),
      *(positions_L, ids_L),
    )
    factor = config.residual_scale
    x_LD = x_LD + factor * normed('attention_post_norm', mixed_LD)
    mlp = block['experts' if config.experts else 'mlp']
    y_LD = normed('mlp_norm', x_LD)
    y_LD = np.array([feed(config, mlp, y_D) for y_D in y_LD])
    x_LD = x_LD + factor * normed('mlp_post_norm', y_LD)
  head_VD = p['embedding' if config.tie_embeddings else 'head']
  out_LD = [norm(x_D, p['norm'], config) for x_D in x_LD]
  return np.array(out_LD) @ head_VD.T / config.logits_divisor


LIKE = {
  'Qwen2, small': dict(qkv_bias=True),
  'Qwen2, large': dict(qkv_bias=True, tie_embeddings=False),
  'Qwen2 with one kv head': dict(kv_heads=1, qkv_bias=True),
  'Qwen3, small; one kv head': dict(kv_heads=1, qk_norm=True),
  'Qwen3 without groups': dict(kv_heads=4, qk_norm=True),
  'Llama; a kv head a query head': dict(kv_heads=4, tie_embeddings=False),
  'Qwen2 and Qwen3': dict(qkv_bias=True, qk_norm=True, tie_embeddings=False),
  'Mistral with a window': dict(layer_kinds=('window',), window=3),
  'Gemma 3': dict(
    layer_kinds=('window', 'full'),
    window=2,
    window_theta=20.0,
    qk_norm=True,
    norms='both',
    norm_plus_one=True,
    activation='gelu_tanh',
    embedding_scale=8**0.5,
    query_scale=0.3,
  ),
  'OLMo 3': dict(
    layer_kinds=('window', 'full'),
    window=2,
    qk_norm_all_heads=True,
    norms='after',
  ),
  'Qwen3-MoE': dict(
    experts=5, experts_per_token=2, normalize_experts=True, qk_norm=True
  ),
  'experts of another family': dict(
    experts=3,
    experts_per_token=2,
    normalize_experts=False,
    activation='gelu_tanh',
    norms='after',
  ),
  'SmolLM3': dict(layer_kinds=('full', 'nope')),
  'Granite': dict(
    embedding_scale=3.0,
    query_scale=0.2,
    residual_scale=0.22,
    logits_divisor=0.5,
  ),
}


@pytest.mark.parametrize('like', LIKE)
def test_logits_equal_the_reference(like):
  shape = {'kv_heads': 2, 'qkv_bias': False, **LIKE[like]}
  config = ModelConfig(
    vocab_size=17,
    width=8,
    layers=2,
    heads=4,
    head_size=6,
    mlp_width=12,
    rope_theta=500.0,
    **shape,
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
