"""Bayesian mixture over hypotheses, with a gate for slots the agent wrote.

  w_t(h)  prop. to  w_0(h) prod over i <= t with gate_i = 0 of p_h(z_i | z_<i)

A slot that the agent wrote (gate 1) is an intervention: it is no evidence about
the world, and the belief does not change. A slot that the world wrote (gate 0)
is evidence (de Freitas and Ortega, 2026, section 5). An all-zero gate is the
naive accounting, in which the agent's own words are evidence.

Letters: E episodes, T slots, H hypotheses, S symbols.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

# The sum of a prior typed in decimals differs from 1 by less than this.
_SUM_TOLERANCE = 1e-9

# De Freitas and Ortega's example: the probabilities of the symbols A and B
# under the hypotheses p_B (first) and p_A.
TWO_PRIOR_H = np.array([0.35, 0.65])
TWO_HS = np.array([[0.2, 0.8], [0.9, 0.1]])


def update(
  log_belief_H: jax.Array, log_likelihood_H: jax.Array, gate: jax.Array
) -> jax.Array:
  """Returns the log belief after one more slot, normalised.

    w(h) prop. to w(h) p_h(z)   where gate = 0;   w(h)   where gate = 1

  Args:
    log_belief_H: log w(h) [..., H].
    log_likelihood_H: log p_h(z) [..., H].
    gate: 1 if the agent wrote the slot, else 0 [...].

  Returns:
    The log belief [..., H]; nan if no hypothesis allows the world's symbol.
  """
  # A product with the gate would give 0 * -inf = nan for an agent's symbol that
  # some hypothesis excludes.
  own = jnp.expand_dims(gate == 1, -1)
  log_belief_H = log_belief_H + jnp.where(own, 0, log_likelihood_H)
  total = jax.nn.logsumexp(log_belief_H, axis=-1, keepdims=True)
  return log_belief_H - total


@jax.jit
def log_posteriors(
  log_prior_H: jax.Array, log_likelihood_ETH: jax.Array, gate_ET: jax.Array
) -> jax.Array:
  """Returns the log belief after each slot of each episode.

  The arguments are not checked. `posterior` computes the same for one history
  and checks them.

  Args:
    log_prior_H: log w_0(h), the same for all episodes.
    log_likelihood_ETH: log p_h(z_t | z_<t).
    gate_ET: 1 if the agent wrote the slot, else 0.

  Returns:
    log_belief_ETH.
  """

  def slot(
    log_belief_H: jax.Array, written: tuple[jax.Array, jax.Array]
  ) -> tuple[jax.Array, jax.Array]:
    # The belief is both the carry of the scan and its output.
    log_belief_H = update(log_belief_H, *written)
    return log_belief_H, log_belief_H

  def history(log_likelihood_TH: jax.Array, gate_T: jax.Array) -> jax.Array:
    written = log_likelihood_TH, gate_T
    return jax.lax.scan(slot, log_prior_H, written)[1]

  return jax.vmap(history)(log_likelihood_ETH, gate_ET)


def posterior(
  prior_H: np.ndarray, likelihood_TH: npt.ArrayLike, gate_T: npt.ArrayLike
) -> np.ndarray:
  """Returns the belief after each slot of one history, float64 [T, H].

  Args:
    prior_H: the belief before the first slot; sums to one.
    likelihood_TH: p_h(z_t | z_<t) of the symbol in each slot, for both writers.
    gate_T: 1 if the agent wrote the slot, 0 if the world did.

  Raises:
    ValueError: the shapes do not match; the prior is not a distribution; a
      likelihood is negative or not finite; a gate is not 0 or 1; or every
      hypothesis in the prior excludes a symbol of the world.

  Source: de Freitas and Ortega (2026), section 5; the logarithms are ours, so
  that long histories do not underflow.
  """
  # Check the arguments, because the scan would accept wrong values.
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
    raise ValueError('gate_T must hold only 0 and 1')
  if not (np.isfinite(likelihood_TH) & (likelihood_TH >= 0)).all():
    raise ValueError(
      'likelihood_TH has entries that are negative or not finite'
    )

  # log(0) = -inf is meant: the hypothesis excludes the symbol.
  with jax.enable_x64(True), np.errstate(divide='ignore'):
    weights_TH = np.exp(
      log_posteriors(
        np.log(prior_H), np.log(likelihood_TH)[None], gate_T[None]
      )[0]
    )
  # update() gives nan if all hypotheses have probability 0.
  impossible_T = np.isnan(weights_TH).any(axis=1)
  if impossible_T.any():
    slot = int(np.argmax(impossible_T))
    raise ValueError(f"slot {slot}: no hypothesis allows the world's symbol")
  return weights_TH


def predictive(prior_H: np.ndarray, p_HS: np.ndarray) -> np.ndarray:
  """Returns the mixture's distribution of the next symbol, float64 [S].

    xi(s) = sum_h w(h) p_h(s)

  Args:
    prior_H: the current belief; sums to one. A row of `posterior` is valid.
    p_HS: each hypothesis's probability of each symbol.

  Raises:
    ValueError: the shapes do not match, or the prior is not a distribution.

  Source: de Freitas and Ortega (2026), section 5.
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
  """Returns the weight of p_B after each of two slots, keyed by accounting.

  The agent writes A, the symbol that the mixture predicts. Then the world
  writes B.

  Source: de Freitas and Ortega (2026), section 5.
  """
  # The agent writes the likelier of two symbols, then the world the other one.
  agents = int(predictive(TWO_PRIOR_H, TWO_HS).argmax())
  worlds = 1 - agents
  # Probability of each slot's symbol, under both hypotheses.
  likelihood_TH = TWO_HS.T[[agents, worlds]]
  gates = {'interventional': [1, 0], 'naive': [0, 0]}
  return {
    name: posterior(TWO_PRIOR_H, likelihood_TH, gate_T)[:, 0].tolist()
    for name, gate_T in gates.items()
  }


def _checked_prior(prior_H: np.ndarray) -> np.ndarray:
  prior_H = np.asarray(prior_H, np.float64)
  if prior_H.ndim != 1 or not prior_H.size:
    raise ValueError(f'prior_H has shape {prior_H.shape}; must have one axis')
  # "not (a and b)" also refuses nan, for which every comparison is false.
  if not ((prior_H >= 0).all() and abs(prior_H.sum() - 1) <= _SUM_TOLERANCE):
    raise ValueError(
      f'prior_H sums to {prior_H.sum()} with smallest entry {prior_H.min()}; '
      'a prior is non-negative and sums to 1'
    )
  return prior_H
