"""Content of results.json: shares of solved problems, with intervals.

Figures of an arm have the form `{mean, lo, hi, per_seed, right, number,
wilson}`: the mean over seeds with Student's interval, and all problems of all
seeds with Wilson's. Differences between arms are paired by seed.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from isft_jax.experiments.config import DeploymentConfig
from isft_jax.experiments.deployment.continual import JOINT
from isft_jax.experiments.environment import describe_base
from isft_jax.statistics import interval, paired, summary, wilson

# Runs of a part: (seed, name of the arm) -> content of the run's file.
Runs = Mapping[tuple[int, str], dict[str, Any]]

# Second tries, by the name of their text in a run's file.
TRIES = ('second', 'again', 'after_sft')
# Figures of an arm; see `shares`.
FIGURES = (
  *('first', 'asked_again', *TRIES),
  *(f'repaired_{name}' for name in TRIES),
)
# Arms that the others are compared with.
REFERENCES = ('sft', 'oracle', 'interventional_paper')
CONTINUAL_REFERENCES = ('observational', 'oracle')


def results(
  config: DeploymentConfig,
  parts: Mapping[str, Runs],
  environment: dict[str, Any],
) -> dict[str, Any]:
  """Returns the content of results.json.

  Args:
    config: settings of the deployment.
    parts: part -> its runs, for each part that is complete.
    environment: hardware and versions, see `environment.describe`.
  """
  content: dict[str, Any] = {
    'experiment': 'deployment',
    'config': dataclasses.asdict(dataclasses.replace(config, only='')),
    'seed': config.seed,
    'seeds': list(range(config.seed, config.seed + config.seeds)),
    'environment': environment,
    'base': describe_base(config),
  }
  if 'arms' in parts:
    content['arms'] = arms(config, parts['arms'])
  if 'continual' in parts:
    content['continual'] = continual(config, parts['continual'])
  content['runs'] = {
    part: [
      {'seed': seed, 'name': name, 'seconds': run['seconds']}
      | {'train': _training_summaries(run)}
      for (seed, name), run in runs.items()
    ]
    for part, runs in parts.items()
  }
  return content


def shares(run: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
  """Returns figure -> (successes, trials) of a run.

  Args:
    run: texts of `answers.evaluate`.

  Returns:
    first: first tries that are right.
    asked_again: first tries at the problems that were answered wrongly in the
      deployment.
    second, again, after_sft: problems that are solved by the first or the
      second try. The first try of `after_sft` is that of the first policy.
    repaired_...: second tries that are right, of those that were made or could
      not be made because the first had no end.
  """
  number = len(run['first'])
  found = {
    name: (run[name].count('1'), len(run[name]))
    for name in ('first', 'asked_again')
  }
  for name in TRIES:
    marks = run[name]
    found[name] = (number - marks.count('0'), number)
    found[f'repaired_{name}'] = (marks.count('1'), number - marks.count('-'))
  return found


def arms(config: DeploymentConfig, runs: Runs) -> dict[str, Any]:
  """Returns arm -> figure, with differences to the reference arms."""
  by_arm: dict[str, dict[str, Any]] = {}
  for arm in config.arms:
    mine = _runs_named(runs, arm)
    counts = [shares(run) for run in mine]
    figures = {name: _share([c[name] for c in counts]) for name in FIGURES}
    trained = [run['train'] for run in mine if run['train']]
    by_arm[arm] = figures | {
      'unreadable': sum(run['unreadable'] for run in mine),
      'turns': sum(run['turns'] for run in mine),
      'corrections': sum(run['corrections'] for run in mine),
      'wrong_corrections': sum(run['wrong_corrections'] for run in mine),
      'steps': _mean([each['steps'] for each in trained]),
      'scored_tokens': _mean([each['scored_tokens'] for each in trained]),
      # A verdict in the conversation, against a second sample without it.
      'second_minus_again': _paired(figures['second'], figures['again']),
    }
  for arm, figures in by_arm.items():
    figures['against'] = {
      other: {
        name: _paired(figures[name], by_arm[other][name]) for name in FIGURES
      }
      for other in REFERENCES
      if other in by_arm and other != arm
    }
  return by_arm


def continual(config: DeploymentConfig, runs: Runs) -> dict[str, Any]:
  """Returns arm -> accuracy after each increment, and forgetting.

  all: accuracy on all skills, before any increment and after each.
  old, new, unseen: accuracy after increment t = 1 ... T on the skills of
    increments before t, of t, and after t. None if there are none.
  final: accuracy on all skills at the end.
  forgetting: see `forgetting`; None for the reference without increments.
  """
  by_arm: dict[str, dict[str, Any]] = {}
  for arm in config.continual.arms:
    mine = _runs_named(runs, arm)
    tables = [accuracies(run) for run in mine]
    figures: dict[str, Any] = {
      'all': [interval(v) for v in np.transpose([t.mean(1) for t in tables])],
      'final': summary([table[-1].mean() for table in tables]),
      'forgetting': None,
    }
    if arm != JOINT:
      steps = range(1, len(tables[0]))
      figures |= {
        'old': [_mean_of(tables, t, slice(0, t - 1)) for t in steps],
        'new': [_mean_of(tables, t, slice(t - 1, t)) for t in steps],
        'unseen': [_mean_of(tables, t, slice(t, None)) for t in steps],
        'forgetting': summary([forgetting(table) for table in tables]),
      }
    by_arm[arm] = figures
  for arm, figures in by_arm.items():
    figures['against'] = {
      other: {
        name: _paired(figures[name], by_arm[other][name])
        for name in ('final', 'forgetting')
        if figures[name] and by_arm[other][name]
      }
      for other in CONTINUAL_REFERENCES
      if other in by_arm and other != arm
    }
  return by_arm


def accuracies(run: Mapping[str, Any]) -> np.ndarray:
  """Returns the accuracy per evaluation and skill, in order of the increments.

  Args:
    run: what `continual.run` returns.

  Returns:
    float64 [evaluations, skills].
  """
  skill_N = np.array(run['test_skills'])
  right_EN = np.array([[*marks] for marks in run['right']]) == '1'
  return np.stack(
    [right_EN[:, skill_N == skill].mean(1) for skill in run['skills']], axis=1
  )


def forgetting(table_ES: np.ndarray) -> float:
  """Returns the mean drop of old skills from their best accuracy.

    mean over s < T of  max_{t >= s} a[t, s] - a[T, s]

  Skill s is that of increment s = 1 ... T, and a[t, s] is the accuracy on it
  after increment t. The skill of the last increment is not old.

  Args:
    table_ES: accuracy before any increment and after each, per skill.

  Source: Chaudhry et al. 2018, "Riemannian walk for incremental learning",
  section 4, which starts at the first increment for every skill.
  """
  T = len(table_ES) - 1
  # Row t is after increment t; column s - 1 is the skill of increment s.
  drops = [table_ES[s:, s - 1].max() - table_ES[-1, s - 1] for s in range(1, T)]
  return float(np.mean(drops)) if drops else 0.0


def _share(counts: Sequence[tuple[int, int]]) -> dict[str, Any]:
  """Returns the summary of a share: a mean over seeds, and all trials."""
  right, number = (sum(column) for column in zip(*counts, strict=True))
  # A seed without trials has no share; it solves nothing.
  per_seed = [a / b if b else 0.0 for a, b in counts]
  return summary(per_seed) | {
    'right': right,
    'number': number,
    'wilson': wilson(right, number) if number else None,
  }


def _paired(ours: Mapping, theirs: Mapping) -> dict[str, Any]:
  return paired(ours['per_seed'], theirs['per_seed'])


def _mean_of(
  tables: Sequence[np.ndarray], t: int, skills: slice
) -> dict[str, Any] | None:
  columns = [table[t, skills] for table in tables]
  if not len(columns[0]):
    return None
  return interval([float(column.mean()) for column in columns])


def _mean(values: Sequence[float]) -> float:
  return float(np.mean(values)) if values else 0.0


def _runs_named(runs: Runs, name: str) -> list[dict]:
  """Returns the runs of an arm, ordered by seed."""
  return [runs[key] for key in sorted(runs) if key[1] == name]


def _training_summaries(run: Mapping[str, Any]) -> list[dict]:
  """Returns the summary of each fine-tune of a run; [] without training."""
  trained = run['train'] or []
  return trained if isinstance(trained, list) else [trained]
