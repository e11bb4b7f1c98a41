"""Progress of an experiment: fraction done and estimated time left."""

import dataclasses
import json
import pathlib

from isft_jax import files


@dataclasses.dataclass
class _Stage:
  kind: str  # stages of one kind take the same time per unit
  units: int  # steps of training, or probes
  done: int


class Progress:
  """Stages of an experiment, and the time left, estimated from measured units.

    left     = sum over stages of (units - done) x seconds per unit of its kind
    fraction = 1 - left / (sum over stages of units x seconds per unit)

  Stages of one kind take the same time per unit. Until a kind is measured, its
  time per unit is estimated from the measured kinds by relative cost. Measured
  times are saved in a file for resumed runs.
  """

  def __init__(self, path: pathlib.Path, costs: dict[str, float]) -> None:
    """Reads the times that an earlier process measured, if there are any.

    Args:
      path: the JSON file of measured seconds per unit by kind.
      costs: relative cost of a unit by kind, a guess. Only ratios matter.
    """
    self._path, self._costs = path, costs
    self._stages: dict[str, _Stage] = {}
    self._seconds: dict[str, float] = {}
    try:
      saved = files.read_json(path)
      self._seconds = {
        kind: float(saved[kind])
        for kind in costs
        if type(saved.get(kind)) in (int, float)
      }
    except (OSError, ValueError):
      pass  # missing or damaged: the times are measured again

  def plan(self, name: str, kind: str, units: int, done: int = 0) -> None:
    """Adds a stage with its number of units and of those that are done."""
    self._stages[name] = _Stage(kind, units, done)

  def update(self, name: str, done: int, seconds: float = 0.0) -> None:
    """Records how many units of a stage are done, and the seconds per unit.

    Args:
      name: the name of the stage.
      done: units done in total, including earlier processes.
      seconds: the latest seconds per unit; 0 if not measured.
    """
    stage = self._stages[name]
    stage.done = done
    if seconds:
      self._seconds[stage.kind] = seconds
      files.write_atomically(self._path, json.dumps(self._seconds))

  def fraction(self) -> float:
    """Returns the share of the total time that has passed, 0 to 1."""
    per_unit = self._per_unit()
    if per_unit is None:
      per_unit = self._costs  # ratios of guessed costs, until one is measured
    whole = sum(s.units * per_unit[s.kind] for s in self._stages.values())
    left = sum(
      (s.units - s.done) * per_unit[s.kind] for s in self._stages.values()
    )
    return 1 - left / whole if whole else 0.0

  def seconds_left(self) -> float | None:
    """Returns the estimated seconds left; None before any measurement."""
    per_unit = self._per_unit()
    if per_unit is None or not self._stages:
      return None
    return sum(
      (s.units - s.done) * per_unit[s.kind] for s in self._stages.values()
    )

  def describe(self) -> str:
    """Returns '37% done, 12 min left'."""
    left = self.seconds_left()
    time = 'time left unknown' if left is None else f'{duration(left)} left'
    return f'{self.fraction():.0%} done, {time}'

  def _per_unit(self) -> dict[str, float] | None:
    """Returns seconds per unit by kind, measured or estimated."""
    if not self._seconds:
      return None
    # Seconds per unit of cost, from all kinds measured so far.
    per_cost = sum(self._seconds.values()) / sum(
      self._costs[kind] for kind in self._seconds
    )
    estimated = {kind: cost * per_cost for kind, cost in self._costs.items()}
    return estimated | self._seconds


def duration(seconds: float) -> str:
  """Returns seconds as text, rounded: '40 s', '12 min' or '2 h 5 min'."""
  if seconds < 60:
    return f'{seconds:.0f} s'
  minutes = round(seconds / 60)
  hours, rest = divmod(minutes, 60)
  return f'{hours} h {rest} min' if hours else f'{minutes} min'
