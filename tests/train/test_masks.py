"""What a step learns from: gradients that are exactly zero, sums that agree.

Batches come from the pipeline, losses from the model and the step: these tests
see what a run sees.
"""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from isft_jax import losses, sharding
from isft_jax.config import MeshConfig, ModelConfig, OptimConfig, RunConfig
from isft_jax.data.batching.pipeline import BatchSource
from isft_jax.data.records import dataset
from isft_jax.models import decoder
from isft_jax.models.likelihood import target_nll
from isft_jax.objectives import weight_table
from isft_jax.train import optim
from isft_jax.train.step import make_step
from isft_jax.train.trainer import TrainState, make_trainer
from isft_jax.types import Batch, Example, Provenance
from tests.fixtures import FAST

MODEL = ModelConfig(
  vocab_size=64,
  width=16,
  layers=2,
  heads=4,
  kv_heads=2,
  head_size=4,
  mlp_width=32,
  # Untied: a row of the embedding is then the input of its token alone, and its
  # gradient says what the loss reads there.
  tie_embeddings=False,
)
GRAPHDEF, SHAPES = decoder.abstract(MODEL)
LETTERS = {
  't': Provenance.TEMPLATE,
  'c': Provenance.CONTEXT,
  'u': Provenance.USER,
  'o': Provenance.TOOL,
  'a': Provenance.AGENT,
}
AGENT = Provenance.AGENT


@pytest.fixture(scope='module')
def params():
  """Random in every leaf, so that no bias is 0 and no norm is 1."""
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    center = 1.0 if sharding.path_name(path).endswith('norm') else 0.0
    return rng.normal(center, 0.3, leaf.shape).astype(leaf.dtype)

  return jax.tree_util.tree_map_with_path(draw, SHAPES)


def example(name, authors, tokens):
  length = len(authors)
  return Example(
    id=name,
    tokens_T=np.asarray(tokens, np.int32),
    provenance_T=np.array([LETTERS[a] for a in authors], np.uint8),
    segment_T=np.zeros(length, np.int32),
    verdict_T=np.zeros(length, np.uint8),
  )


def one_batch(folder, examples, **changes) -> Batch:
  """All examples, in slots for every author, weighed by L_do if not changed."""
  data = dataset.write(str(folder), lambda: examples, {})
  config = RunConfig(
    batch_size=8,
    seq_len=64,
    targets_per_row=64,
    objective='interventional',
    plan_objective='observational',
  )
  source = BatchSource(data, dataclasses.replace(config, **changes))
  assert source.steps_per_epoch == 1, 'not all examples are in the batch'
  return source[0]


def fast_jit(function):
  return jax.jit(function, compiler_options=FAST)


@fast_jit
def nll_of(params, batch):
  return target_nll(GRAPHDEF, params, batch)


@fast_jit
def sums(params, batch):
  """(sum, count, gradient of the sum)."""

  def loss(params):
    nll_BK = target_nll(GRAPHDEF, params, batch)
    return losses.weighted_sum(nll_BK, batch.weights_BK)

  (total, count), gradient = jax.value_and_grad(loss, has_aux=True)(params)
  return total, count, gradient


def read_by(params, batch):
  """The tokens whose embedding the loss has a gradient with respect to."""
  gradient_VD = np.asarray(sums(params, batch)[2]['embedding'])
  return np.flatnonzero(gradient_VD.any(axis=-1)).tolist()


def assert_trees_agree(tree, other, tolerance):
  """Every leaf, within so much of its own largest entry."""
  assert jax.tree.structure(tree) == jax.tree.structure(other)
  for (path, leaf), expected in zip(
    jax.tree_util.tree_leaves_with_path(tree),
    jax.tree.leaves(other),
    strict=True,
  ):
    np.testing.assert_allclose(
      leaf,
      expected,
      rtol=0,
      atol=tolerance * np.abs(expected).max(),
      err_msg=sharding.path_name(path),
    )


# ------------------------------------------------- the gradient at each target


def random_examples(number=20):
  """Dialogues of 7 to 31 tokens; a third mostly agent, a third without one."""
  rng = np.random.default_rng(0)
  for i in range(number):
    length = int(rng.integers(7, 32))
    letters = ['t', 'u', 'o', *'a' * (i % 3 * 4)]
    authors = 'cct' + ''.join(rng.choice(letters, length - 3))
    yield example(str(i), authors, rng.integers(0, MODEL.vocab_size, length))


DIALOGUES = list(random_examples())


def over_all_positions(batch: Batch, objective) -> Batch:
  """The same rows, but with a slot for every column, padding included.

  Weights are looked up by author, from the definition.
  """
  B, L = batch.tokens_BL.shape
  targets_BL = np.zeros((B, L), np.int32)
  authors_BL = np.zeros((B, L), np.int32)
  for b in range(B):
    for document in range(1, batch.segment_ids_BL[b].max() + 1):
      columns = np.flatnonzero(batch.segment_ids_BL[b] == document)
      read = batch.tokens_BL[b, columns].tolist()
      (whole,) = (
        dialogue
        for dialogue in DIALOGUES
        if dialogue.tokens_T[: len(read)].tolist() == read
      )
      targets_BL[b, columns] = whole.tokens_T[1 : len(read) + 1]
      authors_BL[b, columns] = whole.provenance_T[1 : len(read) + 1]
  return batch._replace(
    columns_BK=np.tile(np.arange(L, dtype=np.int32), (B, 1)),
    targets_BK=targets_BL,
    weights_BK=weight_table(objective)[authors_BL, 0],
    authors_BK=authors_BL,
  )


def reached_logits(params, batch, monkeypatch):
  """bool [B, K]: at which targets the logits get a gradient of the loss.

  They are inside the model: a zero that is added to them is differentiated.
  """
  logits = decoder.Decoder.logits

  def loss(zeros_BKV):
    with monkeypatch.context() as patch:
      patch.setattr(
        decoder.Decoder, 'logits', lambda self, h: logits(self, h) + zeros_BKV
      )
      nll_BK = target_nll(GRAPHDEF, params, batch)
    total, count = losses.weighted_sum(nll_BK, batch.weights_BK)
    return losses.normalize(total, count)

  zeros_BKV = np.zeros((*batch.targets_BK.shape, MODEL.vocab_size), np.float32)
  gradient_BKV = fast_jit(jax.grad(loss))(zeros_BKV)
  return np.asarray(gradient_BKV).any(axis=-1)


def test_under_l_do_no_gradient_reaches_the_logits_at_the_agents_tokens(
  monkeypatch, params, tmp_path
):
  """Exactly none. Under L_obs, on the same rows, each of them gets one."""
  do = one_batch(tmp_path, DIALOGUES)
  observational = one_batch(tmp_path, DIALOGUES, objective='observational')
  agent_BK = do.authors_BK == AGENT
  world_BK = (do.authors_BK != AGENT) & (do.authors_BK != Provenance.PAD)
  assert agent_BK.sum() > 50 and world_BK.sum() > 50
  np.testing.assert_array_equal(
    reached_logits(params, do, monkeypatch), world_BK
  )
  np.testing.assert_array_equal(
    reached_logits(params, observational, monkeypatch), world_BK | agent_BK
  )


@pytest.mark.parametrize(
  ('objective', 'scored'),
  [
    ('observational', 'tuoa'),
    ('interventional', 'tuo'),
    ('agent_only', 'a'),
    ('USER=1,TOOL=0.5', 'uo'),
  ],
)
def test_context_and_padding_get_no_gradient_at_their_own_logits(
  monkeypatch, params, tmp_path, objective, scored
):
  """Even where they have a slot, which the pipeline gives them nowhere."""
  batch = over_all_positions(one_batch(tmp_path, DIALOGUES), objective)
  for author in (*LETTERS.values(), Provenance.PAD):
    assert (batch.authors_BK == author).sum() > 10
  np.testing.assert_array_equal(
    reached_logits(params, batch, monkeypatch),
    np.isin(batch.authors_BK, [LETTERS[a] for a in scored]),
  )


@pytest.mark.parametrize('objective', ['interventional', 'agent_only'])
def test_the_loss_over_gathered_targets_is_the_masked_loss_over_all_positions(
  params, tmp_path, objective
):
  """And the gradient too. The sums have the same terms in another order, some
  200 of them in float32: 1e-5 of the largest entry is 80 roundings."""
  gathered = one_batch(
    tmp_path, DIALOGUES, objective=objective, plan_objective=objective
  )
  dense = over_all_positions(one_batch(tmp_path, DIALOGUES), objective)
  total, count, gradient = sums(params, gathered)
  dense_total, dense_count, dense_gradient = sums(params, dense)
  assert count == dense_count > 50
  assert gathered.segment_ids_BL.astype(bool).sum() != dense.columns_BK.size
  np.testing.assert_allclose(total, dense_total, rtol=1e-6)
  assert_trees_agree(gradient, dense_gradient, 1e-5)


# --------------------------------------------- the agent's words are still read


#          0123456789
AUTHORS = 'ctuaaatuat'
TOKENS = np.arange(10, 20)  # all different: token 14 is position 4


def single(folder, tokens):
  return one_batch(
    folder, [example('x', AUTHORS, tokens)], batch_size=1, targets_per_row=10
  )


def test_another_word_of_the_agent_changes_what_comes_after_it(
  params, tmp_path
):
  """And nothing before it, to the last bit: under L_do it is context."""
  changed = TOKENS.copy()
  changed[4] = 60
  before, after = (
    np.asarray(nll_of(params, single(tmp_path / str(tokens[4]), tokens)))[0]
    for tokens in (TOKENS, changed)
  )
  # Slot k scores position k + 1: slot 3 the changed token itself, slots 4 to 8
  # what follows; slot 9 is not in use and repeats column 0.
  assert (before == after).tolist() == [*(True,) * 3, *(False,) * 6, True]


def test_under_l_do_the_gradient_reads_the_agents_words(params, tmp_path):
  """All inputs before the last target are read. The last token is none."""
  assert read_by(params, single(tmp_path, TOKENS)) == TOKENS[:-1].tolist()


def test_the_gradient_of_one_target_reads_no_later_word(params, tmp_path):
  """The target at position 6, a 't', has inputs 0 to 5 for context."""
  batch = single(tmp_path, TOKENS)
  alone_BK = np.where(batch.targets_BK == 16, batch.weights_BK, 0)
  assert alone_BK.sum() == 1
  batch = batch._replace(weights_BK=alone_BK)
  assert read_by(params, batch) == [10, 11, 12, 13, 14, 15]


# -------------------------------------------------------------------- packing


def alone(dialogue) -> Batch:
  """A row that holds one dialogue, built by hand from the definition."""
  length = len(dialogue.tokens_T) - 1

  def row(values, dtype=np.int32):
    return np.pad(np.asarray(values, dtype), (0, 64 - length))[None]

  authors_K = dialogue.provenance_T[1:]
  return Batch(
    tokens_BL=row(dialogue.tokens_T[:-1]),
    positions_BL=row(np.arange(length)),
    segment_ids_BL=row(np.ones(length)),
    columns_BK=row(np.arange(length)),
    targets_BK=row(dialogue.tokens_T[1:]),
    weights_BK=row(weight_table('interventional')[authors_K, 0], np.float32),
    authors_BK=row(authors_K),
  )


def test_the_packed_loss_is_the_sum_of_the_losses_of_its_documents(
  params, tmp_path
):
  """And so is its gradient: float32 sums in another order, as above."""
  packed = one_batch(tmp_path, DIALOGUES)
  assert packed.segment_ids_BL.max() > 2, 'nothing was packed'
  total, count, gradient = sums(params, packed)
  each = [sums(params, alone(dialogue)) for dialogue in DIALOGUES]
  totals, counts, gradients = zip(*jax.device_get(each), strict=True)
  assert count == sum(counts)
  np.testing.assert_allclose(total, sum(totals), rtol=1e-6)
  summed = jax.tree.map(lambda *leaves: np.sum(leaves, axis=0), *gradients)
  assert_trees_agree(gradient, summed, 1e-5)


def neighbours(folder):
  """Two documents in one row: tokens 10 to 19 and 40 to 49, in some order."""
  both = [
    example('one', AUTHORS, TOKENS),
    example('other', AUTHORS, TOKENS + 30),
  ]
  return one_batch(folder, both, batch_size=1)


@pytest.mark.parametrize('document', [1, 2])
def test_the_loss_of_one_document_reads_no_word_of_another(
  params, tmp_path, document
):
  """The gradient with respect to the other's inputs is exactly zero."""
  batch = neighbours(tmp_path)
  owner_BK = np.take_along_axis(batch.segment_ids_BL, batch.columns_BK, axis=1)
  weights_BK = np.where(owner_BK == document, batch.weights_BK, 0)
  own = batch.tokens_BL[batch.segment_ids_BL == document].tolist()
  assert len(own) == 9
  batch = batch._replace(weights_BK=weights_BK)
  assert read_by(params, batch) == sorted(own)


def test_a_document_costs_the_same_wherever_it_stands_in_a_row(
  params, tmp_path
):
  """Neither its neighbours nor the columns it stands in enter."""
  row = neighbours(tmp_path / 'both')
  assert row.segment_ids_BL[0, :18].tolist() == [1] * 9 + [2] * 9
  by_slot = np.asarray(nll_of(params, row))
  in_row = dict(zip(row.targets_BK[0].tolist(), by_slot[0], strict=True))
  for offset in (0, 30):
    by_itself = single(tmp_path / str(offset), TOKENS + offset)
    for target, nll in zip(
      by_itself.targets_BK[0, :9].tolist(),
      np.asarray(nll_of(params, by_itself))[0, :9],
      strict=True,
    ):
      # A softmax over 64 columns, the same 9 or fewer of them not zero.
      np.testing.assert_allclose(in_row[target], nll, rtol=1e-6)


def test_trimming_the_tail_of_a_document_changes_nothing(params, tmp_path):
  """A tail that is read after all moves no bit of the loss before it."""
  batch = single(tmp_path, TOKENS)
  early_BK = batch.columns_BK < 6
  batch = batch._replace(weights_BK=np.where(early_BK, batch.weights_BK, 0))
  kept_L = np.arange(64) < 6
  trimmed = batch._replace(
    tokens_BL=np.where(kept_L, batch.tokens_BL, 0),
    positions_BL=np.where(kept_L, batch.positions_BL, 0),
    segment_ids_BL=np.where(kept_L, batch.segment_ids_BL, 0),
  )
  assert batch.segment_ids_BL.sum() == 9 and trimmed.segment_ids_BL.sum() == 6
  jax.tree.map(
    np.testing.assert_array_equal, sums(params, batch), sums(params, trimmed)
  )


# -------------------------------------------------- one step, however it is cut


# AdamW's first update is -g / (|g| + eps), after the clip. With eps = 1 it is
# no steeper than the gradient, so that these tests see the gradient's rounding;
# with eps = 1e-8 they would see the sign of noise.
OPTIM = OptimConfig(learning_rate=1.0, eps=1.0, weight_decay=0, clip_norm=0.5)
OPTIMIZER = optim.make_optimizer(OPTIM, 10)
ROW_TARGETS = [1, 29, 2, 25, 1, 20, 3, 28]


@pytest.fixture(scope='module')
def uneven(tmp_path_factory):
  """8 rows of 30 tokens, with so many targets: a mean of means is elsewhere."""
  rng = np.random.default_rng(0)
  made = [
    example(
      str(i),
      'c' + 'a' * (29 - targets) + 'u' * targets,
      rng.integers(0, MODEL.vocab_size, 30),
    )
    for i, targets in enumerate(ROW_TARGETS)
  ]
  batch = one_batch(tmp_path_factory.mktemp('uneven'), made, seq_len=32)
  counts = batch.weights_BK.sum(axis=1).tolist()
  order = np.argsort(counts)[np.argsort(np.argsort(ROW_TARGETS))]
  batch = Batch(*(array[order] for array in batch))
  assert batch.weights_BK.sum(axis=1).tolist() == ROW_TARGETS
  return batch


@fast_jit
def step_on_one_device(state, batch):
  return make_step(GRAPHDEF, OPTIMIZER, microbatches=1)(state, batch)


def at_step_0(params):
  return TrainState(np.int32(0), params, OPTIMIZER.init(params))


@pytest.fixture(scope='module')
def reference(params, uneven):
  """The step on one device, in one micro-batch, without sharding."""
  mesh = sharding.make_mesh(MeshConfig(), devices=jax.devices()[:1])
  state, metrics = step_on_one_device(
    at_step_0(params), sharding.to_global(uneven, mesh)
  )
  for leaf in jax.tree.leaves(state):
    assert leaf.devices() == {jax.devices()[0]}
  return jax.device_get((state, metrics))


def step_of_trainer(params, batch, mesh_config, parts=1):
  """As the loop does it, but for the compiler's options."""
  optim_config = dataclasses.replace(OPTIM, accumulate=parts)
  trainer = make_trainer(MODEL, optim_config, mesh_config, steps=10)
  state = trainer.start(params)
  batch = sharding.to_global(batch, trainer.mesh)
  step = trainer.step.lower(state, batch).compile(compiler_options=FAST)
  return step(state, batch, ())  # nothing is frozen


def assert_same_step(result, reference, before):
  """Every parameter, moment and metric: float32 sums in another order.

  What is compared is the change of a parameter, not the parameter, which would
  hide it; the parameter's own rounding, 6e-8 of 1, is in the tolerance.
  """
  (state, metrics), (expected, expected_metrics) = result, reference
  assert int(state.step) == int(expected.step) == 1
  changes, expected_changes = (
    jax.tree.map(lambda a, b: np.asarray(a) - b, after, before)
    for after in (state.params, expected.params)
  )
  for path, leaf in jax.tree_util.tree_leaves_with_path(expected_changes):
    assert np.abs(leaf).max() > 1e-3, f'{sharding.path_name(path)} stands still'
  assert_trees_agree(changes, expected_changes, 1e-4)
  assert_trees_agree(state.opt_state, expected.opt_state, 1e-5)
  assert metrics['targets'] == expected_metrics['targets'] == sum(ROW_TARGETS)
  for name in ('loss', 'weight', 'grad_norm', 'nll_by_author'):
    np.testing.assert_allclose(
      metrics[name], expected_metrics[name], rtol=1e-5, err_msg=name
    )


def test_the_step_takes_the_gradient_of_the_mean_over_all_targets(
  params, uneven, reference
):
  """One division of one sum, and what optax makes of it."""
  total, count, gradient = sums(params, uneven)
  gradient = jax.tree.map(lambda g: np.asarray(g) / np.asarray(count), gradient)
  state = at_step_0(params)

  @fast_jit
  def update(gradient, state):
    updates, opt_state = OPTIMIZER.update(
      gradient, state.opt_state, state.params
    )
    return state._replace(
      step=state.step + 1,
      params=optax.apply_updates(state.params, updates),
      opt_state=opt_state,
    )

  nll_BK = np.asarray(nll_of(params, uneven))
  squares = [
    np.square(g, dtype=np.float64).sum() for g in jax.tree.leaves(gradient)
  ]
  metrics = {
    'loss': total / count,
    'targets': sum(ROW_TARGETS),
    'weight': count,
    'grad_norm': np.sqrt(sum(squares)),
    # Of all targets, the agent's too, which the loss does not score.
    'nll_by_author': [
      nll_BK[uneven.authors_BK == author].mean()
      if author in uneven.authors_BK
      else 0
      for author in Provenance
    ],
  }
  assert metrics['grad_norm'] > OPTIM.clip_norm, 'nothing is clipped'
  assert_same_step((update(gradient, state), metrics), reference, params)


MESHES = [
  MeshConfig(data=8),
  MeshConfig(data=1, fsdp=8),
  MeshConfig(data=2, fsdp=2, tensor=2),
]
MESH_NAMES = ['data=8', 'fsdp=8', '2x2x2']


@pytest.mark.parametrize('mesh', MESHES, ids=MESH_NAMES)
def test_eight_devices_make_the_step_of_one(params, uneven, reference, mesh):
  """With grouped heads: 4 query heads share 2 key-value heads."""
  state, metrics = step_of_trainer(params, uneven, mesh)
  down = state.params['blocks']['mlp']['down']
  assert len(down.devices()) == 8
  (size,) = {shard.data.size for shard in down.addressable_shards}
  assert size == down.size // (mesh.fsdp * mesh.tensor)
  assert_same_step((state, metrics), reference, params)


@pytest.mark.parametrize(
  ('parts', 'counts', 'mesh'),
  [
    (2, [7, 102], MeshConfig(data=8)),
    (4, [2, 49, 5, 53], MeshConfig(data=2, fsdp=2, tensor=2)),
  ],
)
def test_micro_batches_make_the_step_of_the_whole_batch(
  params, uneven, reference, parts, counts, mesh
):
  """Their counts differ: a mean of their means would be another step.

  Each row stands twice, so that a micro-batch has one for every device: sums
  and counts double, and their quotients are those of the reference.
  """
  assert [sum(ROW_TARGETS[part::parts]) for part in range(parts)] == counts
  twice = jax.tree.map(lambda x: np.concatenate([x, x]), uneven)
  state, metrics = step_of_trainer(params, twice, mesh, parts)
  metrics['targets'] //= 2
  metrics['weight'] /= 2
  assert_same_step((state, metrics), reference, params)


def test_a_batch_without_targets_leaves_the_model_as_it_is(params, uneven):
  """No NaN, and with no decay not a bit moves."""
  empty = uneven._replace(weights_BK=np.zeros_like(uneven.weights_BK))
  state, metrics = step_on_one_device(at_step_0(params), empty)
  for name in ('loss', 'targets', 'weight', 'grad_norm'):
    assert metrics[name] == 0
  jax.tree.map(np.testing.assert_array_equal, state.params, params)


def test_under_l_do_the_agents_words_as_targets_move_no_parameter(
  params, uneven
):
  """Other agent tokens as targets alone, and the step is the same to the bit;
  under L_obs it is another."""
  agent_BK = uneven.authors_BK == AGENT
  other = uneven._replace(
    targets_BK=np.where(agent_BK, 63 - uneven.targets_BK, uneven.targets_BK)
  )
  state, _ = step_on_one_device(at_step_0(params), uneven)
  same, _ = step_on_one_device(at_step_0(params), other)
  jax.tree.map(np.testing.assert_array_equal, state.params, same.params)

  all_BK = (uneven.authors_BK != 0).astype(np.float32)
  state, changed = (
    step_on_one_device(at_step_0(params), batch._replace(weights_BK=all_BK))[0]
    for batch in (uneven, other)
  )
  assert (state.params['head'] != changed.params['head']).any()
