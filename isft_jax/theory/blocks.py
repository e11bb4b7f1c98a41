"""Turns of variable length: who wrote a block, and who would have.

A block is written symbol by symbol until END; each hypothesis has its own law
of the next symbol, so that a block's length is evidence too. In an agent's slot
three things may stand:

  the agent's action       an intervention, gate 1: the belief stays
  a third party's action   the same symbols from the world, gate 0: evidence
  a counterfactual action  what the world would have written there: the gate is
                           forced to 0, and the world's law fills the slot

With counterfactual actions as lessons in the agent's slots, every slot is
evidence, and what imitation costs in them falls

  from rho / (1 - rho) ln 1 / w_0   to   rho ln 1 / w_0.

Source: Ortega, Universal AI as imitation (2026), for the three kinds of action
and the first bound; the second is the world's bound with every gate forced.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from isft_jax.theory.mixture import TWO_HS, TWO_PRIOR_H, posterior, update

A, B, END = 0, 1, 2
TRUE = 0  # p_B
# p_B ends a block with 0.5 after each symbol, p_A with 0.25.
_END_H = np.array([0.5, 0.25])
LAW_HS = np.column_stack([TWO_HS * (1 - _END_H)[:, None], _END_H])
# END included. The truth writes one block in 16 million that is longer; none
# is drawn.
LONGEST = 24


def likelihood(block: list[int]) -> np.ndarray:
  """Returns p_h(block), float64 [H]; the last symbol is END, no other is.

  Raises ValueError for a block that does not end, or ends before its end.
  """
  if [i for i, symbol in enumerate(block) if symbol == END] != [len(block) - 1]:
    raise ValueError(f'block {block} must have END ({END}) as its last symbol')
  return LAW_HS[:, block].prod(axis=1)


def history(blocks: list[list[int]], gate: list[int]) -> np.ndarray:
  """Returns the belief after each block, float64 [T, H].

  gate: 1 where the agent wrote the block. Raises as `likelihood` and
  `posterior`.
  """
  return posterior(TWO_PRIOR_H, [likelihood(block) for block in blocks], gate)


@functools.cache
def counts() -> tuple[np.ndarray, np.ndarray]:
  """Returns (count_C2, p_CH): how many As and Bs, and how likely that is.

    p_h(a, b) = C(a + b, a) p_h(A)^a p_h(B)^b p_h(END)

  All that a block says of the hypotheses is in its counts, whatever their
  order. The counts are those of blocks of up to `LONGEST` symbols, shortest
  first.
  """
  count_C2 = [(a, n - a) for n in range(LONGEST) for a in range(n + 1)]
  p_CH = [
    math.comb(a + b, a) * likelihood([A] * a + [B] * b + [END])
    for a, b in count_C2
  ]
  return np.array(count_C2), np.array(p_CH)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def costs(
  key: jax.Array,
  rho: jax.typing.ArrayLike,
  episodes: int,
  turns: int,
  taught: bool,
) -> tuple[jax.Array, jax.Array]:
  """Returns (agent_E, world_E): cost of imitation by whose slot it is, nats.

    sum over slots of log p_B(z) / xi(z)

  z is the block that the world writes, or would have written where the gate
  gave the slot to the agent. Float32.

  rho: the probability that a slot is the agent's.
  taught: whether the counterfactual block is shown to the learner, and is
    evidence. Otherwise the agent's own block stands there, and is none.
  """
  _, p_CH = counts()
  log_CH = jnp.asarray(np.log(p_CH), jnp.float32)
  reached_C = jnp.asarray(np.cumsum(p_CH[:-1, TRUE]), jnp.float32)

  def turn(
    carry: tuple[jax.Array, jax.Array], key: jax.Array
  ) -> tuple[tuple[jax.Array, jax.Array], None]:
    log_belief_EH, cost_E2 = carry
    gate_E, drawn_E = jax.random.uniform(key, (2, episodes))
    own_E = gate_E < rho
    # One number a block: its symbols one by one would be `LONGEST`.
    log_EH = log_CH[jnp.searchsorted(reached_C, drawn_E, side='right')]
    log_xi_E = jax.nn.logsumexp(log_belief_EH + log_EH, axis=1)
    by_E2 = jnp.stack([own_E, ~own_E], axis=1)
    cost_E2 += jnp.where(by_E2, (log_EH[:, TRUE] - log_xi_E)[:, None], 0)
    unseen_E = jnp.zeros_like(own_E) if taught else own_E
    return (update(log_belief_EH, log_EH, unseen_E), cost_E2), None

  log_prior_H = jnp.log(jnp.asarray(TWO_PRIOR_H, jnp.float32))
  first_EH = jnp.broadcast_to(log_prior_H[None], (episodes, 2))
  (_, cost_E2), _ = jax.lax.scan(
    turn, (first_EH, jnp.zeros((episodes, 2))), jax.random.split(key, turns)
  )
  return cost_E2[:, 0], cost_E2[:, 1]
