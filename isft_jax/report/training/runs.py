"""Reads the settings and the metrics of training runs, without jax."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from isft_jax import files, metrics_file
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
  settings = with_new_names(files.read_json(config))
  return Run(name, settings, _rows(metrics))


def _rows(path: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the rows of a metrics file, ordered by step.

  A resumed run logs some steps again; the last row of a step counts. A run that
  is killed or still writes may leave half a line at the end, which is left out.
  """
  rows = {}
  for number, line in enumerate(metrics_file.lines(epath.Path(path)), 1):
    if line.is_damaged and not line.raw.endswith(b'\n'):
      break
    if line.is_damaged or not _has_numbers(line.rows[0]):
      raise ValueError(
        f'{path}:{number}: not a JSON object of numbers with "step": '
        f'{files.shorten(line.raw)}; remove the line, or let isft-train resume '
        'the run, which repairs it'
      )
    rows[line.rows[0]['step']] = line.rows[0]
  if not rows:
    raise ValueError(f'{path}: no step is logged yet')
  return [rows[step] for step in sorted(rows)]


def _has_numbers(row: Mapping[str, Any]) -> bool:
  """Returns whether all values are numbers, or objects of numbers."""
  return all(
    _has_numbers(value)
    if isinstance(value, dict)
    else isinstance(value, int | float)
    for value in row.values()
  )
