"""Writes deployment.html: first tries, second tries, controls, increments.

The page is made from results.json only. Its statements are computed from the
figures, for any direction of an effect.
"""

import json
import os
import pathlib

from isft_jax import files
from isft_jax.report import document, shapes
from isft_jax.report.deployment import sections, shape
from isft_jax.report.evidence.page import every_run
from isft_jax.report.lying_agent import comparison
from isft_jax.report.lying_agent.settings import settings
from isft_jax.report.tables import Table

CITATION = 'N. de Freitas, "CIC: Continual, Interactive, Causal Agents" (2026)'


# Split to evaluate on -> what the problems are.
_EVALUATED = {
  'test': 'are test problems, which no arm has met.',
  'agent': 'are those of the deployment, in other words.',
}


def write(workdir: str | os.PathLike, results: dict) -> pathlib.Path:
  """Writes deployment.html into workdir, and returns its path.

  Args:
    workdir: an existing folder.
    results: content of results.json. Parts that it lacks have no section.
  """
  path = pathlib.Path(workdir) / 'deployment.html'
  files.write_atomically(path, report(results))
  return path


def rebuild(path: str, workdir: str | None = None) -> pathlib.Path:
  """Writes the page of a results.json beside it, or into workdir.

  Raises:
    ValueError: a value in the file has another type than the page shows.
  """
  results = json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
  shapes.check(results, shape.RUN, path)
  folder = pathlib.Path(workdir or pathlib.Path(path).parent)
  folder.mkdir(parents=True, exist_ok=True)
  with shapes.readable(path):
    return write(folder, results)


def report(results: dict) -> bytes:
  """Returns the page in UTF-8.

  Args:
    results: content of results.json.
  """
  base = comparison.base_from_results(results)
  shown = []
  if 'arms' in results:
    shown += [
      sections.tries(results['arms']),
      sections.controls(results['arms']),
      sections.budgets(results['arms']),
    ]
  if 'continual' in results:
    shown.append(sections.continual(results['continual']))
  given = base['kind'] == 'given'
  return document.page(
    'deployment/page.html.j2',
    'Learning from deployment: first tries and second tries',
    answer=answer(results),
    seeds=', '.join(map(str, results['seeds'])),
    citation=CITATION,
    problems=_EVALUATED[results['config']['evaluate_on']],
    models=(
      f'All seeds start from the same model ({comparison.describe_base(base)}).'
      if given
      else 'Each seed has its own problems and its own first policy, a tiny '
      'model that is trained from scratch. Other models may behave differently.'
    ),
    sections=shown,
    settings=_settings(results),
    # An arm in increments has a summary per increment.
    runs=every_run(results, 1),
  )


def answer(results: dict) -> str:
  """Returns what interventional training adds, written from the figures."""
  if not {'sft', 'interventional_paper'} <= results.get('arms', {}).keys():
    return 'The arms are not done yet.'
  return sections.plain_statement(results['arms'])


def _settings(results: dict) -> Table:
  config = results['config']
  rows = [
    ('world', config['world']),
    ('problems of the deployment', str(config['turns'])),
    ('problems to evaluate on', str(config['tests'])),
    ('split to evaluate on', config['evaluate_on']),
    ('samples per problem of ReST and REINFORCE', str(config['samples'])),
    ('adapters, rank', str(config['lora']['rank'])),
    *settings(results),
    ('REINFORCE: learning rate', _rate(config['reinforce'])),
    ('REINFORCE: problems per step', str(config['reinforce']['batch_size'])),
    ('increments: problems', str(config['continual']['turns'])),
    ('increments: steps', str(config['continual']['steps'])),
  ]
  return Table('Settings of the runs', ('setting', 'value'), rows)


def _rate(stage: dict) -> str:
  return f'{stage["optim"]["learning_rate"]:g}'
