"""Beliefs over a finite set of hypotheses, when some slots are one's own.

  w_t(h)  prop. to  w_0(h) prod over i <= t with gate_i = 0 of p_h(z_i | z_<i)

What the agent wrote (gate 1) is an intervention: it says nothing about the
world and leaves the belief as it was. What the world wrote (gate 0) is evidence
(de Freitas and Ortega, 2026, section 5). An all-zero gate is the naive
accounting, in which an agent takes its own words for evidence.

The letters of this room: E episodes, T slots, H hypotheses, S symbols.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

# A prior typed in decimals misses one by rounding, never by this much.
_SUM_TOLERANCE = 1e-9

# De Freitas and Ortega's example: how p_B (first) and p_A write A and B.
TWO_PRIOR_H = np.array([0.35, 0.65])
TWO_HS = np.array([[0.2, 0.8], [0.9, 0.1]])


def update(
  log_belief_H: jax.Array, log_likelihood_H: jax.Array, gate: jax.Array
) -> jax.Array:
  """Returns the log belief after one more slot, normalised.

    w(h) prop. to w(h) p_h(z)   where gate = 0;   w(h)   where gate = 1

  log_belief_H, log_likelihood_H: last axis H; any axes before it.
  gate: 1 where the agent wrote the slot; the axes before H.

  Where no hypothesis allows what the world wrote, the result is nan.
  """
  # A product with the gate would give 0 * -inf = nan for an agent that wrote
  # what some hypothesis excludes.
  own = jnp.expand_dims(gate == 1, -1)
  log_belief_H = log_belief_H + jnp.where(own, 0, log_likelihood_H)
  total = jax.nn.logsumexp(log_belief_H, axis=-1, keepdims=True)
  return log_belief_H - total


@jax.jit
def log_posteriors(
  log_prior_H: jax.Array, log_likelihood_ETH: jax.Array, gate_ET: jax.Array
) -> jax.Array:
  """Returns log_belief_ETH, the log belief after each slot of each episode.

  Nothing is checked: `posterior` is the same for one history, and does.
  """

  def slot(
    log_belief_H: jax.Array, written: tuple[jax.Array, jax.Array]
  ) -> tuple[jax.Array, jax.Array]:
    log_belief_H = update(log_belief_H, *written)
    return log_belief_H, log_belief_H

  def history(log_likelihood_TH: jax.Array, gate_T: jax.Array) -> jax.Array:
    written = log_likelihood_TH, gate_T
    return jax.lax.scan(slot, log_prior_H, written)[1]

  return jax.vmap(history)(log_likelihood_ETH, gate_ET)


def posterior(
  prior_H: np.ndarray, likelihood_TH: npt.ArrayLike, gate_T: npt.ArrayLike
) -> np.ndarray:
  """Returns float64 weights_TH: the belief after each slot.

  prior_H: the belief before the first slot, sums to one.
  likelihood_TH: p_h(z_t | z_<t), what each hypothesis gave to the symbol that
    was written, whoever wrote it.
  gate_T: 1 where the agent wrote the slot, 0 where the world did.

  Raises ValueError for shapes that do not fit, a prior that is no distribution,
  a likelihood that is negative or not finite, a gate other than 0 and 1, and
  for evidence that every hypothesis in the prior rules out.

  Source: de Freitas and Ortega (2026), section 5; logarithms are ours, so that
  long histories do not underflow.
  """
  prior_H = _checked_prior(prior_H)
  likelihood_TH = np.asarray(likelihood_TH, np.float64)
  gate_T = np.asarray(gate_T)
  if likelihood_TH.ndim != 2 or likelihood_TH.shape[1] != prior_H.size:
    raise ValueError(
      f'likelihood_TH has shape {likelihood_TH.shape}; the prior is over '
      f'{prior_H.size} hypotheses'
    )
  if gate_T.shape != likelihood_TH.shape[:1]:
    raise ValueError(
      f'gate_T has shape {gate_T.shape} for {len(likelihood_TH)} slots'
    )
  if not np.isin(gate_T, (0, 1)).all():
    raise ValueError('gate_T holds something else than 0 and 1')
  if not (np.isfinite(likelihood_TH) & (likelihood_TH >= 0)).all():
    raise ValueError('likelihood_TH is negative or not finite somewhere')

  with jax.enable_x64(True), np.errstate(divide='ignore'):
    weights_TH = np.exp(
      log_posteriors(
        np.log(prior_H), np.log(likelihood_TH)[None], gate_T[None]
      )[0]
    )
  impossible_T = np.isnan(weights_TH).any(axis=1)
  if impossible_T.any():
    slot = int(np.argmax(impossible_T))
    raise ValueError(f'slot {slot}: no hypothesis allows what the world wrote')
  return weights_TH


def predictive(prior_H: np.ndarray, p_HS: np.ndarray) -> np.ndarray:
  """Returns float64 p_S: what the mixture expects next, sum_h w(h) p_h(s).

  prior_H: the belief now, sums to one; a row of `posterior` serves.
  p_HS: each hypothesis's probability of each symbol.

  Raises ValueError for shapes that do not fit or a prior that is no
  distribution. Source: de Freitas and Ortega (2026), section 5.
  """
  prior_H = _checked_prior(prior_H)
  p_HS = np.asarray(p_HS, np.float64)
  if p_HS.ndim != 2 or p_HS.shape[0] != prior_H.size:
    raise ValueError(
      f'p_HS has shape {p_HS.shape}; the prior is over {prior_H.size} '
      'hypotheses'
    )
  return prior_H @ p_HS


def two_steps() -> dict[str, list[float]]:
  """Returns accounting -> the weight of p_B after each of two slots.

  The mixture expects A, so the agent writes it; then the world writes B.
  Source: de Freitas and Ortega (2026), section 5.
  """
  agents = int(predictive(TWO_PRIOR_H, TWO_HS).argmax())
  worlds = 1 - agents
  likelihood_TH = TWO_HS.T[[agents, worlds]]
  gates = {'interventional': [1, 0], 'naive': [0, 0]}
  return {
    name: posterior(TWO_PRIOR_H, likelihood_TH, gate_T)[:, 0].tolist()
    for name, gate_T in gates.items()
  }


def _checked_prior(prior_H: np.ndarray) -> np.ndarray:
  prior_H = np.asarray(prior_H, np.float64)
  if prior_H.ndim != 1 or not prior_H.size:
    raise ValueError(f'prior_H has shape {prior_H.shape}; one axis is needed')
  # Written so that nan fails too.
  if not ((prior_H >= 0).all() and abs(prior_H.sum() - 1) <= _SUM_TOLERANCE):
    raise ValueError(
      f'prior_H sums to {prior_H.sum()} with smallest entry {prior_H.min()}; '
      'a prior is non-negative and sums to 1'
    )
  return prior_H
