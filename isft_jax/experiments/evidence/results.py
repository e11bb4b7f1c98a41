"""Content of results.json: means over seeds, with confidence intervals.

Figures have the form `{mean, lo, hi, per_seed}` (see `statistics`). Differences
between arms are paired by seed.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from isft_jax.experiments.config import EvidenceConfig
from isft_jax.experiments.environment import describe_base
from isft_jax.experiments.evidence import users
from isft_jax.experiments.evidence.arms import HALVES
from isft_jax.statistics import interval, paired, summary

# Runs of a part: (seed, name of the arm or world) -> content of the run's file.
Runs = Mapping[tuple[int, str], dict[str, Any]]

# Figures of the probes that are summarised; see `arms.probe_facts`.
FIGURES = (
  'mean_margin',
  'prefers_lie',
  'says_truth',
  'truth_after_truth',
  'truth_after_lie',
)
COSTS = (
  'ended',
  'user_like',
  'contradicts',
  'good_nll',
  'entropy',
  'elsewhere',
)


def results(
  config: EvidenceConfig,
  parts: Mapping[str, Runs],
  environment: dict[str, Any],
) -> dict[str, Any]:
  """Returns the content of results.json.

  Args:
    config: settings of the evidence.
    parts: part -> its runs, for each part that is complete.
    environment: hardware and versions, see `environment.describe`.
  """
  makers: dict[str, Callable[[EvidenceConfig, Runs], Any]] = {
    'flywheel': flywheel,
    'arms': arms,
    'heldout': heldout,
    'worlds': worlds,
  }
  # Settings and environment.
  content: dict[str, Any] = {
    'experiment': 'evidence',
    'config': dataclasses.asdict(dataclasses.replace(config, only='')),
    'seed': config.seed,
    'seeds': list(range(config.seed, config.seed + config.seeds)),
    'environment': environment,
    'base': describe_base(config),
  }
  # Summaries of the parts.
  for part, runs in parts.items():
    content[part] = makers[part](config, runs)
    if part == 'arms':
      content['costs'] = costs(config, runs)
  # Training of every run.
  content['runs'] = {
    part: [
      {'seed': seed, 'name': name, 'seconds': run['seconds']}
      | {'train': _training_summaries(run)}
      for (seed, name), run in runs.items()
    ]
    for part, runs in parts.items()
    if part != 'heldout'  # its runs are those of the arms
  }
  return content


def flywheel(config: EvidenceConfig, runs: Runs) -> dict[str, Any]:
  """Returns arm -> accuracy of each round, on told and on held-out facts.

  'against_observational' is the paired difference on told facts in each round.
  """
  by_arm: dict[str, dict[str, Any]] = {}
  for arm in config.flywheel.arms:
    mine = _runs_named(runs, arm)
    accuracies, heldout = (
      [run[key] for run in mine] for key in ('accuracy', 'heldout_accuracy')
    )
    # Accuracy per round for both halves, and the margin after the last round.
    by_arm[arm] = {
      'accuracy': _by_round(accuracies),
      'per_seed': accuracies,
      'heldout': {'accuracy': _by_round(heldout), 'per_seed': heldout},
      'margin': summary([run['margin'] for run in mine]),
      'unread': sum(run['unread'] for run in mine),
    } | {
      # Runs of an old version have no shares of such answers.
      name: _by_round([run[name] for run in mine])
      for name in ('user_like', 'ended')
      if name in mine[0]
    }
  # Arms without observational have no difference.
  if 'observational' in by_arm:
    theirs = by_arm['observational']['per_seed']
    for figures in by_arm.values():
      # Transposed from seed x round to round x seed.
      rounds = (
        zip(*accuracies, strict=True)
        for accuracies in (figures['per_seed'], theirs)
      )
      figures['against_observational'] = [
        paired(ours, other) for ours, other in zip(*rounds, strict=True)
      ]
  return by_arm


def arms(config: EvidenceConfig, runs: Runs) -> dict[str, Any]:
  """Returns arm -> 'told' -> figure, with differences to base and L_obs."""
  return _arms(('base', *config.arms), runs, ('told',))


def heldout(config: EvidenceConfig, runs: Runs) -> dict[str, Any]:
  """Returns the same as `arms` for both halves of the facts."""
  return _arms(('base', *config.heldout_arms), runs, HALVES)


def costs(config: EvidenceConfig, runs: Runs) -> dict[str, Any]:
  """Returns arm -> costs of masking, with -log p and distance by author."""
  by_arm: dict[str, dict] = {}
  for arm in ('base', *config.arms):
    mine = [run['costs'] for run in _runs_named(runs, arm)]
    by_arm[arm] = {
      name: summary([cost[name] for cost in mine])
      for name in COSTS
      # Runs of an old version have fewer.
      if name in mine[0]
    }
    for kind in ('nll', 'kl'):
      if kind in mine[0]:
        by_arm[arm][kind] = {
          author: summary([cost[kind][author] for cost in mine])
          for author in mine[0][kind]
        }
  return by_arm


def worlds(config: EvidenceConfig, runs: Runs) -> list[dict[str, Any]]:
  """Returns a row per world: its values, margins of arms, their difference."""
  rows = []
  for world in users.worlds(config):
    mine = _runs_named(runs, world.name)
    # Margins per arm, in the order of the seeds.
    margins = {
      arm: [run[arm]['mean_margin'] for run in mine]
      for arm in config.worlds.arms
    }
    row = world._asdict() | {
      'arms': {
        arm: {
          'mean_margin': summary(margins[arm]),
          'prefers_lie': summary([run[arm]['prefers_lie'] for run in mine]),
        }
        for arm in margins
      }
    }
    # Paired by seed, because both arms start from the same base.
    if {'interventional', 'observational'} <= margins.keys():
      row['difference'] = paired(
        margins['interventional'], margins['observational']
      )
    rows.append(row)
  return rows


def _arms(
  names: Sequence[str], runs: Runs, halves: Sequence[str]
) -> dict[str, Any]:
  by_arm: dict[str, dict[str, dict[str, Any]]] = {}
  for arm in names:
    mine = _runs_named(runs, arm)
    by_arm[arm] = {
      half: {
        figure: summary([run[half][figure] for run in mine])
        for figure in FIGURES
      }
      for half in halves
    }
    # Differences to the base and to L_obs, paired by seed.
    for other in ('base', 'observational'):
      if other in names and arm != other:
        theirs = _runs_named(runs, other)
        for half in halves:
          by_arm[arm][half][f'against_{other}'] = _against(
            [run[half] for run in mine], [run[half] for run in theirs]
          )
  return by_arm


def _against(ours: list[dict], theirs: list[dict]) -> dict:
  """Returns paired differences, and the number of facts with a higher margin.

  Args:
    ours, theirs: per seed, the probes of one half of the facts.
  """
  # One count per seed.
  higher = [
    int(np.sum(np.asarray(a['margins']) > np.asarray(b['margins'])))
    for a, b in zip(ours, theirs, strict=True)
  ]
  return {
    name: paired([a[name] for a in ours], [b[name] for b in theirs])
    for name in ('mean_margin', 'says_truth')
  } | {'facts_higher': higher, 'facts': len(ours[0]['margins'])}


def _by_round(per_seed: list[list[float]]) -> list[dict]:
  # Transposed from seed x round to round x seed.
  return [interval(values) for values in zip(*per_seed, strict=True)]


def _runs_named(runs: Runs, name: str) -> list[dict]:
  """Returns the runs of an arm or world, ordered by seed."""
  return [runs[key] for key in sorted(runs) if key[1] == name]


def _training_summaries(run: dict) -> list[dict]:
  """Returns the summary of each fine-tune of a run; [] for a base."""
  trained = run.get('train')
  if trained is None:  # a base, or a world with its arms
    trained = [arm['train'] for arm in run.values() if _is_arm(arm)]
  return trained if isinstance(trained, list) else [trained]


def _is_arm(value: object) -> bool:
  return isinstance(value, dict) and 'train' in value
