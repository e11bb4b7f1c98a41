"""Reads the settings and the metrics of training runs, without jax."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from isft_jax.config import with_new_names

# Steps and values of one metric.
Curve = tuple[list[int], list[float]]


@dataclasses.dataclass(frozen=True)
class Run:
  """Settings and metrics of a training run."""

  name: str  # short, and different for each run of a page
  config: Mapping[str, Any]  # content of config.json
  rows: Sequence[Mapping[str, Any]]  # metrics, one row per step, in order

  def curve(self, metric: str) -> Curve:
    """Returns the steps that have a metric, and its values."""
    found = [row for row in self.rows if metric in row]
    return [row['step'] for row in found], [float(r[metric]) for r in found]

  def curves(self, metric: str) -> dict[str, Curve]:
    """Returns component -> curve of a metric that has several components."""
    names = {name: None for row in self.rows for name in row.get(metric, {})}
    found = {}
    for name in names:
      rows = [row for row in self.rows if name in row.get(metric, {})]
      values = [float(row[metric][name]) for row in rows]
      found[name] = [row['step'] for row in rows], values
    return found

  @property
  def targets(self) -> float:
    """Number of scored tokens of all steps."""
    return sum(row.get('targets', 0) for row in self.rows)

  @property
  def seconds(self) -> float:
    """Seconds of all steps; those of a compilation are among them."""
    return sum(row.get('seconds', 0) for row in self.rows)


def read(workdirs: Sequence[str | os.PathLike]) -> list[Run]:
  """Reads runs from their workdirs, in this order.

  Raises:
    ValueError: a folder is named twice or is not the workdir of a run, or a
      file in it cannot be read; the message names it.
  """
  paths = [pathlib.Path(workdir) for workdir in workdirs]
  if len({path.resolve() for path in paths}) < len(paths):
    raise ValueError(f'a run is named twice: {", ".join(map(str, paths))}')
  # The last part of a path, if that tells the runs apart.
  names = [path.resolve().name for path in paths]
  if len({*names}) < len(names):
    names = [str(path) for path in paths]
  return [_read(path, name) for path, name in zip(paths, names, strict=True)]


def _read(workdir: pathlib.Path, name: str) -> Run:
  metrics, config = workdir / 'metrics.jsonl', workdir / 'config.json'
  for path in (config, metrics):
    if not path.is_file():
      raise ValueError(
        f'{workdir}: not the workdir of a training run, because it has no '
        f'{path.name}; name the --workdir of isft-train'
      )
  try:
    settings = json.loads(config.read_text(encoding='utf-8'))
  except ValueError as error:
    raise ValueError(f'{config}: not JSON: {error}') from error
  if not isinstance(settings, dict):
    raise ValueError(f'{config}: not a JSON object')
  return Run(name, with_new_names(settings), _rows(metrics))


def _rows(path: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the rows of a metrics file, ordered by step.

  A resumed run logs some steps again; the last row of a step counts. A killed
  process may leave half a line at the end, which is left out.
  """
  rows = {}
  *lines, _ = path.read_text(encoding='utf-8').split('\n')
  for number, line in enumerate(lines, 1):
    try:
      row = json.loads(line)
      _check_numbers(row)
      rows[int(row['step'])] = row
    except (ValueError, KeyError, TypeError, AttributeError) as error:
      raise ValueError(
        f'{path}:{number}: not a JSON object of numbers with "step": '
        f'{line[:80]!r}; '
        'remove the line, or let isft-train resume the run, which repairs it'
      ) from error
  if not rows:
    raise ValueError(f'{path}: no step is logged yet')
  return [rows[step] for step in sorted(rows)]


def _check_numbers(row: Mapping[str, Any]) -> None:
  """Raises ValueError unless all values are numbers, or objects of numbers."""
  for value in row.values():
    if isinstance(value, dict):
      _check_numbers(value)
    elif not isinstance(value, int | float):
      raise ValueError(f'{value!r} is no number')
