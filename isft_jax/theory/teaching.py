"""The grid of lessons: a decoder for each, and how near the oracles it comes.

Cells share what is compiled: it takes longer than to train one.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from isft_jax.models import decoder
from isft_jax.theory.bandit import ACCOUNTINGS, Bandit
from isft_jax.theory.learner import model_config, predict
from isft_jax.theory.lessons import (
  LOSSES,
  Loss,
  kl,
  objective,
  oracle,
  written,
)
from isft_jax.types import PyTree

_PART = 200  # steps between two lines of progress


@dataclasses.dataclass(frozen=True)
class Lesson:
  """How a cell of the grid is trained and measured."""

  horizon: int = 10  # steps of an episode
  width: int = 32
  layers: int = 2
  rows: int = 256  # episodes a step
  learning_rate: float = 3e-3  # falls to 0 along a cosine
  steps: int = 1000
  measured: int = 20_000  # own rollouts to measure along


State = tuple[PyTree, optax.OptState]  # parameters, moments


class Learner:
  """The compiled parts: cells of one behaviour share them, and all measures."""

  def __init__(self, bandit: Bandit, lesson: Lesson) -> None:
    self.bandit, self.lesson = bandit, lesson
    config = model_config(bandit, lesson.width, lesson.layers)
    self.config = config
    self.graphdef, _ = decoder.abstract(config)
    self.optimizer = optax.chain(
      optax.clip_by_global_norm(1.0),
      optax.adam(
        optax.cosine_decay_schedule(lesson.learning_rate, lesson.steps)
      ),
    )

  @functools.partial(jax.jit, static_argnums=0)
  def start(self, key: jax.Array) -> State:
    """Returns (params, moments) at random."""
    params = decoder.init(self.config, key)
    return params, self.optimizer.init(params)

  @functools.partial(jax.jit, static_argnums=(0, 4, 5), donate_argnums=1)
  def train(
    self, state: State, key: jax.Array, loss: Loss, behaviour: str, steps: int
  ) -> State:
    """Returns the state after some more steps."""
    bandit, lesson, graphdef = self.bandit, self.lesson, self.graphdef

    def step(state: State, key: jax.Array) -> tuple[State, None]:
      params, moments = state
      seen = written(
        graphdef, params, bandit, key, behaviour, lesson.rows, lesson.horizon
      )

      def objective_of(params: PyTree) -> jax.Array:
        predicted = predict(graphdef, params, bandit, seen)
        return objective(predicted, bandit, seen, behaviour, loss)

      gradient = jax.grad(objective_of)(params)
      updates, moments = self.optimizer.update(gradient, moments, params)
      return (optax.apply_updates(params, updates), moments), None

    return jax.lax.scan(step, state, jax.random.split(key, steps))[0]

  @functools.partial(jax.jit, static_argnums=0)
  def measure(
    self, params: PyTree, key: jax.Array, loss: Loss
  ) -> tuple[dict[str, jax.Array], jax.Array]:
    """Returns figures of own rollouts, each a float32 array by episode."""
    bandit, lesson = self.bandit, self.lesson
    seen = written(
      self.graphdef, params, bandit, key, 'own', lesson.measured, lesson.horizon
    )
    predicted = predict(self.graphdef, params, bandit, seen)
    best_BA = jax.nn.one_hot(seen.theta_B, bandit.arms)
    p_best_BT = jnp.sum(
      jnp.exp(predicted.action_BTA) * best_BA[:, None], axis=-1
    )
    figures = {
      f'kl_to_{name}': kl(
        oracle(bandit, seen, name == 'conditional'), predicted, loss
      )
      for name in ACCOUNTINGS
    }
    figures['reward'] = seen.rewards_BT.mean(axis=1)
    return figures, p_best_BT.mean(axis=0)


def cell(
  learner: Learner,
  behaviour: str,
  loss: str,
  seeds: Iterable[int],
  tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
  """Returns a cell of the grid: what the loss taught, along own rollouts.

  kl_to_interventional, kl_to_conditional: nats a step. reward: a step. Each
  has a mean over seeds, and lo and hi, which span the seeds with two standard
  errors of the rollouts either side.
  p_best: by step, the probability of the best arm, a mean over seeds.

  seeds: one training each.
  """
  lesson, weights = learner.lesson, LOSSES[loss]
  found, curves = [], []
  for seed in seeds:
    init_key, data_key, measure_key = jax.random.split(jax.random.key(seed), 3)
    state = learner.start(init_key)
    done = 0
    while done < lesson.steps:
      part = min(_PART, lesson.steps - done)
      data_key, key = jax.random.split(data_key)
      state = learner.train(state, key, weights, behaviour, part)
      done += part
      jax.block_until_ready(state)
      tell(f'{behaviour} x {loss}, seed {seed}: step {done}/{lesson.steps}')
    figures, p_best_T = learner.measure(state[0], measure_key, weights)
    found.append({name: np.asarray(x_B) for name, x_B in figures.items()})
    curves.append(np.asarray(p_best_T))
  summary = {
    name: _interval([each[name] for each in found]) for name in found[0]
  }
  return {
    'behaviour': behaviour,
    'loss': loss,
    'seeds': len(found),
    'steps': lesson.steps,
    **summary,
    'p_best': np.mean(curves, axis=0).tolist(),
  }


def _interval(by_seed: Sequence[np.ndarray]) -> dict[str, float]:
  mean_N = np.array([x_B.mean(dtype=np.float64) for x_B in by_seed])
  error_N = np.array([x_B.std() / np.sqrt(x_B.size) for x_B in by_seed])
  return {
    'mean': float(mean_N.mean()),
    'lo': float((mean_N - 2 * error_N).min()),
    'hi': float((mean_N + 2 * error_N).max()),
  }
