"""REINFORCE with a leave-one-out baseline on the verifier's verdicts.

    loss = 1 / (P K) sum_p sum_k A_pk (-log pi(y_pk | x_p))
    A_pk = r_pk - 1 / (K - 1) sum_{j != k} r_pj

Problem p has K samples; r is 1 for a right answer and 0 otherwise. The loss of
an answer is the sum over its tokens, the end of the turn included.

Source: Kool, van Hoof and Welling 2019, "Buy 4 REINFORCE samples, get a
baseline for free!"; Ahmadian et al. 2024 (RLOO).
"""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax

from isft_jax import losses
from isft_jax.config import OptimConfig
from isft_jax.experiments.config import DeploymentConfig
from isft_jax.experiments.deployment import answers, stream
from isft_jax.experiments.deployment.policy import Policy
from isft_jax.inference.prompts import bucket
from isft_jax.models import lora
from isft_jax.models.decoder import GraphDef
from isft_jax.models.likelihood import target_nll
from isft_jax.train.optim import make_optimizer
from isft_jax.types import Batch, PyTree
from isft_jax.worlds.lying_agent.probes import Slot, score_batch
from isft_jax.worlds.problems.problem import Problem

# First key of the random order of problems.
_ORDER = 2


def advantages(rewards_PK: np.ndarray) -> np.ndarray:
  """Returns each reward minus the mean of the other samples, float64 [P, K].

  Args:
    rewards_PK: rewards of K samples for each of P problems, K >= 2.
  """
  rewards_PK = np.asarray(rewards_PK, np.float64)
  K = rewards_PK.shape[1]
  others_PK = rewards_PK.sum(axis=1, keepdims=True) - rewards_PK
  return rewards_PK - others_PK / (K - 1)


def rollout_batch(
  prompts: Sequence[np.ndarray],
  replies: Sequence[np.ndarray],
  advantages_B: np.ndarray,
  shape: tuple[int, int, int],
) -> Batch[np.ndarray]:
  """Returns a batch whose weights are the advantages, one answer per row.

  Args:
    prompts: ids before each answer.
    replies: ids of each answer.
    advantages_B: advantage of each answer.
    shape: rows B, tokens L and targets K per row.
  """
  batch = score_batch(list(map(Slot, prompts, replies)), shape)
  weights_BK = batch.weights_BK * advantages_B[:, None].astype(np.float32)
  return batch._replace(weights_BK=weights_BK)


def policy_loss(
  graphdef: GraphDef, params: PyTree, batch: Batch[jax.Array]
) -> jax.Array:
  """Returns the loss of a batch of `rollout_batch`, a scalar."""
  nll_BK = target_nll(graphdef, params, batch)
  total, _ = losses.weighted_sum(nll_BK, batch.weights_BK)
  return total / len(nll_BK)


def train(
  config: DeploymentConfig, policy: Policy, problems: Sequence[Problem]
) -> tuple[PyTree, dict[str, Any]]:
  """Trains a policy on its own samples.

  Args:
    config: its `reinforce`, `samples` and `reply_tokens`.
    policy: the first policy, which stays unchanged.
    problems: problems to sample answers for.

  Returns:
    The new parameters, and a summary like that of `bases.fit`, with the mean
    reward of the first and the last quarter of the steps.
  """
  stage, K = config.reinforce, config.samples
  # What learns, and the step, compiled once per experiment.
  learning: PyTree = policy.params
  frozen: PyTree = ()
  if config.lora.rank:
    learning, frozen = lora.split(policy.params)
  dtype = 'float32' if config.lora.rank else config.model.param_dtype
  init, step = _make_step(
    policy.graphdef, dataclasses.replace(stage.optim), stage.steps, dtype
  )
  opt_state = init(learning)
  # One shape for all batches.
  world, renderer = policy.world, policy.renderer
  prompts = [stream.prompt(world, p, renderer) for p in problems]
  P = min(stage.batch_size, len(problems))
  L = bucket(max(map(len, prompts)) + config.reply_tokens)
  shape = (P * K, L, config.reply_tokens)
  rng = np.random.default_rng([_ORDER, policy.seed])
  order = itertools.chain.from_iterable(
    rng.permutation(len(problems)) for _ in itertools.count()
  )

  started, rewards, values = time.perf_counter(), [], []
  scored = 0
  for number in range(stage.steps):
    # K samples of the live policy for each of the next P problems.
    rows = [i for i in itertools.islice(order, P) for _ in range(K)]
    sampled = answers.sample(
      policy,
      lora.join(frozen, learning),
      [prompts[i] for i in rows],
      config.reply_tokens,
      temperature=1.0,
      seed=answers.sampling_seed(policy.seed, answers.LIVE, number),
    )
    right_PK = np.reshape(
      [
        world.verify(answer.text, problems[i]).is_right
        for i, answer in zip(rows, sampled, strict=True)
      ],
      (P, K),
    )
    batch = rollout_batch(
      [prompts[i] for i in rows],
      [answer.ids_T for answer in sampled],
      advantages(right_PK).reshape(-1),
      shape,
    )
    learning, opt_state, value = step(learning, opt_state, frozen, batch)
    rewards.append(float(right_PK.mean()))
    values.append(float(value))
    scored += int((batch.weights_BK != 0).sum())
  quarter = -(-len(rewards) // 4)
  summary = {
    'seed': policy.seed,
    'objective': 'reinforce',
    'learning_rate': stage.optim.learning_rate,
    'clip_norm': stage.optim.clip_norm,
    'eps': stage.optim.eps,
    'steps': stage.steps,
    'scored_tokens': scored,
    'final_loss': values[-1],
    'reward_first': float(np.mean(rewards[:quarter])),
    'reward_last': float(np.mean(rewards[-quarter:])),
    'seconds': round(time.perf_counter() - started, 2),
  }
  return lora.join(frozen, learning), summary


_Step = Callable[..., tuple[PyTree, PyTree, jax.Array]]


@functools.lru_cache(maxsize=2)
def _make_step(
  graphdef: GraphDef, optim: OptimConfig, steps: int, dtype: str
) -> tuple[Callable[[PyTree], PyTree], _Step]:
  """Returns (learning -> optimizer's state, compiled step)."""
  optimizer = make_optimizer(optim, steps, dtype)

  @jax.jit
  def step(
    learning: PyTree, opt_state: PyTree, frozen: PyTree, batch: Batch
  ) -> tuple[PyTree, PyTree, jax.Array]:
    def loss(learning: PyTree) -> jax.Array:
      return policy_loss(graphdef, lora.join(frozen, learning), batch)

    value, gradient = jax.value_and_grad(loss)(learning)
    updates, opt_state = optimizer.update(gradient, opt_state, learning)
    return optax.apply_updates(learning, updates), opt_state, value

  return jax.jit(optimizer.init), step
