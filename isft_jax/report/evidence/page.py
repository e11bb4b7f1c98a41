"""evidence.html: the four parts on one page, made from results.json alone.

Each figure has a sentence of what it shows and one of what it does not. The
first is put together from the figures, whichever way they point.
"""

import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

from isft_jax import files
from isft_jax.report import document, plots
from isft_jax.report.evidence import charts, margins, sections
from isft_jax.report.evidence.words import Section, difference, facts_of
from isft_jax.report.lying_agent import comparison
from isft_jax.report.lying_agent.paper import CITATION
from isft_jax.report.lying_agent.settings import settings
from isft_jax.report.tables import Table


def write(workdir: str | os.PathLike, results: dict) -> pathlib.Path:
  """Writes evidence.html (and flywheel.png) into workdir; returns its path.

  results: the content of results.json; parts that are missing are left out.
  """
  path = pathlib.Path(workdir) / 'evidence.html'
  wheel = None
  if 'flywheel' in results:
    wheel = charts.flywheel(results['flywheel'])
    wheel.save_png(workdir)
  files.write_atomically(path, report(results, wheel))
  return path


def rebuild(path: str, workdir: str | None = None) -> pathlib.Path:
  """Writes the page of a results.json beside it, or into workdir.

  Raises ValueError if the file holds another experiment's results.
  """
  results = json.loads(pathlib.Path(path).read_text())
  if results.get('experiment') != 'evidence':
    raise ValueError(
      f'{path}: not the results of an evidence run; the page of the lying '
      'agent is made again by its own command, which trains nothing twice'
    )
  folder = pathlib.Path(workdir or pathlib.Path(path).parent)
  folder.mkdir(parents=True, exist_ok=True)
  return write(folder, results)


def report(results: dict, wheel: plots.Chart | None) -> bytes:
  """Returns the page, in UTF-8.

  Args:
    results: content of results.json.
    wheel: what `charts.flywheel` draws of it, if it has a flywheel.
  """
  base = comparison.base_of(results)
  shown = []
  if wheel is not None:
    given = base['kind'] == 'given'
    shown.append(sections.flywheel(results['flywheel'], wheel, given))
  makers: dict[str, Callable[[Any], Section]] = {
    'arms': margins.arms,
    'heldout': margins.heldout,
    'worlds': sections.worlds,
    'costs': sections.costs,
  }
  shown += [
    make(results[part]) for part, make in makers.items() if part in results
  ]
  return document.page(
    'evidence/page.html.j2',
    'The evidence: what follows from masking the agent',
    answer=answer(results),
    seeds=', '.join(map(str, results['seeds'])),
    citation=CITATION,
    models=_models(base),
    sections=shown,
    settings=_settings(results),
    runs=_runs(results),
  )


def answer(results: dict) -> str:
  """Returns what came out, in a few sentences, all of it from the figures."""
  sentences = []
  wheel = results.get('flywheel', {})
  if {'interventional', 'observational'} <= wheel.keys():
    do, obs = wheel['interventional'], wheel['observational']
    sentences.append(
      f'Trained for {len(do["accuracy"]) - 1} rounds on conversations about '
      f'its own answers, a model that was right on '
      f'{do["accuracy"][0]["mean"]:.0%} of the facts is right on '
      f'{do["accuracy"][-1]["mean"]:.0%} with L_do and on '
      f'{obs["accuracy"][-1]["mean"]:.0%} with L_obs: '
      f'{difference(do["against_observational"][-1], shares=True)}.'
    )
  arms = results.get('arms', {})
  if 'interventional' in arms:
    against = arms['interventional']['told']['against_observational']
    sentences.append(
      f'On scripted lies, L_do ends {difference(against["mean_margin"])} '
      f'in mean margin against L_obs, higher on {sum(against["facts_higher"])} '
      f'of {facts_of(against)} facts.'
    )
  held = results.get('heldout', {})
  if 'interventional' in held:
    against = held['interventional']['heldout']['against_observational']
    sentences.append(
      'On facts that no dialogue mentions the difference is '
      f'{difference(against["mean_margin"])}.'
    )
  return ' '.join(sentences) or 'No part is done yet.'


def _models(base: dict) -> str:
  """Returns what kind of models these are, and how far the figures reach."""
  if base['kind'] == 'given':
    return (
      f'All runs start from the same model ({comparison.describe_base(base)}): '
      'what holds for it need not hold for others.'
    )
  return (
    'Each seed has facts, a base model and an order of its own. All models '
    'here are tiny and trained from nothing on invented facts: what holds here '
    'need not hold elsewhere.'
  )


def _settings(results: dict) -> Table:
  config = results['config']
  rows = [
    ('seeds', ', '.join(map(str, results['seeds']))),
    ('facts', str(config['facts'])),
    *settings(results),
  ]
  for part in ('flywheel', 'worlds'):
    stage = config[part]['stage']
    rows.append((f'{part}: steps of a stage', str(stage['steps'])))
    rate = stage['optim']['learning_rate']
    rows.append((f'{part}: learning rate', f'{rate:g}'))
  return Table('Settings of the runs', ('setting', 'value'), rows)


def _runs(results: dict) -> Table:
  rows = [
    (
      f'{part}: {run["name"]}',
      str(run['seed']),
      ', '.join(map(_trained, run['train'][:2])) or 'not trained',
      f'{run["seconds"]:g}',
    )
    for part, runs in results['runs'].items()
    for run in runs
  ]
  header = ('run', 'seed', 'objective, steps, learning rate', 'seconds')
  return Table('Every run', header, rows)


def _trained(run: dict) -> str:
  return f'{run["objective"]} {run["steps"]} {run["learning_rate"]:g}'
