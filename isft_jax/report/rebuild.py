"""Rebuilds pages from results.json files, without training or jax."""

import json
import pathlib
from collections.abc import Sequence

from isft_jax.report import shapes
from isft_jax.report.deployment import page as deployment
from isft_jax.report.evidence import page as evidence
from isft_jax.report.lying_agent import page, seeds
from isft_jax.report.lying_agent.shape import RUN

# Experiment that has all its seeds in one file -> function that makes its page.
_WITH_SEEDS = {
  'evidence': evidence.rebuild,
  'deployment': deployment.rebuild,
}
_NAMES = {'evidence': 'an evidence', 'deployment': 'a deployment'}


def rebuild(
  paths: Sequence[str], workdir: str | None = None
) -> list[pathlib.Path]:
  """Writes the page of one run, or the summary of several seeds.

  Args:
    paths: results.json files: one of an evidence or deployment run, or one or
      more of the lying agent.
    workdir: folder for the page; by default the folder of the first file.

  Returns:
    The files that were written, the page first. The page of a lying-agent run
    has no dialogues, and has loss curves only if the metrics are beside its
    results.json.

  Raises:
    ValueError: a file has no such results, a value in it has another type than
      the page shows, several files are not runs of one config on different
      seeds, or the new page would replace a page that shows dialogues.
  """
  if not paths:
    raise ValueError('--from is empty; name a results.json')
  runs = {path: _read(path) for path in paths}
  folder = pathlib.Path(workdir or pathlib.Path(paths[0]).parent)
  # One file: the page of its run.
  if len(paths) == 1:
    (path, results), *_ = runs.items()
    if results.get('experiment') in _WITH_SEEDS:
      return [_WITH_SEEDS[results['experiment']](path, workdir)]
    # results.json has no dialogues: do not replace a page that shows them.
    old = folder / 'report.html'
    if old.exists() and b'class="viewer"' in old.read_bytes():
      raise ValueError(
        f'{old} shows dialogues, which results.json does not have; name '
        'another folder with --workdir'
      )
    folder.mkdir(parents=True, exist_ok=True)
    with shapes.readable(path):
      return [page.write(folder, results, (), pathlib.Path(path).parent)]
  # Several files: the summary of their seeds.
  if len(runs) < len(paths):
    raise ValueError(f'a file is named twice: {", ".join(paths)}')
  for path, results in runs.items():
    if results.get('experiment') in _WITH_SEEDS:
      raise ValueError(
        f'{path}: the results of {_NAMES[results["experiment"]]} run, which '
        'already has all its seeds; name only this file'
      )
  with shapes.readable(', '.join(paths)):
    return seeds.write(folder, runs)


def _read(path: str) -> dict:
  """Returns the content of a results.json of any experiment."""
  try:
    results = json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{path}: not JSON: {error}') from error
  if not isinstance(results, dict) or not (
    results.get('experiment') in _WITH_SEEDS or results.get('arms')
  ):
    raise ValueError(f'{path}: not the results of isft-reproduce')
  # The other experiments check their own files.
  if results.get('experiment') not in _WITH_SEEDS:
    shapes.check(results, RUN, path)
  return results
