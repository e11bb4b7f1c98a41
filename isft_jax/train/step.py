"""One training step: a pure function, jitted with shardings by its caller."""

import jax
import jax.numpy as jnp
import optax

from isft_jax import losses
from isft_jax.models.likelihood import target_nll
from isft_jax.types import Batch


def _as_they_are(tree):
  return tree


def make_evaluate(graphdef, in_use=_as_they_are):
  """Returns evaluate(params, batch) -> (sum, count) of the loss by author."""

  def evaluate(params, batch: Batch):
    nll_BK = target_nll(graphdef, in_use(params), batch)
    return losses.by_author(nll_BK, batch.authors_BK)

  return evaluate


def make_step(
  graphdef,
  optimizer: optax.GradientTransformation,
  parts: int,
  in_use=_as_they_are,
  at_rest=_as_they_are,
  sources: int = 1,
):
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

  def loss_sum(params, batch: Batch):
    nll_BK = target_nll(graphdef, in_use(params), batch)
    total, count = losses.weighted_sum(nll_BK, batch.weights_BK)
    authors = losses.by_author(nll_BK, batch.authors_BK, sources)
    return total, (count, authors)

  def gradient_sum(params, batch: Batch):
    (total, (count, authors)), gradient = jax.value_and_grad(
      loss_sum, has_aux=True
    )(params, batch)
    return at_rest(gradient), total, count, authors

  def accumulated(params, batch: Batch):
    # Micro-batch m takes rows m, m + parts, ...: no row changes its device.
    split = jax.tree.map(
      lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch
    )

    def add(sums, part):
      return jax.tree.map(jnp.add, sums, gradient_sum(params, part)), None

    zeros = jax.tree.map(
      lambda x: jnp.zeros(x.shape, x.dtype),
      jax.eval_shape(gradient_sum, params, jax.tree.map(lambda x: x[0], split)),
    )
    return jax.lax.scan(add, zeros, split)[0]

  def step(state, batch: Batch):
    sums = gradient_sum if parts == 1 else accumulated
    gradient, total, count, authors = sums(state.params, batch)
    gradient = losses.normalize(gradient, count)
    updates, opt_state = optimizer.update(
      gradient, state.opt_state, state.params
    )
    by_source = [sums_P.reshape(sources, -1) for sums_P in authors]
    metrics = {
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
