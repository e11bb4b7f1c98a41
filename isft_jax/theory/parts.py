"""Computes the entries of theory.json, part by part.

A part is a generator that yields its entries so far, so that an interrupted
computation can be resumed. All parts have the same arguments:

  settings  sizes of the computations
  seed      sampling seed
  tell      prints a line of progress
  so_far    the entries in theory.json, to resume from
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from isft_jax.theory import (
  bandit,
  beta,
  blocks,
  boxes,
  episodes,
  fire_engine,
  imitation,
  lessons,
  mixture,
  teaching,
)
from isft_jax.theory.settings import Settings

# (arm, reward) per step: theory.json shows the predictions for this history.
SHOWN = ((0, 1), (1, 0), (2, 1))
# (behaviour, loss) of the cells that are trained longer, with several seeds.
HEADLINES = (
  ('expert', 'actions'),  # factual teaching
  ('own', 'counterfactual'),
  ('expert', 'observations'),  # masks actions written with sight of theta
  ('random', 'observations'),  # masks actions written without sight of theta
)

Tell = Callable[[str], None]
# Top-level keys of theory.json and their JSON values.
Entries = dict[str, Any]


def compute_mixture(
  settings: Settings, seed: int, tell: Tell, so_far: Mapping[str, Any]
) -> Iterator[Entries]:
  """Yields the two-step example of de Freitas and Ortega (2026), section 5."""
  # All parts have the same arguments. This one needs none of them.
  del settings, seed, tell, so_far
  expects_S = mixture.predictive(mixture.TWO_PRIOR_H, mixture.TWO_HS)
  yield {
    'mixture': {
      'prior': float(mixture.TWO_PRIOR_H[0]),
      'predicts_b': float(expects_S[1]),
      **mixture.two_steps(),
    }
  }


def compute_fire_engine(
  settings: Settings, seed: int, tell: Tell, so_far: Mapping[str, Any]
) -> Iterator[Entries]:
  """Yields P(fire): prior, with an engine seen, and with an engine sent."""
  del settings, seed, tell, so_far
  yield {
    'fire_engine': {
      'p_fire': float(fire_engine.P_FIRE),
      'p_engine_if_fire': float(fire_engine.P_ENGINE[True]),
      'p_engine_if_no_fire': float(fire_engine.P_ENGINE[False]),
      'seen': float(fire_engine.p_fire_given_engine()),
      'sent': float(fire_engine.p_fire_given_engine(do_engine=True)),
    }
  }


def compute_bandit(
  settings: Settings, seed: int, tell: Tell, so_far: Mapping[str, Any]
) -> Iterator[Entries]:
  """Yields the bandit's curves, long runs, phase diagram and ln 5 identity."""
  del so_far
  process = bandit.Bandit()
  entries: Entries = {'predictive': _shown_predictive(process)}
  # Curves for each player of the actions and each accounting of the learner.
  for own in (True, False):
    name = 'own' if own else 'expert'
    entries[name] = {}
    for accounting in bandit.ACCOUNTINGS:
      conditional = accounting == 'conditional'
      curves = episodes.sample(
        process, seed, settings.episodes, settings.steps, own, conditional
      )
      # theory.json has the names without their shape suffixes.
      entries[name][accounting] = {
        key.removesuffix('_T').replace('_error_T', '_error'): value.tolist()
        if isinstance(value, np.ndarray)
        else value
        for key, value in curves._asdict().items()
      }
      tell(f'bandit: {name}, {accounting}: {curves.sum_kl:.2f} nats')
  # Long episodes show if the sum of KL still grows.
  entries['long'] = {}
  for accounting in bandit.ACCOUNTINGS:
    conditional = accounting == 'conditional'
    curves = episodes.sample(
      process,
      seed,
      settings.long_episodes,
      settings.long_steps,
      True,
      conditional,
    )
    entries['long'][accounting] = {
      'steps': settings.long_steps,
      'sum_kl': curves.sum_kl,
      'sum_kl_error': curves.sum_kl_error,
    }
    tell(f'bandit: {settings.long_steps} steps, {accounting}')
  # Probability of a wrong belief at the end, for each reward probability.
  by_h = episodes.phase(
    process,
    seed,
    settings.phase_episodes,
    settings.phase_steps,
    settings.phase_rewards,
  )
  # Keyed by h, the probability that the best arm pays.
  entries['phase'] = {h: curves.sure_and_wrong for h, curves in by_h.items()}
  entries['phase_error'] = {
    h: curves.sure_and_wrong_error for h, curves in by_h.items()
  }
  entries['boundary'] = bandit.boundary(process)
  yield {'bandit': entries}


def compute_teaching(
  settings: Settings, seed: int, tell: Tell, so_far: Mapping[str, Any]
) -> Iterator[Entries]:
  """Yields the teaching grid cell by cell, headlines first."""
  process = bandit.Bandit()
  # Cells that an interrupted run has finished are not trained again.
  cells = list(so_far.get('teaching', []))
  done = {(cell['behaviour'], cell['loss']) for cell in cells}
  others = [
    (behaviour, loss)
    for behaviour in lessons.BEHAVIOURS
    for loss in lessons.LOSSES
    if (behaviour, loss) not in HEADLINES
  ]
  # Headline cells first: they are the result, the others complete the grid.
  full = settings.lesson
  short = dataclasses.replace(full, steps=settings.other_steps)
  for lesson, grid, seeds in (
    (full, HEADLINES, settings.seeds),
    (short, others, 1),
  ):
    learner = teaching.Learner(process, lesson)
    for behaviour, loss in grid:
      if (behaviour, loss) in done:
        continue
      # Seeds are consecutive, from the seed of the run.
      numbers = range(seed, seed + seeds)
      cells.append(teaching.cell(learner, behaviour, loss, numbers, tell))
      yield {'teaching': cells}


def compute_imitation(
  settings: Settings, seed: int, tell: Tell, so_far: Mapping[str, Any]
) -> Iterator[Entries]:
  """Yields costs and lock-in over rho, and beliefs after blocks of turns."""
  del so_far
  by_rho = {}
  slots, number = settings.slots, settings.samples
  for i, rho in enumerate(settings.rhos):
    # Exact results, their bounds, and the sampled results that check them.
    key = jax.random.fold_in(jax.random.key(seed), i)
    exact = imitation.costs(rho, slots)
    agent_E, world_E, _ = imitation.sample(key, rho, number, slots, True)
    by_rho[f'{rho:g}'] = {
      'agent_kl': exact.agent,
      'world_kl': exact.world,
      'bound': rho / (1 - rho) * imitation.bound(),
      'world_bound': imitation.bound(),
      'taught_bound': rho * imitation.bound(),
      'agent_kl_sampled': _estimate(agent_E),
      'world_kl_sampled': _estimate(world_E),
      'locked_sampling': imitation.locked(rho, slots, greedy=False),
      'locked_greedy': imitation.locked(rho, slots, greedy=True),
      **{
        name: _estimate(
          blocks.costs(key, rho, number, settings.turns, name == 'taught')[0]
        )
        for name in ('taught', 'untaught')
      },
    }
    tell(f'imitation: rho {rho:g}')
  # Thresholds of lock-in and the example of blocks do not depend on rho.
  yield {
    'imitation': by_rho,
    'lock_in': {
      'sampling': imitation.threshold(greedy=False),
      'greedy': imitation.threshold(greedy=True),
    },
    'blocks': _shown_blocks(),
  }


def compute_beta(
  settings: Settings, seed: int, tell: Tell, so_far: Mapping[str, Any]
) -> Iterator[Entries]:
  """Yields the exact regret and P(best arm) per step of both learners."""
  del seed, tell, so_far
  steps = settings.beta_steps
  players = {
    'interventional': beta.thompson(steps),
    'conditional': beta.latched(steps),
  }
  yield {
    'beta': {
      'p_first_is_best': beta.p_first_is_best((1, 0), (0, 0)),
      **{
        name: {
          'regret': played.regret_T.tolist(),
          'p_best': played.p_best_T.tolist(),
        }
        for name, played in players.items()
      },
    }
  }


def compute_boxes(
  settings: Settings, seed: int, tell: Tell, so_far: Mapping[str, Any]
) -> Iterator[Entries]:
  """Yields P(prize) of the first box, exact and learned, keyed by accuracy."""
  del seed, tell, so_far
  yield {
    'boxes': {
      # By symmetry, every box has the same probability: report the first.
      f'{q:g}': {
        'conditional': float(boxes.conditional(q)[0]),
        'interventional': float(boxes.interventional()[0]),
        'masked_on_expert': float(boxes.learned(q)[0]),
        'masked_on_blind': float(boxes.learned(1 / boxes.BOXES)[0]),
      }
      for q in settings.accuracies
    }
  }


Part = Callable[[Settings, int, Tell, Mapping[str, Any]], Iterator[Entries]]
# Part name -> generator of its entries, in the order in which the parts run.
PARTS: dict[str, Part] = {
  'mixture': compute_mixture,
  'fire_engine': compute_fire_engine,
  'bandit': compute_bandit,
  'imitation': compute_imitation,
  'beta': compute_beta,
  'boxes': compute_boxes,
  'teaching': compute_teaching,
}


def _shown_predictive(process: bandit.Bandit) -> dict[str, list[float]]:
  """Returns the predictions after each step of `SHOWN`, by accounting."""
  # One episode of the shown steps, [1, T].
  actions_1T, rewards_1T = np.array(SHOWN).T[:, None]
  with jax.enable_x64(True):
    return {
      accounting: process.action(
        bandit.beliefs(
          process, actions_1T, rewards_1T, accounting == 'conditional'
        )
      )[0].tolist()
      for accounting in bandit.ACCOUNTINGS
    }


def _shown_blocks() -> Entries:
  # Three blocks; only the writer of the middle one differs.
  A, B, END = blocks.A, blocks.B, blocks.END
  wrote = [[B, END], [A, A, END], [B, END]]
  return {
    'blocks': wrote,
    # The middle block is the agent's, or the same block from a third party.
    'agent': blocks.history(wrote, [0, 1, 0])[:, blocks.TRUE].tolist(),
    'third_party': blocks.history(wrote, [0, 0, 0])[:, blocks.TRUE].tolist(),
  }


def _estimate(each_E: npt.ArrayLike) -> dict[str, float]:
  """Returns the mean over episodes and its standard error."""
  each_E = np.asarray(each_E, np.float64)
  error = each_E.std() / np.sqrt(each_E.size)
  return {'mean': float(each_E.mean()), 'error': float(error)}
