"""A learner that writes some of the slots itself: what it costs, what it risks.

The world writes with p_B, which the learner does not know: its prior has p_B at
0.35 and p_A at 0.65. A gate that ignores content gives each slot to the agent
with probability rho. The agent writes what its mixture xi predicts. Under the
interventional accounting only the world's slots are evidence, and

  E sum over world slots of KL(p_B || xi) <= ln 1 / w_0(p_B)
  E sum over agent slots of KL(p_B || xi) <= rho / (1 - rho) ln 1 / w_0(p_B)

both with equality once the belief has settled. Under the observational one the
agent's slots are evidence too, and for rho above a threshold the learner can
come to believe p_A for good, on the word of its own symbols.

Symbols are independent given the hypothesis: a belief is a function of how many
As and Bs were evidence. So all of this is exact in float64, by propagating the
distribution of these counts; `sample` plays the same game with random numbers.

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
LOCKED = 0.99  # a belief in p_A above this


class Costs(NamedTuple):
  """Sums over slots, in nats, of KL(p_B || xi), by who wrote the slot."""

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
  """Returns the expected `Costs` of the interventional accounting; exact.

  Between two symbols of the world the belief stands still, and the agent writes
  rho / (1 - rho) slots on average. After n symbols of the world, of which k are
  B (binomial), the belief is the posterior of these counts.

  slots: how many symbols of the world to go through.
  """
  mass_K, world = np.ones(1), 0.0
  for n in range(slots):
    world += float(mass_K @ slot_kl(_belief_KH(n)))
    mass_K = _moved(mass_K, np.full(n + 1, TWO_HS[TRUE, B]))
  return Costs(rho / (1 - rho) * world, world)


def locked(rho: float, slots: int, greedy: bool) -> float:
  """Returns P(belief in p_A above `LOCKED` after the slots); exact.

  The accounting is the observational one: every slot is evidence.

  greedy: the agent writes the likelier symbol, else it samples from xi.
  """
  mass_K = np.ones(1)
  for n in range(slots):
    xi_K = _belief_KH(n) @ TWO_HS[:, B]
    agent_K = (xi_K > 0.5).astype(float) if greedy else xi_K
    mass_K = _moved(mass_K, rho * agent_K + (1 - rho) * TWO_HS[TRUE, B])
  return float(mass_K @ (_belief_KH(slots)[:, FALSE] > LOCKED))


def threshold(greedy: bool) -> float:
  """Returns rho*: above it a belief in p_A sustains itself.

    rho E_agent log p_A / p_B = (1 - rho) KL(p_B || p_A)

  On the left what an agent that believes p_A writes, the evidence of its own
  symbols: KL(p_A || p_B) if it samples, log p_A(A) / p_B(A) if it is greedy. On
  the right what the world says against it. Nats a slot.
  """
  log_odds_S = np.log(TWO_HS[FALSE] / TWO_HS[TRUE])
  agent_S = np.eye(2)[TWO_HS[FALSE].argmax()] if greedy else TWO_HS[FALSE]
  against = -TWO_HS[TRUE] @ log_odds_S
  return float(against / (against + agent_S @ log_odds_S))


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def sample(
  key: jax.Array,
  rho: jax.typing.ArrayLike,
  episodes: int,
  slots: int,
  interventional: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns (agent_kl_E, world_kl_E, belief_EH) of a sampling agent.

  The sums of KL by who wrote the slot, nats an episode, and the belief after
  the last slot. float32: a sum of 400 slots is right to 1e-4.

  rho: the probability that the agent writes a slot.
  """
  p_HS = jnp.asarray(TWO_HS, jnp.float32)

  def slot(
    carry: tuple[jax.Array, jax.Array], key: jax.Array
  ) -> tuple[tuple[jax.Array, jax.Array], None]:
    log_belief_EH, kl_E2 = carry
    gate_E, symbol_E = jax.random.uniform(key, (2, episodes))
    belief_EH = jnp.exp(log_belief_EH)
    own_E = gate_E < rho
    p_B_E = jnp.where(own_E, belief_EH @ p_HS[:, B], p_HS[TRUE, B])
    wrote_E = (symbol_E < p_B_E).astype(int)
    xi_ES = belief_EH @ p_HS
    each_ES = p_HS[TRUE][None] * jnp.log(p_HS[TRUE][None] / xi_ES)
    by_E2 = jnp.stack([own_E, ~own_E], axis=1)
    kl_E2 += jnp.where(by_E2, each_ES.sum(axis=1)[:, None], 0)
    unseen_E = own_E if interventional else jnp.zeros_like(own_E)
    log_EH = jnp.log(p_HS.T)[wrote_E]
    return (update(log_belief_EH, log_EH, unseen_E), kl_E2), None

  log_prior_H = jnp.log(jnp.asarray(TWO_PRIOR_H, jnp.float32))
  first_EH = jnp.broadcast_to(log_prior_H[None], (episodes, 2))
  (log_belief_EH, kl_E2), _ = jax.lax.scan(
    slot, (first_EH, jnp.zeros((episodes, 2))), jax.random.split(key, slots)
  )
  return kl_E2[:, 0], kl_E2[:, 1], jnp.exp(log_belief_EH)


def _belief_KH(n: int) -> np.ndarray:
  """Beliefs after n symbols as evidence, by the number of Bs among them."""
  k_K1 = np.arange(n + 1)[:, None]
  log_KH = (
    np.log(TWO_PRIOR_H)
    + k_K1 * np.log(TWO_HS[:, B])
    + (n - k_K1) * np.log(TWO_HS[:, A])
  )
  weight_KH = np.exp(log_KH - log_KH.max(axis=1, keepdims=True))
  return weight_KH / weight_KH.sum(axis=1, keepdims=True)


def _moved(mass_K: np.ndarray, p_B_K: np.ndarray) -> np.ndarray:
  """The distribution of the number of Bs, one symbol later."""
  return np.append(mass_K * (1 - p_B_K), 0) + np.append(0, mass_K * p_B_K)
