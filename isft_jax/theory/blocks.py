"""Turns of variable length, and the effect of counterfactual teaching.

A block is written symbol by symbol until END. Each hypothesis has its own
distribution of the next symbol, so that the length of a block is evidence too.
An agent's slot can contain one of three things:

  the agent's action       an intervention, gate 1: the belief does not change
  a third party's action   the same symbols from the world, gate 0: evidence
  a counterfactual action  the block that the world would have written there:
                           the gate is forced to 0, and the block is sampled
                           from the world's distribution

If counterfactual actions are shown in the agent's slots, every slot is
evidence, and the cost of imitation in these slots falls

  from rho / (1 - rho) ln 1 / w_0   to   rho ln 1 / w_0.

Letters: E episodes, T slots, H hypotheses, S symbols, C counts of a block.

Source: Ortega, Universal AI as imitation (2026), for the three kinds of action
and the first bound; the second is the world's bound with every gate forced.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from isft_jax.theory.mixture import TWO_HS, TWO_PRIOR_H, posterior, update

A, B, END = 0, 1, 2  # the symbols
TRUE = 0  # index of p_B, the hypothesis that the world follows
# p_B ends a block with probability 0.5 at each symbol, p_A with 0.25.
_END_H = np.array([0.5, 0.25])
# Distribution of the next symbol: A, B or END.
LAW_HS = np.column_stack([TWO_HS * (1 - _END_H)[:, None], _END_H])
# Symbols per block, END included. One block in 16 million of p_B is longer; the
# sampler never draws such a block.
LONGEST = 24


def likelihood(block: list[int]) -> np.ndarray:
  """Returns p_h(block), float64 [H].

  Args:
    block: symbols; the last one is END and no other is.

  Raises:
    ValueError: the last symbol is not END, or an earlier one is.
  """
  # END must occur once, in the last place.
  if [i for i, symbol in enumerate(block) if symbol == END] != [len(block) - 1]:
    raise ValueError(f'block {block} must have END ({END}) as its last symbol')
  return LAW_HS[:, block].prod(axis=1)


def history(blocks: list[list[int]], gate: list[int]) -> np.ndarray:
  """Returns the belief after each block, float64 [T, H].

  Args:
    blocks: a block per slot.
    gate: 1 if the agent wrote the block, else 0.

  Raises:
    ValueError: see `likelihood` and `mixture.posterior`.
  """
  return posterior(TWO_PRIOR_H, [likelihood(block) for block in blocks], gate)


@functools.cache
def counts() -> tuple[np.ndarray, np.ndarray]:
  """Returns all counts of As and Bs in a block, and their probabilities.

    p_h(a, b) = C(a + b, a) p_h(A)^a p_h(B)^b p_h(END)

  The counts are a sufficient statistic: the order of the symbols in a block is
  no evidence about the hypotheses.

  Returns:
    (count_C2, p_CH) of blocks of up to `LONGEST` symbols, shortest first.
  """
  # Only counts matter to the likelihood. C(a + b, a) blocks share a pair of
  # counts.
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
  """Returns the sampled cost of imitation in agent slots and in world slots.

    sum over slots of log p_B(z) / xi(z)

  z is the block that the world writes in a world slot and would have written
  in an agent slot.

  Args:
    key: random key.
    rho: probability that a slot is the agent's.
    episodes: number of episodes.
    turns: slots per episode.
    taught: True if the learner sees the counterfactual block in the agent's
      slots, as evidence. False if it sees its own block, which is no evidence.

  Returns:
    (agent_E, world_E), in nats per episode, float32.
  """
  # Sample a count under the true hypothesis; its likelihood under all of them
  # is in the table.
  _, p_CH = counts()
  log_CH = jnp.asarray(np.log(p_CH), jnp.float32)
  # A uniform number picks the first count whose cumulative probability is
  # larger. Without the last entry, the index never leaves the table.
  reached_C = jnp.asarray(np.cumsum(p_CH[:-1, TRUE]), jnp.float32)

  def turn(
    carry: tuple[jax.Array, jax.Array], key: jax.Array
  ) -> tuple[tuple[jax.Array, jax.Array], None]:
    log_belief_EH, cost_E2 = carry
    # Uniform numbers for the owner of the block and for its content.
    gate_E, drawn_E = jax.random.uniform(key, (2, episodes))
    own_E = gate_E < rho
    # One random number per block; sampling symbols would take `LONGEST`.
    log_EH = log_CH[jnp.searchsorted(reached_C, drawn_E, side='right')]
    # The mixture's log probability of this block.
    log_xi_E = jax.nn.logsumexp(log_belief_EH + log_EH, axis=1)
    # Add the cost to the column of the slot's owner: 0 agent, 1 world.
    by_E2 = jnp.stack([own_E, ~own_E], axis=1)
    cost_E2 += jnp.where(by_E2, (log_EH[:, TRUE] - log_xi_E)[:, None], 0)
    # Teaching forces the gate to 0: every slot is evidence.
    unseen_E = jnp.zeros_like(own_E) if taught else own_E
    return (update(log_belief_EH, log_EH, unseen_E), cost_E2), None

  # Scan over the turns from the prior, with zero costs.
  log_prior_H = jnp.log(jnp.asarray(TWO_PRIOR_H, jnp.float32))
  first_EH = jnp.broadcast_to(log_prior_H[None], (episodes, 2))
  (_, cost_E2), _ = jax.lax.scan(
    turn, (first_EH, jnp.zeros((episodes, 2))), jax.random.split(key, turns)
  )
  return cost_E2[:, 0], cost_E2[:, 1]
