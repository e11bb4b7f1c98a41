"""The step over a table of losses: every sum, quotient and metric by hand.

The model is a table: a target v costs nll_V[v]. So the gradient with respect to
nll_V[v] is the sum of the weights of the slots whose target is v, over the
count. All numbers are powers of two and sums of them: float32 has them exactly.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from isft_jax.train import step as step_lib
from isft_jax.train.step import TrainState
from isft_jax.types import Batch, Provenance
from tests.fixtures import fast_jit

P = len(Provenance)
T, U, A, D = (
  Provenance.TEMPLATE,
  Provenance.USER,
  Provenance.AGENT,
  Provenance.DEMONSTRATION,
)
NLL_V = np.float32([1, 2, 4, 8])
# Learning rate 1, a decay of 1/2, a momentum of 1/2.
OPTIMIZER = optax.chain(
  optax.add_decayed_weights(0.5), optax.trace(0.5), optax.scale(-1.0)
)

#         author, target, weight; the agent's tokens weigh nothing
SLOTS = [
  [(U, 0, 1.0), (A, 3, 0.0), (T, 2, 1.0)],
  [(U, 1, 0.5), (A, 3, 0.0), (0, 0, 0.0)],
  [(D, 2, 4.0), (U, 1, 1.5), (A, 2, 0.0)],
  [(0, 0, 0.0), (0, 0, 0.0), (U, 1, 0.0)],
]
BATCH = Batch(
  tokens_BL=np.int32([[9, 9, 9, 0], [9, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]),
  positions_BL=np.zeros((4, 4), np.int32),
  # 6 of 16 columns hold a token, whatever its id and its document.
  segment_ids_BL=np.int32(
    [[1, 1, 2, 0], [1, 0, 0, 0], [1, 2, 0, 0], [0, 0, 0, 0]]
  ),
  columns_BK=np.zeros((4, 3), np.int32),
  targets_BK=np.int32([[target for _, target, _ in row] for row in SLOTS]),
  weights_BK=np.float32([[weight for *_, weight in row] for row in SLOTS]),
  authors_BK=np.int32([[author for author, *_ in row] for row in SLOTS]),
)
# Row 2 is of another source.
MIXED = BATCH._replace(
  authors_BK=BATCH.authors_BK + P * np.int32([[0], [0], [1], [0]])
)


@pytest.fixture(autouse=True)
def table(monkeypatch):
  """The table in place of a decoder, which is asked for by its graph."""

  def target_nll(graphdef, params, batch):
    assert graphdef == 'a table'
    return params['nll_V'][batch.targets_BK]

  monkeypatch.setattr(step_lib, 'target_nll', target_nll)


def start():
  params = {'nll_V': jnp.asarray(NLL_V)}
  return TrainState(jnp.int32(6), params, OPTIMIZER.init(params))


def take_step(batch=BATCH, state=None, parts=1, **arguments):
  step = step_lib.make_step('a table', OPTIMIZER, parts, **arguments)
  return fast_jit(step)(state or start(), batch)


def by_name(nll_P):
  return {
    author.name: float(nll)
    for author, nll in zip(Provenance, nll_P, strict=True)
    if nll
  }


@pytest.mark.parametrize('parts', [1, 2, 4])
def test_the_parameters_moves_are_weights_over_the_count(parts):
  """Twice, so that the second step has the momentum of the first.

  entry           0      1      2     3
  weights         1      2      5     0        the count is 8
  gradient      1/8    1/4    5/8     0        of the agent's target: zero
  """
  gradient_V = np.float32([1, 2, 5, 0]) / 8
  state, _ = take_step(parts=parts)
  first_V = gradient_V + NLL_V / 2
  np.testing.assert_array_equal(state.params['nll_V'], NLL_V - first_V)
  assert int(state.step) == 7

  again, _ = take_step(state=state, parts=parts)
  second_V = gradient_V + (NLL_V - first_V) / 2 + first_V / 2
  np.testing.assert_array_equal(
    again.params['nll_V'], NLL_V - first_V - second_V
  )
  assert int(again.step) == 8


@pytest.mark.parametrize('parts', [1, 2, 4])
def test_the_metrics_of_a_step_in_numbers(parts):
  _, metrics = take_step(parts=parts)
  nll_by_author = by_name(metrics.pop('nll_by_author'))
  gradient = np.float32([1, 2, 5, 0]) / 8
  assert {name: float(x) for name, x in metrics.items()} == {
    'loss': (1 * 1 + 2 * 2 + 5 * 4) / 8,
    'targets': 5,  # with a weight
    'weight': 8,
    'tokens': 6,
    'row_fill': 6 / 16,
    'target_fill': 9 / 12,  # slots of an author, whatever they weigh
    'grad_norm': pytest.approx(np.linalg.norm(gradient), rel=1e-6),
  }
  assert nll_by_author == {
    'PAD': 1,
    'TEMPLATE': 4,
    'USER': (1 + 2 + 2 + 2) / 4,  # of weights 1, 1/2, 3/2 and 0: unweighted
    'AGENT': pytest.approx((8 + 8 + 4) / 3, rel=1e-6),
    'DEMONSTRATION': 4,
  }


@pytest.mark.parametrize(
  ('parts', 'rows'),
  [
    (1, [[0, 1, 2, 3]]),
    (2, [[0, 2], [1, 3]]),
    (4, [[0], [1], [2], [3]]),
  ],
)
def test_microbatch_m_of_M_takes_every_Mth_row_from_m_on(
  parts, rows, monkeypatch
):
  """So no row leaves its device, and the rows of one are in memory at once."""
  batch, seen = BATCH._replace(tokens_BL=np.int32([[0], [1], [2], [3]])), []

  def target_nll(graphdef, params, batch):
    if not isinstance(batch.tokens_BL, jax.core.Tracer):  # not for its shape
      seen.append(batch.tokens_BL[:, 0].tolist())
    return params['nll_V'][batch.targets_BK]

  monkeypatch.setattr(step_lib, 'target_nll', target_nll)
  with jax.disable_jit():
    step_lib.make_step('a table', OPTIMIZER, parts)(start(), batch)
  assert seen == rows


def test_parameters_in_bfloat16_stay_in_bfloat16():
  """The count is float32, and so are the gradient and the update."""
  params = {'nll_V': jnp.asarray(NLL_V, jnp.bfloat16)}
  state = TrainState(jnp.int32(0), params, optax.sgd(1.0).init(params))
  step = step_lib.make_step('a table', optax.sgd(1.0), 1)
  state, _ = fast_jit(step)(state, BATCH)
  assert state.params['nll_V'].dtype == jnp.bfloat16
  expected_V = NLL_V - np.float32([1, 2, 5, 0]) / 8
  np.testing.assert_array_equal(state.params['nll_V'], expected_V)


@pytest.mark.parametrize('parts', [1, 2])
def test_a_step_over_two_components_tells_them_apart(parts):
  """The update and the losses by author are those of one source."""
  state, metrics = take_step(MIXED, parts=parts, components=2)
  same, alone = take_step(BATCH, parts=parts)
  assert metrics['nll_by_source'].shape == (2, P)
  assert [by_name(nll_P) for nll_P in metrics.pop('nll_by_source')] == [
    {
      'PAD': 1,
      'TEMPLATE': 4,
      'USER': pytest.approx((1 + 2 + 2) / 3, rel=1e-6),
      'AGENT': 8,
    },
    {'USER': 2, 'AGENT': 4, 'DEMONSTRATION': 4},
  ]
  assert metrics.keys() == alone.keys()
  for name in metrics:
    np.testing.assert_array_equal(metrics[name], alone[name], err_msg=name)
  jax.tree.map(np.testing.assert_array_equal, state, same)


@pytest.mark.parametrize('parts', [1, 2])
def test_parameters_in_use_and_gradients_at_rest_pass_through_the_hooks(parts):
  """Twice the parameters in use cost twice as much; the hook for gradients
  sees sums, before the count divides them."""
  state, metrics = take_step(
    parts=parts,
    in_use=lambda params: {'nll_V': 2 * params['nll_V']},
    at_rest=lambda gradient: {'nll_V': gradient['nll_V'] / 4},
  )
  assert metrics['loss'] == 2 * (1 * 1 + 2 * 2 + 5 * 4) / 8
  gradient_V = 2 * np.float32([1, 2, 5, 0]) / 8 / 4
  np.testing.assert_array_equal(
    state.params['nll_V'], NLL_V - gradient_V - NLL_V / 2
  )


def test_an_evaluation_returns_sums_and_counts_by_author():
  """Sums, so that batches add up before anything is divided."""
  evaluate = fast_jit(step_lib.make_evaluate('a table'))
  (total_P, count_P), scored = evaluate({'nll_V': NLL_V}, BATCH)
  assert {
    author.name: (float(total_P[author]), float(count_P[author]))
    for author in Provenance
    if count_P[author]
  } == {
    'PAD': (3, 3),
    'TEMPLATE': (4, 1),
    'USER': (7, 4),
    'AGENT': (20, 3),
    'DEMONSTRATION': (4, 1),
  }
  twice = step_lib.make_evaluate(
    'a table', lambda params: {'nll_V': 2 * params['nll_V']}
  )
  by_author, twice_scored = fast_jit(twice)({'nll_V': NLL_V}, BATCH)
  np.testing.assert_array_equal(by_author[0], 2 * total_P)
  # With the weights of the batch, as a step counts them.
  _, metrics = take_step()
  assert float(scored[1]) == metrics['weight']
  assert float(scored[0] / scored[1]) == metrics['loss']
  assert [*map(float, twice_scored)] == [2 * float(scored[0]), scored[1]]
