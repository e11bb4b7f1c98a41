"""Runs the parts of the theory and writes theory.json; can be resumed."""

import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from isft_jax import files
from isft_jax.theory.parts import PARTS
from isft_jax.theory.settings import Settings


def run(
  workdir: str | os.PathLike,
  only: Sequence[str],
  seed: int,
  settings: Settings,
  environment: Mapping[str, object],
) -> dict[str, Any]:
  """Runs the parts that are not finished, and writes theory.json.

  Args:
    workdir: folder of theory.json; it is created if it does not exist.
    only: names of the parts to run; empty for all parts.
    seed: sampling seed.
    settings: sizes of the computations.
    environment: versions and devices, to be recorded.

  Returns:
    The content of theory.json: the entries of each part (see `parts`);
    `seconds`, the time of each finished part; and the settings, the seed and
    the environment.

  Raises:
    ValueError: a part is unknown, or workdir holds results with different
      settings or a different seed.
  """
  # Refuse unknown parts before any work is done or any file is written.
  for part in only:
    if part not in PARTS:
      raise ValueError(
        f'--only must be one of {", ".join(PARTS)} (got {part!r})'
      )
  path = pathlib.Path(workdir) / 'theory.json'
  # Results with different inputs must not be mixed in one file.
  inputs = {'seed': seed, 'settings': _plain(dataclasses.asdict(settings))}
  results = inputs | {'environment': _plain(environment), 'seconds': {}}
  if path.exists():
    results = files.read_json(path)
    for name, ours in inputs.items():
      if name not in results or not isinstance(results.get('seconds'), dict):
        raise ValueError(
          f'{path}: not the results of isft-theory; choose another --workdir'
        )
      if results[name] != ours:
        raise ValueError(
          f'{path} holds results with {name} {files.shorten(results[name])}, '
          f'not {ours}; choose another --workdir, or remove this one'
        )
  path.parent.mkdir(parents=True, exist_ok=True)
  # Progress lines show the seconds since the start of this run.
  started = time.perf_counter()

  def tell(line: str) -> None:
    print(f'[{time.perf_counter() - started:5.0f} s] {line}', flush=True)

  for part in only or PARTS:
    # Finished parts are not computed again.
    if part in results['seconds']:
      continue
    tell(f'{part}: started')
    # A resumed part adds its earlier time: `unfinished` has it so far.
    unfinished = results.setdefault('unfinished', {})
    before, start = unfinished.pop(part, 0), time.perf_counter()
    # Write after every yield, so that an interruption loses little.
    for entries in PARTS[part](settings, seed, tell, results):
      results |= _plain(entries)
      unfinished[part] = before + time.perf_counter() - start
      _write(path, results)
    results['seconds'][part] = before + time.perf_counter() - start
    # The part is finished: its time is in `seconds` now.
    unfinished.pop(part, None)
    _write(path, results)
    tell(f'{part}: done in {results["seconds"][part]:.0f} s')
  return results


def _plain(value: object) -> Any:
  """Returns the value after a JSON round trip: tuples become lists."""
  return json.loads(json.dumps(value, allow_nan=False))


def _write(path: pathlib.Path, results: dict) -> None:
  text = json.dumps(results, indent=2, allow_nan=False) + '\n'
  files.write_atomically(path, text)
