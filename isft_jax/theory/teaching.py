"""Trains a decoder per behaviour and loss, and measures its KL to the oracles.

All cells of the grid share the compiled functions, because compiling takes
longer than training a cell.
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

_PROGRESS_STEPS = 200  # steps between two lines of progress


@dataclasses.dataclass(frozen=True)
class Lesson:
  """Training and measurement settings of a cell of the grid."""

  horizon: int = 10  # steps per episode
  width: int = 32
  layers: int = 2
  rows: int = 256  # episodes per training step
  learning_rate: float = 3e-3  # decays to 0 along a cosine
  steps: int = 1000
  measured: int = 20_000  # own rollouts per measurement


State = tuple[PyTree, optax.OptState]  # parameters, optimizer state


class Learner:
  """Compiled functions that train and measure cells.

  Cells of the same behaviour share the training function; all cells share the
  measurement.

  Args:
    bandit: the process.
    lesson: training and measurement settings.
  """

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
    """Returns a random initial state."""
    params = decoder.init(self.config, key)
    return params, self.optimizer.init(params)

  @functools.partial(jax.jit, static_argnums=(0, 4, 5), donate_argnums=1)
  def train(
    self, state: State, key: jax.Array, loss: Loss, behaviour: str, steps: int
  ) -> State:
    """Returns the state after more training steps.

    Args:
      state: the state before; its buffers are donated.
      key: random key.
      loss: a value of `lessons.LOSSES`; traced, so that losses share a program.
      behaviour: one of `lessons.BEHAVIOURS`.
      steps: number of steps.
    """
    bandit, lesson, graphdef = self.bandit, self.lesson, self.graphdef

    def step(state: State, key: jax.Array) -> tuple[State, None]:
      params, moments = state
      # New episodes, written by the behaviour of the cell.
      seen = written(
        graphdef, params, bandit, key, behaviour, lesson.rows, lesson.horizon
      )

      def loss_from_params(params: PyTree) -> jax.Array:
        predicted = predict(graphdef, params, bandit, seen)
        return objective(predicted, bandit, seen, behaviour, loss)

      gradient = jax.grad(loss_from_params)(params)
      updates, moments = self.optimizer.update(gradient, moments, params)
      return (optax.apply_updates(params, updates), moments), None

    # Every step has new episodes instead of a fixed data set.
    return jax.lax.scan(step, state, jax.random.split(key, steps))[0]

  @functools.partial(jax.jit, static_argnums=0)
  def measure(
    self, params: PyTree, key: jax.Array, loss: Loss
  ) -> tuple[dict[str, jax.Array], jax.Array]:
    """Measures the model along its own rollouts.

    Args:
      params: the model.
      key: random key.
      loss: a value of `lessons.LOSSES`, which selects the slots of the KL.

    Returns:
      (figures, p_best_T): `kl_to_interventional`, `kl_to_conditional` and
      `reward`, each float32 [episodes] per step; and the mean probability of
      the best arm in each step.
    """
    bandit, lesson = self.bandit, self.lesson
    # Rollouts are the model's own for every cell, so that cells are comparable.
    seen = written(
      self.graphdef, params, bandit, key, 'own', lesson.measured, lesson.horizon
    )
    predicted = predict(self.graphdef, params, bandit, seen)
    # The model's probability of the best arm in each step.
    best_BA = jax.nn.one_hot(seen.theta_B, bandit.arms)
    p_best_BT = jnp.sum(
      jnp.exp(predicted.action_BTA) * best_BA[:, None], axis=-1
    )
    # KL from each oracle to the model, in the slots that the loss trains.
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
  """Trains and measures one cell of the grid.

  Args:
    learner: the compiled functions.
    behaviour: one of `lessons.BEHAVIOURS`.
    loss: a key of `lessons.LOSSES`.
    seeds: seeds, one training each.
    tell: prints a line of progress.

  Returns:
    The entry of theory.json. `kl_to_interventional` and `kl_to_conditional` are
    in nats per step, `reward` is per step. Each has a `mean` over seeds, and
    `lo` and `hi`, the range over seeds with two standard errors of the rollouts
    on either side. `p_best` is the probability of the best arm in each step, a
    mean over seeds.
  """
  lesson, weights = learner.lesson, LOSSES[loss]
  by_seed, curves = [], []
  for seed in seeds:
    # One training per seed, with a line of progress per chunk of steps.
    init_key, data_key, measure_key = jax.random.split(jax.random.key(seed), 3)
    state = learner.start(init_key)
    done = 0
    while done < lesson.steps:
      chunk = min(_PROGRESS_STEPS, lesson.steps - done)
      data_key, key = jax.random.split(data_key)
      state = learner.train(state, key, weights, behaviour, chunk)
      done += chunk
      # JAX dispatches asynchronously: wait, so that the line is true.
      jax.block_until_ready(state)
      tell(f'{behaviour} x {loss}, seed {seed}: step {done}/{lesson.steps}')
    figures, p_best_T = learner.measure(state[0], measure_key, weights)
    by_seed.append({name: np.asarray(x_B) for name, x_B in figures.items()})
    curves.append(np.asarray(p_best_T))
  # Mean and interval of each figure, over the seeds.
  summary = {
    name: _interval([figures[name] for figures in by_seed])
    for name in by_seed[0]
  }
  return {
    'behaviour': behaviour,
    'loss': loss,
    'seeds': len(by_seed),
    'steps': lesson.steps,
    **summary,
    'p_best': np.mean(curves, axis=0).tolist(),
  }


def _interval(by_seed: Sequence[np.ndarray]) -> dict[str, float]:
  """Returns the mean over seeds and the range with two standard errors."""
  # Mean and standard error of each seed.
  mean_N = np.array([x_B.mean(dtype=np.float64) for x_B in by_seed])
  error_N = np.array([x_B.std() / np.sqrt(x_B.size) for x_B in by_seed])
  # The interval contains the interval of every seed.
  return {
    'mean': float(mean_N.mean()),
    'lo': float((mean_N - 2 * error_N).min()),
    'hi': float((mean_N + 2 * error_N).max()),
  }
