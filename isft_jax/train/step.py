"""Training step and evaluation as pure functions. Callers jit and shard them.

step = make_step(graphdef, optimizer, microbatches=1)
state, metrics = step(state, batch)
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from isft_jax import losses
from isft_jax.models import lora
from isft_jax.models.decoder import GraphDef
from isft_jax.models.likelihood import target_nll, target_nll_and_kl
from isft_jax.types import Batch, Provenance, PyTree


class TrainState(NamedTuple):
  """State of training.

  Attributes:
    step: int32, steps done.
    params: parameters that learn, a nested dict of arrays.
    opt_state: state of the optimizer.
    frozen: parameters that do not learn: the base of adapters, or of an
      anchored objective. () without one. A checkpoint does not hold them.
  """

  step: jax.Array
  params: PyTree
  opt_state: PyTree
  frozen: PyTree = ()

  @property
  def model_params(self) -> PyTree:
    """All parameters of the model, those that learn and the frozen ones."""
    # Parameters that learn take the place of those of the base.
    return lora.join(self.frozen, self.params)


# Returns the same values with other shardings.
Move = Callable[[PyTree], PyTree]
SumAndCount = tuple[jax.Array, jax.Array]
# (params, batch) -> (sum, count) of the loss by author, and of the scored loss
Evaluate = Callable[[PyTree, Batch[jax.Array]], tuple[SumAndCount, SumAndCount]]
# (state, batch) -> (state, metrics)
Step = Callable[
  [TrainState, Batch[jax.Array]], tuple[TrainState, dict[str, PyTree]]
]
# (gradient of the sum, sum, count, (sum, count) by author) of the loss, and
# (sum, count) of the distance from the base
_Sums = tuple[PyTree, jax.Array, jax.Array, SumAndCount, SumAndCount]


def _identity(tree: PyTree) -> PyTree:
  return tree


def is_finite(state: PyTree) -> jax.Array:
  """Returns whether all numbers of a state are finite, as a scalar."""
  return jnp.stack(
    [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(state)]
  ).all()


class Anchor(NamedTuple):
  """The base that anchored objectives hold the agent's tokens near.

  Attributes:
    graphdef: structure of the base.
    kinds: of each mixture component, how it is anchored; see
      `objectives.anchor`. All that are anchored are so in the same way.
  """

  graphdef: GraphDef
  kinds: tuple[str, ...]

  @property
  def is_reverse(self) -> bool:
    """Whether the distance is KL(model || base)."""
    return 'reverse' in self.kinds

  def params(self, state: TrainState) -> PyTree:
    """Returns the parameters of the base."""
    if 'average' not in self.kinds:
      return state.frozen
    # The last transformation of the optimizer keeps the average.
    return lora.join(state.frozen, state.opt_state[-1].params)

  def holds(self, authors_BK: jax.Array) -> jax.Array:
    """Returns which targets have the distance from the base as their loss."""
    table = np.zeros((len(self.kinds), len(Provenance)), bool)
    table[:, Provenance.AGENT] = [bool(kind) for kind in self.kinds]
    return jnp.asarray(table.reshape(-1))[authors_BK]


def make_evaluate(graphdef: GraphDef, in_use: Move = _identity) -> Evaluate:
  """Returns a function that measures the loss by author, and the scored loss.

  Args:
    graphdef: structure of the model.
    in_use: parameters -> the same, sharded for the computation.

  Returns:
    (params, batch) -> (by author, scored), each a (sum, count) in nats. Those
    by author are [len(Provenance)] without the batch's weights; those of the
    scored loss are scalars with them.
  """

  def evaluate(
    params: PyTree, batch: Batch[jax.Array]
  ) -> tuple[SumAndCount, SumAndCount]:
    # -log p of each target, before any weight.
    nll_BK = target_nll(graphdef, in_use(params), batch)
    return (
      losses.by_author(nll_BK, batch.authors_BK),
      losses.weighted_sum(nll_BK, batch.weights_BK),
    )

  return evaluate


def make_step(
  graphdef: GraphDef,
  optimizer: optax.GradientTransformation,
  microbatches: int,
  in_use: Move = _identity,
  at_rest: Move = _identity,
  components: int = 1,
  anchor: Anchor | None = None,
) -> Step:
  """Returns a function that updates the parameters with one batch.

  The objective's weights are inside the differentiated loss. With several
  microbatches, gradients of sums and the counts are added, and divided once at
  the end. The step is therefore the same for every number of them.

  Args:
    graphdef: structure of the model.
    optimizer: gradient transformation.
    microbatches: their number per step.
    in_use: parameters -> the same, sharded for the computation.
    at_rest: gradients -> the same, sharded like the optimizer's moments. No
      device then sums more than its own shard.
    components: number of mixture components in a batch.
    anchor: the base, if an objective is anchored.

  Returns:
    (state, batch) -> (state, metrics). Two of the metrics are `targets`, the
    number of scored tokens, and `weight`, the sum of their weights, which is
    the divisor of the loss. If each trajectory weighs 1, `weight` is the number
    of trajectories. With an anchor, `anchor_kl` is the mean distance from the
    base at the agent's tokens of anchored objectives.
  """

  # The sum is differentiated, and not the mean: sums of microbatches can be
  # added.
  def loss_sum(
    params: PyTree, frozen: PyTree, base: PyTree, batch: Batch[jax.Array]
  ) -> tuple[jax.Array, tuple[jax.Array, SumAndCount, SumAndCount]]:
    whole = in_use(lora.join(frozen, params))
    if anchor is None:
      loss_BK = nll_BK = target_nll(graphdef, whole, batch)
      held = jnp.zeros(()), jnp.zeros(())
    else:
      nll_BK, kl_BK = target_nll_and_kl(
        *(graphdef, whole, anchor.graphdef, in_use(base), batch),
        reverse=anchor.is_reverse,
      )
      # Tokens without weight are not held.
      is_held_BK = anchor.holds(batch.authors_BK) & (batch.weights_BK != 0)
      loss_BK = jnp.where(is_held_BK, kl_BK, nll_BK)
      held = losses.weighted_sum(kl_BK, is_held_BK.astype(kl_BK.dtype))
    # A weight of 0 removes a target from the gradient exactly.
    total, count = losses.weighted_sum(loss_BK, batch.weights_BK)
    authors = losses.by_author(nll_BK, batch.authors_BK, components)
    return total, (count, authors, held)

  def gradient_sum(
    params: PyTree, frozen: PyTree, base: PyTree, batch: Batch[jax.Array]
  ) -> _Sums:
    # Only by `params`: no gradient of a frozen kernel is computed.
    (total, (count, authors, held)), gradient = jax.value_and_grad(
      loss_sum, has_aux=True
    )(params, frozen, base, batch)
    # Reduced to shards here, once per microbatch, so that the accumulated
    # gradient is sharded too.
    return at_rest(gradient), total, count, authors, held

  def accumulated(
    params: PyTree, frozen: PyTree, base: PyTree, batch: Batch[jax.Array]
  ) -> _Sums:
    # Microbatch m of M takes rows m, m + M, ..., so no row changes its device.
    split = jax.tree.map(
      lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), batch
    )

    def add(sums: _Sums, microbatch: Batch[jax.Array]) -> tuple[_Sums, None]:
      new = gradient_sum(params, frozen, base, microbatch)
      return jax.tree.map(jnp.add, sums, new), None

    # A scan, so that only one microbatch's activations exist at a time.
    first = jax.tree.map(lambda x: x[0], split)
    zeros = jax.tree.map(
      lambda x: jnp.zeros(x.shape, x.dtype),
      jax.eval_shape(gradient_sum, params, frozen, base, first),
    )
    return jax.lax.scan(add, zeros, split)[0]

  def step(
    state: TrainState, batch: Batch[jax.Array]
  ) -> tuple[TrainState, dict[str, PyTree]]:
    # One microbatch needs no scan.
    sums = gradient_sum if microbatches == 1 else accumulated
    base = anchor.params(state) if anchor else ()
    gradient, total, count, authors, held = sums(
      state.params, state.frozen, base, batch
    )
    # The only division: the gradient of sum / count, as count is a constant.
    gradient = losses.normalize(gradient, count)
    # The optimizer gets the parameters too, for weight decay.
    updates, opt_state = optimizer.update(
      gradient, state.opt_state, state.params
    )
    # [components * provenance] -> [components, provenance].
    by_component = [sums_P.reshape(components, -1) for sums_P in authors]
    # Metrics stay on the devices until they are flushed.
    metrics: dict[str, PyTree] = {
      'loss': losses.normalize(total, count),
      'targets': jnp.sum(batch.weights_BK != 0),
      'weight': count,
      # Padding has segment 0, and author PAD = 0.
      'tokens': jnp.sum(batch.segment_ids_BL != 0),
      'row_fill': jnp.mean(batch.segment_ids_BL != 0),
      'target_fill': jnp.mean(batch.authors_BK != 0),
      'grad_norm': optax.tree.norm(gradient),
      'nll_by_author': losses.normalize(*(x.sum(0) for x in by_component)),
    }
    if anchor:
      metrics['anchor_kl'] = losses.normalize(*held)
    if components > 1:
      metrics['nll_by_source'] = losses.normalize(*by_component)
    return state._replace(
      step=state.step + 1,
      params=optax.apply_updates(state.params, updates),
      opt_state=opt_state,
    ), metrics

  return step
