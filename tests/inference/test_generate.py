"""Replies as tokens: the cache, the batch and the blocks change none."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from isft_jax import sharding
from isft_jax.config import MeshConfig, ModelConfig
from isft_jax.inference import generate, prompts
from isft_jax.inference.sampling import Sampling
from isft_jax.models import decoder

CONFIG = ModelConfig(
  vocab_size=31,
  width=16,
  layers=2,
  heads=4,
  kv_heads=2,
  head_size=8,
  mlp_width=24,
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


@pytest.mark.parametrize('remat', ['full', 'dots'])
def test_what_training_recomputes_changes_no_reply(model, uncached, remat):
  _, params = model
  config = dataclasses.replace(CONFIG, remat=remat)
  replies = generate.greedy(decoder.abstract(config)[0], params, PROMPTS, NEW)
  assert [reply.tolist() for reply in replies] == uncached


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
  # The stop itself can be kept.
  replies = generate.generate(
    *model, PROMPTS, NEW, stop_ids=sorted(stops), keep_stop=True
  )
  assert [reply.tolist() for reply in replies] == [
    reply[: len(short) + 1]
    for reply, short in zip(uncached, expected, strict=True)
  ]


def test_decoding_ends_when_every_row_has_stopped(model):
  everything = range(CONFIG.vocab_size)
  replies = generate.greedy(*model, PROMPTS, NEW, everything)
  assert [reply.tolist() for reply in replies] == [[]] * len(PROMPTS)


def compilations():
  return generate._read_piece._cache_size(), generate._draw_block._cache_size()


def test_what_is_data_compiles_nothing(model):
  prompts = [np.arange(n) for n in (1, 8)]  # a bucket of 8, a cache of 24
  generate.generate(*model, prompts, 16, sampling=Sampling(1.0))
  before = compilations()
  for n, sampling in enumerate(
    [Sampling(2, top_k=3), Sampling(0.5, top_p=0.5), Sampling(1, 10, 1)]
  ):
    generate.generate(
      *model,
      [np.arange(3 + n), np.arange(7)],
      9 + n,
      sampling=sampling,
      seed=n,
      stop_ids=range(n),
      rows=[3, n],
    )
  assert compilations() == before
  reads, blocks = before
  # Another bucket of the prompt and so of the cache; the same cache for a
  # shorter prompt; greedy.
  generate.generate(*model, [np.arange(17), [1]], 5, sampling=Sampling(1.0))
  assert compilations() == (reads + 1, blocks + 1)
  generate.generate(*model, [[1], [2]], 17, sampling=Sampling(1.0))
  assert compilations() == (reads + 2, blocks + 1)
  generate.greedy(*model, prompts, 16)
  assert compilations() == (reads + 3, blocks + 2)


@pytest.mark.parametrize('is_committed', [False, True])
def test_all_blocks_are_one_program(model, is_committed):
  """Whether a device was chosen for the parameters or not."""
  graphdef, params = model
  params = jax.device_put(params, jax.devices()[0] if is_committed else None)
  for program in (generate._read_piece, generate._draw_block):
    program.clear_cache()
  generate.greedy(graphdef, params, PROMPTS, 40)  # three blocks
  assert compilations() == (1, 1)


# Forty tokens that all begin with; what follows has 1 to 70 tokens.
TEXT = [3, 1, 4, 1, 5, 9, 2, 6] * 5
SHARING = [
  np.array([*TEXT, *ids], np.int32)
  for ids in ([7], [8, 1], list(range(30)), [2, 7] * 35)
]


@pytest.mark.parametrize('piece', [512, 16])
def test_a_text_that_all_prompts_begin_with_is_read_once(
  model, monkeypatch, piece
):
  expected = [generate.greedy(*model, [p], NEW)[0] for p in SHARING]
  expected = [reply.tolist() for reply in expected]
  monkeypatch.setattr(generate, 'PIECE', piece)
  monkeypatch.setattr(prompts, 'FEWEST_SHARED', 16)
  shapes, read = [], generate._read

  def spy(graphdef, params, tokens_BL, *rest):
    shapes.append(tokens_BL.shape)
    return read(graphdef, params, tokens_BL, *rest)

  monkeypatch.setattr(generate, '_read', spy)
  replies = generate.greedy(*model, SHARING, NEW)
  assert [reply.tolist() for reply in replies] == expected
  # The longest has 110 tokens, in 112 columns. 80 are left for the other 70.
  assert shapes == [(1, 32), (4, 80)]
  # Copies of one prompt, as the samples of a server.
  shapes.clear()
  replies = generate.greedy(*model, [SHARING[3]] * 3, NEW)
  assert [reply.tolist() for reply in replies] == [expected[3]] * 3
  assert shapes == [(1, 112), (3, 8)]


def test_samples_of_a_shared_text_are_those_of_each_row(model, monkeypatch):
  expected = sample(model, SHARING)
  monkeypatch.setattr(prompts, 'FEWEST_SHARED', 16)
  assert sample(model, SHARING) == expected


def test_a_long_prompt_is_read_in_pieces(model, uncached, monkeypatch):
  monkeypatch.setattr(generate, 'PIECE', 16)  # 40 are read as 8, 16, 16
  replies = generate.greedy(*model, PROMPTS, NEW)
  assert [reply.tolist() for reply in replies] == uncached


# --------------------------------------------------------------------- sampling

WARM = Sampling(0.9, top_k=12, top_p=0.95)


def sample(model, prompts=PROMPTS, sampling=WARM, **settings):
  replies = generate.generate(
    *model, prompts, NEW, sampling=sampling, **settings
  )
  return [reply.tolist() for reply in replies]


def test_top_k_of_one_is_greedy(model, uncached):
  assert sample(model, sampling=Sampling(5.0, top_k=1)) == uncached
  assert sample(model, sampling=Sampling(5.0, top_p=1e-6)) == uncached
  assert sample(model, sampling=Sampling(0.0, 3, 0.5)) == uncached


def test_a_sample_is_its_seeds_and_its_rows_alone(model, uncached):
  whole = sample(model)
  assert whole == sample(model)
  assert whole != sample(model, seed=1)
  assert whole != uncached
  assert sample(model, PROMPTS[3:], rows=[3, 4]) == whole[3:]
  same = sample(model, [PROMPTS[1]] * 4, sampling=Sampling(1.5))
  assert len({tuple(reply) for reply in same}) == 4


def test_the_block_changes_no_token(model):
  whole = sample(model, block=NEW)
  assert sample(model, block=1) == sample(model, block=5) == whole


def test_a_first_token_comes_as_often_as_it_is_likely(model):
  """Through the whole path: prompt, cache, filter, draw."""
  graphdef, params = model
  prompt, rows = PROMPTS[1], 2000
  ones_1L = np.ones((1, len(prompt)), np.int32)
  merged = nnx.merge(graphdef, params)
  positions_1L = np.arange(len(prompt))[None]
  hidden_1LD = merged(prompt[None], positions_1L, ones_1L)
  # Hot, since weights this large are sure of themselves.
  logits_V = np.asarray(merged.logits(hidden_1LD[0, -1]), np.float64) / 8
  expected_V = np.exp(logits_V) / np.exp(logits_V).sum()
  replies = generate.generate(
    graphdef, params, [prompt] * rows, 1, sampling=Sampling(8.0)
  )
  counts_V = np.bincount(np.concatenate(replies), minlength=len(logits_V))
  assert (rows * expected_V > 5).all()
  found = stats.chisquare(counts_V, rows * expected_V)
  assert found.pvalue > 1e-3  # for a fixed seed


# ------------------------------------------------------------ layers on the CPU


def test_layers_share_the_memory_of_the_parameters(model):
  params = jax.tree.map(jax.numpy.asarray, model[1])
  kernel = params['blocks']['mlp']['up']
  layers = generate._layers(params)
  assert len(layers) == CONFIG.layers
  start = kernel.unsafe_buffer_pointer()
  for n, layer in enumerate(layers):
    up = layer['mlp']['up']
    np.testing.assert_array_equal(up, kernel[n])
    assert up.unsafe_buffer_pointer() == start + n * up.nbytes
  # A step of training can use the memory again when they are gone.
  del layers, layer, up
  step = jax.jit(lambda x: x + 1, donate_argnums=0)
  assert step(kernel).unsafe_buffer_pointer() == start


def test_sharded_parameters_stay_stacked(model, uncached, monkeypatch):
  mesh = sharding.make_mesh(MeshConfig(data=2, fsdp=1), jax.devices()[:2])
  graphdef, params = model
  params = jax.device_put(params, sharding.replicated(mesh))
  assert generate._layers(params) is None
  replies = generate.greedy(graphdef, params, PROMPTS, NEW)
  assert [reply.tolist() for reply in replies] == uncached
  # One row reads the shared text on the mesh, too.
  expected = sample(model, SHARING)
  monkeypatch.setattr(prompts, 'FEWEST_SHARED', 16)
  assert sample((graphdef, params), SHARING) == expected


@pytest.mark.parametrize('sampling', [Sampling(), WARM])
def test_a_batch_gets_smaller_as_rows_end(model, monkeypatch, sampling):
  """Eleven rows, in an order that mixes those that end and those that last."""
  monkeypatch.setattr(generate, 'FEWEST_ROWS', 2)
  monkeypatch.setattr(generate, 'FEWEST_STEPS', 1)
  batch = [PROMPTS[n % 5] for n in range(11)]
  whole = sample(model, batch, sampling=sampling)
  ends = [1, 9, 1, 3, 12, 3, 1, 3, 5, 12, 1]
  sizes, draw = [], generate._draw_block

  def spy(graphdef, params, layers, chooser, is_stop_V, running_B, *rest):
    sizes.append(len(running_B))
    return draw(graphdef, params, layers, chooser, is_stop_V, running_B, *rest)

  monkeypatch.setattr(generate, '_draw_block', spy)
  found = sample(
    model,
    batch,
    sampling=sampling,
    block=2,
    watch=lambda row, reply: len(reply) >= ends[row],
  )
  expected = [reply[:end] for reply, end in zip(whole, ends, strict=True)]
  assert found == expected
  # Running: 7 to token 3; 4; 3 to token 5; 3 to 9; 2.
  assert sizes == [11, 6, 3, 3, 2, 2]


# ---------------------------------------------------------------- being watched


def test_a_watch_sees_each_reply_grow_and_may_end_it(model, uncached):
  seen = {row: [] for row in range(len(PROMPTS))}

  def watch(row, reply):
    seen[row].append(reply.tolist())
    return row == 2 and len(reply) > 4

  replies = generate.generate(*model, PROMPTS, NEW, watch=watch, block=4)
  lengths = [1, 5, 9, NEW]  # one with the prompt, then blocks
  for row, reply in enumerate(uncached):
    ends = lengths[:2] if row == 2 else lengths
    assert seen[row] == [reply[:end] for end in ends]
    assert replies[row].tolist() == reply[: ends[-1]]


# ------------------------------------------------------- nothing to do or wrong


def test_nothing_to_do_and_nothing_to_read(model):
  assert generate.greedy(*model, [], NEW) == []
  with pytest.raises(ValueError, match='prompt 1 is empty'):
    generate.greedy(*model, [np.array([1]), np.array([], int)], NEW)
  with pytest.raises(ValueError, match='max_new_tokens=0'):
    generate.greedy(*model, PROMPTS, 0)
  with pytest.raises(ValueError, match='top_p=2'):
    sample(model, sampling=Sampling(1.0, top_p=2))


@pytest.mark.parametrize('prompt', [[3, 31], [-1, 3]])
def test_ids_of_another_tokenizer_are_refused(model, prompt):
  with pytest.raises(ValueError, match=r'prompt 1 has ids .* ids 0 to 30'):
    generate.greedy(*model, [[1], prompt], NEW)
