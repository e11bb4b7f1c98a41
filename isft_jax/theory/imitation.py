"""Imitation costs and lock-in of a learner that writes some slots itself.

The world writes with p_B. The learner does not know this: its prior is 0.35 for
p_B and 0.65 for p_A. A gate that ignores content gives each slot to the agent
with probability rho. The agent samples from its mixture xi. Under the
interventional accounting only the world's slots are evidence, and

  E sum over world slots of KL(p_B || xi) <= ln 1 / w_0(p_B)
  E sum over agent slots of KL(p_B || xi) <= rho / (1 - rho) ln 1 / w_0(p_B)

both with equality once the belief has converged. Under the observational
accounting the agent's slots are evidence too. For rho above a threshold the
learner can then lock in: its own symbols convince it of p_A for ever.

Symbols are independent given the hypothesis, so a belief is a function of the
numbers of As and Bs that were evidence. The results are therefore exact in
float64: the distribution of these counts is propagated slot by slot. `sample`
estimates the same quantities with random numbers.

Letters: E episodes, H hypotheses, S symbols, K number of Bs.

Source: Ortega, Universal AI as imitation (2026), for the bounds.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from isft_jax.theory.mixture import TWO_HS, TWO_PRIOR_H, update

TRUE, FALSE = 0, 1  # the hypotheses p_B and p_A
A, B = 0, 1  # the symbols
LOCKED = 0.99  # a learner is locked in if its belief in p_A is above this


class Costs(NamedTuple):
  """KL(p_B || xi) summed over the slots of each writer, in nats."""

  agent: float
  world: float


def bound() -> float:
  """Returns ln 1 / w_0(p_B), in nats."""
  return float(-np.log(TWO_PRIOR_H[TRUE]))


def slot_kl(belief_H: np.ndarray) -> np.ndarray:
  """Returns KL(p_B || xi) of one symbol under a belief, in nats [...]."""
  xi_S = belief_H @ TWO_HS
  true_S = TWO_HS[TRUE]
  return (true_S * np.log(true_S / xi_S)).sum(axis=-1)


def costs(rho: float, slots: int) -> Costs:
  """Returns the exact expected `Costs` of the interventional accounting.

  Between two symbols of the world the belief does not change, and the agent
  writes rho / (1 - rho) slots on average. After n symbols of the world, k of
  them B (binomial), the belief is the posterior given these counts.

  Args:
    rho: probability that the agent writes a slot.
    slots: number of symbols that the world writes.
  """
  # mass_K: distribution of the number of Bs among the world's first n symbols.
  mass_K, world = np.ones(1), 0.0
  for n in range(slots):
    # Expected KL of the next symbol, over the number of Bs so far.
    world += float(mass_K @ slot_kl(_belief_KH(n)))
    mass_K = _moved(mass_K, np.full(n + 1, TWO_HS[TRUE, B]))
  return Costs(rho / (1 - rho) * world, world)


def locked(rho: float, slots: int, greedy: bool) -> float:
  """Returns the exact P(belief in p_A > `LOCKED` after the last slot).

  The accounting is the observational one: every slot is evidence.

  Args:
    rho: probability that the agent writes a slot.
    slots: slots per episode.
    greedy: True if the agent writes the likelier symbol, False if it samples
      from xi.
  """
  # mass_K: distribution of the number of Bs among the first n slots.
  mass_K = np.ones(1)
  for n in range(slots):
    # The learner's probability of a B, for each number of Bs so far.
    xi_K = _belief_KH(n) @ TWO_HS[:, B]
    agent_K = (xi_K > 0.5).astype(float) if greedy else xi_K
    # The next symbol is the agent's with rho, the world's with 1 - rho.
    mass_K = _moved(mass_K, rho * agent_K + (1 - rho) * TWO_HS[TRUE, B])
  return float(mass_K @ (_belief_KH(slots)[:, FALSE] > LOCKED))


def threshold(greedy: bool) -> float:
  """Returns rho*, above which a belief in p_A sustains itself.

    rho E_agent log p_A / p_B = (1 - rho) KL(p_B || p_A)

  The left side is the evidence for p_A in the symbols of an agent that believes
  p_A: KL(p_A || p_B) if it samples, log p_A(A) / p_B(A) if it is greedy. The
  right side is the evidence against p_A in the world's symbols. Both are in
  nats per slot.

  Args:
    greedy: see `locked`.
  """
  # Evidence for p_A per symbol.
  log_odds_S = np.log(TWO_HS[FALSE] / TWO_HS[TRUE])
  # A greedy agent that believes in p_A always writes p_A's likelier symbol.
  agent_S = np.eye(2)[TWO_HS[FALSE].argmax()] if greedy else TWO_HS[FALSE]
  # Mean evidence against p_A in a symbol of the world, in nats.
  against = -TWO_HS[TRUE] @ log_odds_S
  # At rho*, the evidence of agent and world cancels.
  return float(against / (against + agent_S @ log_odds_S))


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def sample(
  key: jax.Array,
  rho: jax.typing.ArrayLike,
  episodes: int,
  slots: int,
  interventional: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Samples episodes of an agent that samples from its mixture.

  Args:
    key: random key.
    rho: probability that the agent writes a slot.
    episodes: number of episodes.
    slots: slots per episode.
    interventional: True if only the world's slots are evidence, False if every
      slot is.

  Returns:
    (agent_kl_E, world_kl_E, belief_EH): KL(p_B || xi) summed over the slots of
    each writer, in nats per episode, and the belief after the last slot. The
    arrays are float32; a sum over 400 slots has an error of at most 1e-4.
  """
  p_HS = jnp.asarray(TWO_HS, jnp.float32)

  def slot(
    carry: tuple[jax.Array, jax.Array], key: jax.Array
  ) -> tuple[tuple[jax.Array, jax.Array], None]:
    log_belief_EH, kl_E2 = carry
    # Draw the writer of the slot, then the symbol from the writer's
    # distribution.
    gate_E, symbol_E = jax.random.uniform(key, (2, episodes))
    belief_EH = jnp.exp(log_belief_EH)
    own_E = gate_E < rho
    p_B_E = jnp.where(own_E, belief_EH @ p_HS[:, B], p_HS[TRUE, B])
    wrote_E = (symbol_E < p_B_E).astype(int)
    # Add KL(p_B || xi) to the column of the writer: 0 agent, 1 world.
    xi_ES = belief_EH @ p_HS
    each_ES = p_HS[TRUE][None] * jnp.log(p_HS[TRUE][None] / xi_ES)
    by_E2 = jnp.stack([own_E, ~own_E], axis=1)
    kl_E2 += jnp.where(by_E2, each_ES.sum(axis=1)[:, None], 0)
    # The gate of 1 keeps the agent's own symbols from being evidence.
    unseen_E = own_E if interventional else jnp.zeros_like(own_E)
    log_EH = jnp.log(p_HS.T)[wrote_E]
    return (update(log_belief_EH, log_EH, unseen_E), kl_E2), None

  # Scan over the slots from the prior, with zero sums.
  log_prior_H = jnp.log(jnp.asarray(TWO_PRIOR_H, jnp.float32))
  first_EH = jnp.broadcast_to(log_prior_H[None], (episodes, 2))
  (log_belief_EH, kl_E2), _ = jax.lax.scan(
    slot, (first_EH, jnp.zeros((episodes, 2))), jax.random.split(key, slots)
  )
  return kl_E2[:, 0], kl_E2[:, 1], jnp.exp(log_belief_EH)


def _belief_KH(n: int) -> np.ndarray:
  """Returns the beliefs after n symbols of evidence, for each number of Bs."""
  # Number of Bs from 0 to n, as a column.
  k_K1 = np.arange(n + 1)[:, None]
  log_KH = (
    np.log(TWO_PRIOR_H)
    + k_K1 * np.log(TWO_HS[:, B])
    + (n - k_K1) * np.log(TWO_HS[:, A])
  )
  # Subtract the maximum first, because exp() of 400 symbols underflows.
  weight_KH = np.exp(log_KH - log_KH.max(axis=1, keepdims=True))
  return weight_KH / weight_KH.sum(axis=1, keepdims=True)


def _moved(mass_K: np.ndarray, p_B_K: np.ndarray) -> np.ndarray:
  """Returns the distribution of the number of Bs after one more symbol."""
  # A B moves the probability mass up by one, an A leaves it.
  return np.append(mass_K * (1 - p_B_K), 0) + np.append(0, mass_K * p_B_K)
