"""Greedy replies: the cache must not change a token."""

import jax
import numpy as np
import pytest
from flax import nnx

from isft_jax.config import ModelConfig
from isft_jax.models import decoder, generate

CONFIG = ModelConfig(
  vocab_size=31,
  width=16,
  layers=2,
  heads=4,
  kv_heads=2,
  head_size=8,
  hidden=24,
  tie_embeddings=False,  # tied, random weights mostly repeat their input
)
NEW = 12
PROMPTS = [
  np.array(ids, np.int32)
  for ids in ([7], [3, 1, 4, 1, 5], [2, 7, 1] * 11, list(range(30)), [9, 8])
]


@pytest.fixture(scope='module')
def model():
  """Weights this large make replies that wander, as a test needs."""
  graphdef, shapes = decoder.abstract(CONFIG)
  rng = np.random.default_rng(2)
  params = jax.tree.map(
    lambda leaf: rng.normal(scale=1.0, size=leaf.shape).astype(np.float32),
    shapes,
  )
  return graphdef, params


@pytest.fixture(scope='module')
def uncached(model):
  """NEW tokens for each prompt: the whole text again for every token."""
  graphdef, params = model

  @jax.jit
  def best(tokens_1L, ids_1L, last):
    merged = nnx.merge(graphdef, params)
    positions_1L = np.arange(tokens_1L.shape[1])[None]
    hidden_1LD = merged(tokens_1L, positions_1L, ids_1L)
    return merged.logits(hidden_1LD[0, last]).argmax()

  replies = []
  for prompt in PROMPTS:
    text = list(prompt)
    for _ in range(NEW):
      tokens_1L = np.zeros((1, 64), np.int32)
      tokens_1L[0, : len(text)] = text
      ids_1L = (np.arange(64) < len(text)).astype(np.int32)[None]
      text.append(int(best(tokens_1L, ids_1L, len(text) - 1)))
    replies.append(text[len(prompt) :])
  return replies


def test_the_replies_wander(uncached):
  assert all(len(set(reply)) >= 4 for reply in uncached)
  assert len({tuple(reply) for reply in uncached}) == len(PROMPTS)


def test_cached_equals_uncached_for_prompts_of_all_lengths(model, uncached):
  replies = generate.greedy(*model, PROMPTS, NEW)
  assert [reply.tolist() for reply in replies] == uncached
  assert all(reply.dtype == np.int32 for reply in replies)


def test_a_row_is_what_it_is_alone(model, uncached):
  for row in (0, 1):
    (reply,) = generate.greedy(*model, [PROMPTS[row]], NEW)
    assert reply.tolist() == uncached[row]


def test_a_reply_ends_before_its_first_stop(model, uncached):
  # Stops chosen so that rows end at different times; one at its first token.
  stops = {uncached[0][0], uncached[1][5], uncached[2][3]}
  expected = [
    reply[: next((i for i, t in enumerate(reply) if t in stops), NEW)]
    for reply in uncached
  ]
  assert expected[0] == [] and len({len(reply) for reply in expected}) >= 3
  replies = generate.greedy(*model, PROMPTS, NEW, sorted(stops))
  assert [reply.tolist() for reply in replies] == expected


def test_decoding_ends_when_every_row_has_stopped(model):
  everything = range(CONFIG.vocab_size)
  replies = generate.greedy(*model, PROMPTS, NEW, everything)
  assert [reply.tolist() for reply in replies] == [[]] * len(PROMPTS)


def test_prompts_of_one_bucket_share_one_compilation(model):
  generate.greedy(*model, [np.array([1, 2])] * 2, 3, [0])
  before = generate._decode._cache_size()
  generate.greedy(*model, [np.arange(1, 30), np.array([5])], 3, [4])
  assert generate._decode._cache_size() == before
  generate.greedy(*model, [np.arange(33) % 7] * 2, 3, [4])
  assert generate._decode._cache_size() == before + 1


def test_nothing_to_do_and_nothing_to_read(model):
  assert generate.greedy(*model, [], NEW) == []
  with pytest.raises(ValueError, match='prompt 1 is empty'):
    generate.greedy(*model, [np.array([1]), np.array([], int)], NEW)
  with pytest.raises(ValueError, match='max_new_tokens=0'):
    generate.greedy(*model, PROMPTS, 0)
