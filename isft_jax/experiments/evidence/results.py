"""results.json: what the runs of each part say together, with intervals.

Figures are means over seeds, `{mean, lo, hi, per_seed}` (see `statistics`);
differences are taken seed by seed.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from isft_jax.experiments.config import EvidenceConfig
from isft_jax.experiments.environment import describe_base
from isft_jax.experiments.evidence import users
from isft_jax.experiments.evidence.arms import HALVES
from isft_jax.experiments.evidence.statistics import interval, paired, summary

# Runs of a part: (seed, name) -> what the run wrote.
Runs = Mapping[tuple[int, str], dict[str, Any]]

FIGURES = (
  'mean_margin',
  'prefers_lie',
  'says_truth',
  'truth_after_truth',
  'truth_after_lie',
)
COSTS = ('ended', 'user_like', 'good_nll')


def results(
  config: EvidenceConfig,
  parts: Mapping[str, Runs],
  environment: dict[str, Any],
) -> dict[str, Any]:
  """Returns all of results.json; a part that is not done is left out."""
  makers: dict[str, Callable[[EvidenceConfig, Runs], Any]] = {
    'flywheel': flywheel,
    'arms': arms,
    'heldout': heldout,
    'worlds': worlds,
  }
  found: dict[str, Any] = {
    'experiment': 'evidence',
    'config': dataclasses.asdict(dataclasses.replace(config, only='')),
    'seed': config.seed,
    'seeds': list(range(config.seed, config.seed + config.seeds)),
    'environment': environment,
    'base': describe_base(config),
  }
  for part, runs in parts.items():
    found[part] = makers[part](config, runs)
    if part == 'arms':
      found['costs'] = costs(config, runs)
  found['runs'] = {
    part: [
      {'seed': seed, 'name': name, 'seconds': run['seconds']}
      | {'train': _trained(run)}
      for (seed, name), run in runs.items()
    ]
    for part, runs in parts.items()
    if part != 'heldout'  # its runs are those of the arms
  }
  return found


def flywheel(config: EvidenceConfig, runs: Runs) -> dict[str, Any]:
  """Returns arm -> accuracy of each round, on told and on held-out facts.

  against_observational: of the told facts, the paired difference of each round.
  """
  found: dict[str, dict[str, Any]] = {}
  for arm in config.flywheel.arms:
    mine = _of(runs, arm)
    told, heldout = (
      [run[key] for run in mine] for key in ('accuracy', 'heldout_accuracy')
    )
    found[arm] = {
      'accuracy': _by_round(told),
      'per_seed': told,
      'heldout': {'accuracy': _by_round(heldout), 'per_seed': heldout},
      'margin': summary([run['margin'] for run in mine]),
      'unread': sum(run['unread'] for run in mine),
    }
    if 'observational' in found:
      theirs = found['observational']['per_seed']
      found[arm]['against_observational'] = [
        paired(mine, other)
        for mine, other in zip(
          zip(*told, strict=True), zip(*theirs, strict=True), strict=True
        )
      ]
  return found


def arms(config: EvidenceConfig, runs: Runs) -> dict[str, Any]:
  """Returns arm -> half of the facts -> figure; paired with base and L_obs."""
  return _arms(('base', *config.arms), runs, ('told',))


def heldout(config: EvidenceConfig, runs: Runs) -> dict[str, Any]:
  """Returns the same for both halves, of the arms that are compared there."""
  return _arms(('base', *config.heldout_arms), runs, HALVES)


def costs(config: EvidenceConfig, runs: Runs) -> dict[str, Any]:
  """Returns arm -> what masking costs, and -log p by author."""
  found = {}
  for arm in ('base', *config.arms):
    mine = [run['costs'] for run in _of(runs, arm)]
    found[arm] = {
      name: summary([cost[name] for cost in mine]) for name in COSTS
    } | {
      'nll': {
        author: summary([cost['nll'][author] for cost in mine])
        for author in mine[0]['nll']
      }
    }
  return found


def worlds(config: EvidenceConfig, runs: Runs) -> list[dict[str, Any]]:
  """Returns a row a world: its values, each arm's margin, the difference."""
  rows = []
  for world in users.worlds(config):
    mine = _of(runs, world.name)
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
    if {'interventional', 'observational'} <= margins.keys():
      row['difference'] = paired(
        margins['interventional'], margins['observational']
      )
    rows.append(row)
  return rows


def _arms(
  names: Sequence[str], runs: Runs, halves: Sequence[str]
) -> dict[str, Any]:
  found: dict[str, dict[str, dict[str, Any]]] = {}
  for arm in names:
    mine = _of(runs, arm)
    found[arm] = {
      half: {
        figure: summary([run[half][figure] for run in mine])
        for figure in FIGURES
      }
      for half in halves
    }
    for other in ('base', 'observational'):
      if other in names and arm != other:
        theirs = _of(runs, other)
        for half in halves:
          found[arm][half][f'against_{other}'] = _against(
            [run[half] for run in mine], [run[half] for run in theirs]
          )
  return found


def _against(ours: list[dict], theirs: list[dict]) -> dict:
  """Returns the paired differences, and on how many facts our margin is higher.

  ours, theirs: of each seed, what `arms` says of a half of the facts.
  """
  higher = [
    int(np.sum(np.asarray(a['margins']) > np.asarray(b['margins'])))
    for a, b in zip(ours, theirs, strict=True)
  ]
  return {
    name: paired([a[name] for a in ours], [b[name] for b in theirs])
    for name in ('mean_margin', 'says_truth')
  } | {'facts_higher': higher, 'facts': len(ours[0]['margins'])}


def _by_round(per_seed: list[list[float]]) -> list[dict]:
  return [interval(values) for values in zip(*per_seed, strict=True)]


def _of(runs: Runs, name: str) -> list[dict]:
  """Returns the runs of one name, in the order of the seeds."""
  return [runs[key] for key in sorted(runs) if key[1] == name]


def _trained(run: dict) -> list[dict]:
  """Returns objective, optimizer, steps and tokens of a run's fine-tunes."""
  found = run.get('train')
  if found is None:  # a base, or a world with its arms
    found = [arm['train'] for arm in run.values() if _is_arm(arm)]
  return found if isinstance(found, list) else [found]


def _is_arm(value: object) -> bool:
  return isinstance(value, dict) and 'train' in value
