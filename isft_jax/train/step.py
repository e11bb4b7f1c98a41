"""One training step: a pure function, jitted with shardings by its caller."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from isft_jax import losses
from isft_jax.models.decoder import GraphDef
from isft_jax.models.likelihood import target_nll
from isft_jax.types import Batch, PyTree


class TrainState(NamedTuple):
  """What a step changes. A checkpoint holds all of it."""

  step: jax.Array  # int32, steps done
  params: PyTree
  opt_state: PyTree


Move = Callable[[PyTree], PyTree]  # to other places on the mesh
SumAndCount = tuple[jax.Array, jax.Array]
# (params, batch) -> (sum, count) of the loss by author
Evaluate = Callable[[PyTree, Batch[jax.Array]], SumAndCount]
# (state, batch) -> (state, metrics)
Step = Callable[
  [TrainState, Batch[jax.Array]], tuple[TrainState, dict[str, PyTree]]
]
# gradient, sum and count of the loss, the same two by author
_Sums = tuple[PyTree, jax.Array, jax.Array, SumAndCount]


def _as_they_are(tree: PyTree) -> PyTree:
  return tree


def make_evaluate(graphdef: GraphDef, in_use: Move = _as_they_are) -> Evaluate:
  """Returns evaluate(params, batch) -> (sum, count) of the loss by author."""

  def evaluate(params: PyTree, batch: Batch[jax.Array]) -> SumAndCount:
    nll_BK = target_nll(graphdef, in_use(params), batch)
    return losses.by_author(nll_BK, batch.authors_BK)

  return evaluate


def make_step(
  graphdef: GraphDef,
  optimizer: optax.GradientTransformation,
  parts: int,
  in_use: Move = _as_they_are,
  at_rest: Move = _as_they_are,
  sources: int = 1,
) -> Step:
  """Returns step(state, batch) -> (state, metrics).

  Of the metrics, `targets` is the number of scored tokens. `weight` is what
  the loss is divided by: the sum of their weights, which is the number of
  trajectories if each of them weighs one.

  The weights of the objective enter here, inside the differentiated loss. With
  parts > 1 the rows go through in that many micro-batches; gradients of sums
  and counts are added up and divided once, so that the step is the same.

  in_use: parameters -> the same, where the model wants them on a mesh.
  at_rest: gradients -> the same, where the optimizer has its moments: no device
    adds up more than its share of them.
  sources: how many a batch mixes.
  """

  def loss_sum(
    params: PyTree, batch: Batch[jax.Array]
  ) -> tuple[jax.Array, tuple[jax.Array, SumAndCount]]:
    nll_BK = target_nll(graphdef, in_use(params), batch)
    total, count = losses.weighted_sum(nll_BK, batch.weights_BK)
    authors = losses.by_author(nll_BK, batch.authors_BK, sources)
    return total, (count, authors)

  def gradient_sum(params: PyTree, batch: Batch[jax.Array]) -> _Sums:
    (total, (count, authors)), gradient = jax.value_and_grad(
      loss_sum, has_aux=True
    )(params, batch)
    return at_rest(gradient), total, count, authors

  def accumulated(params: PyTree, batch: Batch[jax.Array]) -> _Sums:
    # Micro-batch m takes rows m, m + parts, ...: no row changes its device.
    split = jax.tree.map(
      lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch
    )

    def add(sums: _Sums, part: Batch[jax.Array]) -> tuple[_Sums, None]:
      return jax.tree.map(jnp.add, sums, gradient_sum(params, part)), None

    zeros = jax.tree.map(
      lambda x: jnp.zeros(x.shape, x.dtype),
      jax.eval_shape(gradient_sum, params, jax.tree.map(lambda x: x[0], split)),
    )
    return jax.lax.scan(add, zeros, split)[0]

  def step(
    state: TrainState, batch: Batch[jax.Array]
  ) -> tuple[TrainState, dict[str, PyTree]]:
    sums = gradient_sum if parts == 1 else accumulated
    gradient, total, count, authors = sums(state.params, batch)
    gradient = losses.normalize(gradient, count)
    updates, opt_state = optimizer.update(
      gradient, state.opt_state, state.params
    )
    by_source = [sums_P.reshape(sources, -1) for sums_P in authors]
    metrics: dict[str, PyTree] = {
      'loss': losses.normalize(total, count),
      'targets': jnp.sum(batch.weights_BK != 0),
      'weight': count,
      'tokens': jnp.sum(batch.segment_ids_BL != 0),
      'row_fill': jnp.mean(batch.segment_ids_BL != 0),
      'target_fill': jnp.mean(batch.authors_BK != 0),
      'grad_norm': optax.tree.norm(gradient),
      'nll_by_author': losses.normalize(*(x.sum(0) for x in by_source)),
    }
    if sources > 1:
      metrics['nll_by_source'] = losses.normalize(*by_source)
    return state._replace(
      step=state.step + 1,
      params=optax.apply_updates(state.params, updates),
      opt_state=opt_state,
    ), metrics

  return step
