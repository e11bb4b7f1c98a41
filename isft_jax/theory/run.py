"""theory.json: made part by part, and gone on with where it stopped."""

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
  """Runs the parts that are not done; returns what theory.json holds.

  It holds the entries of each part (see `parts`), `seconds`: part -> time of
  the parts that are done, and the settings, seed and environment of all.

  only: names of parts; none stands for all of them.

  Raises ValueError for an unknown part, and if workdir holds figures of other
  settings or of another seed.
  """
  for part in only:
    if part not in PARTS:
      raise ValueError(f'unknown part {part!r}; use one of {", ".join(PARTS)}')
  path = pathlib.Path(workdir) / 'theory.json'
  claimed = {'seed': seed, 'settings': _plain(dataclasses.asdict(settings))}
  results = claimed | {'environment': _plain(environment), 'seconds': {}}
  if path.exists():
    results = json.loads(path.read_text(encoding='utf-8'))
    for name, ours in claimed.items():
      if results[name] != ours:
        raise ValueError(
          f'{path} holds figures of another {name}: {results[name]}, and not '
          f'{ours}; give another --workdir, or remove that one'
        )
  path.parent.mkdir(parents=True, exist_ok=True)
  started = time.perf_counter()

  def tell(line: str) -> None:
    print(f'[{time.perf_counter() - started:5.0f} s] {line}', flush=True)

  for part in only or PARTS:
    if part in results['seconds']:
      continue
    tell(f'{part}: started')
    # A part that is taken up again goes on counting.
    unfinished = results.setdefault('unfinished', {})
    before, begun = unfinished.pop(part, 0), time.perf_counter()
    for entries in PARTS[part](settings, seed, tell, results):
      results |= _plain(entries)
      unfinished[part] = before + time.perf_counter() - begun
      _write(path, results)
    results['seconds'][part] = before + time.perf_counter() - begun
    unfinished.pop(part, None)
    _write(path, results)
    tell(f'{part}: done in {results["seconds"][part]:.0f} s')
  return results


def _plain(value: object) -> Any:
  """The value as JSON gives it back: lists for tuples."""
  return json.loads(json.dumps(value, allow_nan=False))


def _write(path: pathlib.Path, results: dict) -> None:
  text = json.dumps(results, indent=2, allow_nan=False) + '\n'
  files.write_atomically(path, text)
