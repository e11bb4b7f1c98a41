"""Writes evidence.html, all parts of the evidence on one page.

The page is made from results.json only. Each section states what it shows and
what it does not show. The first statement is computed from the figures, for any
direction of an effect.
"""

import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

from isft_jax import files
from isft_jax.report import document, plots, shapes
from isft_jax.report.evidence import charts, margins, sections, shape
from isft_jax.report.evidence.words import Section, count_facts, difference
from isft_jax.report.lying_agent import comparison
from isft_jax.report.lying_agent.paper import CITATION
from isft_jax.report.lying_agent.settings import settings
from isft_jax.report.tables import Table


def write(workdir: str | os.PathLike, results: dict) -> pathlib.Path:
  """Writes evidence.html into workdir, with flywheel.png and price.png.

  Args:
    workdir: an existing folder.
    results: content of results.json. Parts that it lacks have no section and
      no picture.

  Returns:
    The path of evidence.html.
  """
  path = pathlib.Path(workdir) / 'evidence.html'
  wheel = None
  if 'flywheel' in results:
    wheel = charts.flywheel(results['flywheel'])
  price = charts.price(results.get('arms', {}), results.get('costs', {}))
  for chart in filter(None, (wheel, price)):
    chart.save_png(workdir)
  files.write_atomically(path, report(results, wheel, price))
  return path


def rebuild(path: str, workdir: str | None = None) -> pathlib.Path:
  """Writes the page of a results.json beside it, or into workdir.

  Raises:
    ValueError: the file has results of another experiment, or a value in it
      has another type than the page shows.
  """
  results = json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
  if not isinstance(results, dict) or results.get('experiment') != 'evidence':
    raise ValueError(
      f'{path}: not the results of an evidence run; to rebuild the page of '
      'the lying agent, use isft-reproduce --from'
    )
  shapes.check(results, shape.RUN, path)
  folder = pathlib.Path(workdir or pathlib.Path(path).parent)
  folder.mkdir(parents=True, exist_ok=True)
  with shapes.readable(path):
    return write(folder, results)


def report(
  results: dict, wheel: plots.Chart | None, price: plots.Chart | None
) -> bytes:
  """Returns the page in UTF-8.

  Args:
    results: content of results.json.
    wheel: the chart from `charts.flywheel`, or None without that part.
    price: what `charts.price` returns.
  """
  # Sections of the parts that are there, the flywheel first.
  base = comparison.base_from_results(results)
  shown = []
  if wheel is not None:
    given = base['kind'] == 'given'
    shown.append(sections.flywheel(results['flywheel'], wheel, given))
  makers: dict[str, Callable[[Any], Section]] = {
    'arms': margins.arms,
    'heldout': margins.heldout,
    'worlds': sections.worlds,
    'costs': lambda costs: sections.costs(costs, price),
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
    # A flywheel has a summary per round.
    runs=every_run(results, 2),
  )


def answer(results: dict) -> str:
  """Returns a few sentences with the results, written from the figures."""
  # One sentence per part that is done.
  sentences = []
  wheel = results.get('flywheel', {})
  do, obs = wheel.get('interventional', {}), wheel.get('observational')
  if obs and 'against_observational' in do:
    sentences.append(
      f'Trained for {len(do["accuracy"]) - 1} rounds on conversations about '
      f'its own answers, a model that was right on '
      f'{do["accuracy"][0]["mean"]:.0%} of the facts is right on '
      f'{do["accuracy"][-1]["mean"]:.0%} with L_do and on '
      f'{obs["accuracy"][-1]["mean"]:.0%} with L_obs: '
      f'{difference(do["against_observational"][-1], shares=True)}.'
    )
  # The dialogues with scripted lies.
  if against := _against_observational(results, 'arms', 'told'):
    sentences.append(
      f'On scripted lies, L_do ends {difference(against["mean_margin"])} '
      f'in mean margin against L_obs, higher on {sum(against["facts_higher"])} '
      f'of {count_facts(against)} facts.'
    )
  # The same comparison on facts that no dialogue mentions.
  if against := _against_observational(results, 'heldout', 'heldout'):
    sentences.append(
      'On facts that no dialogue mentions the difference is '
      f'{difference(against["mean_margin"])}.'
    )
  return ' '.join(sentences) or 'No part is done yet.'


def _against_observational(results: dict, part: str, half: str) -> dict:
  """Returns differences of L_do to L_obs; {} if one of them was not run."""
  arm = results.get(part, {}).get('interventional', {})
  return arm.get(half, {}).get('against_observational', {})


def _models(base: dict) -> str:
  """Returns a sentence on the models and on the limits of the figures."""
  if base['kind'] == 'given':
    return (
      f'All runs start from the same model ({comparison.describe_base(base)}). '
      'Other models may behave differently.'
    )
  return (
    'Each seed has its own facts, base model and order. All models here are '
    'tiny and trained from scratch on invented facts. Other models may behave '
    'differently.'
  )


def _settings(results: dict) -> Table:
  config = results['config']
  rows = [
    ('seeds', ', '.join(map(str, results['seeds']))),
    ('facts', str(config['facts'])),
    *settings(results),
  ]
  # The two parts that fine-tune with their own settings.
  for part in ('flywheel', 'worlds'):
    stage = config[part]['stage']
    rows.append((f'{part}: steps of a stage', str(stage['steps'])))
    rate = stage['optim']['learning_rate']
    rows.append((f'{part}: learning rate', f'{rate:g}'))
  return Table('Settings of the runs', ('setting', 'value'), rows)


def every_run(results: dict, most: int) -> Table:
  """Returns the table of all runs.

  Args:
    results: content of results.json.
    most: maximum number of fine-tunes that are shown of a run.
  """
  rows = [
    (
      f'{part}: {run["name"]}',
      str(run['seed']),
      ', '.join(map(_trained, run['train'][:most])) or 'not trained',
      f'{run["seconds"]:g}',
    )
    for part, runs in results['runs'].items()
    for run in runs
  ]
  header = ('run', 'seed', 'objective, steps, learning rate', 'seconds')
  return Table('Every run', header, rows)


def _trained(run: dict) -> str:
  return f'{run["objective"]} {run["steps"]} {run["learning_rate"]:g}'
