"""Grid of small runs with a file of results each, so that it resumes.

ROOM/seed-N/NAME.json    written atomically when the run is finished
"""

import json
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from isft_jax import files, progress_bar


class Unit(NamedTuple):
  """A run that is not resumed but repeated if it is interrupted."""

  room: str  # its folder, and the name of its function
  seed: int
  name: str  # unique in its room and seed
  argument: object  # last argument of the room's `run`

  @property
  def place(self) -> str:
    """Path of its results in the workdir, without .json."""
    return f'{self.room}/seed-{self.seed}/{self.name}'


class HasSeed(Protocol):
  """What the units of a seed share."""

  @property
  def seed(self) -> int: ...


Base = TypeVar('Base', bound=HasSeed)


def path(workdir: pathlib.Path, unit: Unit) -> pathlib.Path:
  """Returns the path of a unit's results."""
  return workdir / f'{unit.place}.json'


def write_json(path: pathlib.Path, value: dict[str, Any]) -> None:
  """Writes a JSON file atomically."""
  files.write_atomically(path, json.dumps(value, indent=1) + '\n')


def read_runs(
  workdir: pathlib.Path, units: Sequence[Unit]
) -> dict[tuple[int, str], dict[str, Any]] | None:
  """Returns (seed, name) -> results, or None if a unit is not finished."""
  if not all(path(workdir, unit).exists() for unit in units):
    return None
  return {
    (unit.seed, unit.name): files.read_json(path(workdir, unit))
    for unit in units
  }


def run_all(
  workdir: pathlib.Path,
  units: Sequence[Unit],
  prepare: Callable[[int], Base],
  rooms: Mapping[str, Callable[[Base, pathlib.Path, Any], dict[str, Any]]],
) -> None:
  """Runs the units without results, and prints a line after each.

  Args:
    workdir: folder of the experiment.
    units: the runs, grouped by seed. A place that occurs twice is run once.
    prepare: seed -> what its units share. It is kept while the seed lasts.
    rooms: room -> run(base, folder, argument), which returns JSON results.
  """
  wanted = {unit.place: unit for unit in units}.values()
  todo = [unit for unit in wanted if not path(workdir, unit).exists()]
  started = time.perf_counter()
  base: Base | None = None
  # The line of each run says the rest in a log.
  for number, unit in enumerate(
    progress_bar.track(todo, 'all', len(todo), 'runs')
  ):
    # The base of a seed stays in memory for all its units.
    if base is None or base.seed != unit.seed:
      print(f'seed {unit.seed}: the base', flush=True)
      base = prepare(unit.seed)
    unit_started = time.perf_counter()
    file = path(workdir, unit)
    folder = file.with_suffix('')
    folder.mkdir(parents=True, exist_ok=True)
    result = rooms[unit.room](base, folder, unit.argument)
    now = time.perf_counter()
    # Results are written last, so that a file marks a finished run.
    write_json(file, result | {'seconds': round(now - unit_started, 1)})
    # Estimate of the time left, from the mean of the runs so far.
    left = (now - started) / (number + 1) * (len(todo) - number - 1)
    print(
      f'[{now - started:5.0f} s] {number + 1:>3}/{len(todo)} {unit.place:<44} '
      f'{now - unit_started:5.1f} s  ETA {left // 60:.0f}:{left % 60:02.0f}',
      flush=True,
    )
