"""Seeded ways to damage a text or a value in a JSON file."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

POINTER = (
  b'version https://git-lfs.github.com/spec/v1\n'
  b'oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393'
  b'\nsize 12345\n'
)
# Values of a wrong kind, out of range, or of no meaning.
ODD: tuple[Any, ...] = (
  *(None, True, False, 0, -1, 1, 2.5, -0.0, 10**30, -(10**30), 1e300),
  *(float('nan'), float('inf'), '', 'x', '16', 'a\nb', '\ud800', '\x1b[31m'),
  *([], [1], ['x', None], {}, {'a': 1}, {'type': 'x'}, [[[]]], 'x' * 10_000),
)


# Stands for a value that is nested more deeply than json.dumps can write.
DEEP = '@deep@'
# Each puts a number into the place of another.
FACTORS = (-1, 0, 0.5, 3, 1e9, 1e40)
# What a text file may have become, besides being cut.
TEXTS = {
  'pointer': POINTER,
  'empty': b'',
  'zeros': bytes(100),
  'page': b'<!DOCTYPE html><html>404</html>',
  'deep': b'[' * 100_000,
  'digits': b'{"a": ' + b'9' * 9999 + b'}',
  'a text': b'"text"',
  'null': b'null',
  'a list': b'[{}]',
  'a number': b'-1',
  'UTF-16': '{"a": 1}'.encode('utf-16'),
  'Latin-1': '{"ä": 1}'.encode('latin-1'),
}


def paths_in(value: Any, path: tuple = ()) -> Iterator[tuple]:
  """Yields the paths of values in a JSON value, the first ones of each list."""
  if path:
    yield path
  children: list[tuple[Any, Any]] = []
  if isinstance(value, dict):
    children = [*value.items()][:25]
  elif isinstance(value, list):
    children = [*enumerate(value)][:3]
  for key, child in children:
    yield from paths_in(child, (*path, key))


def damaged_json(data: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
  """Returns a description and a JSON text with one odd or missing value."""
  value = json.loads(data)
  paths = [*paths_in(value)]
  *path, last = paths[rng.integers(len(paths))]
  place = value
  for key in path:
    place = place[key]
  old, kind = place[last], rng.integers(8)
  if kind == 0:
    del place[last]
    new = 'missing'
  elif kind == 1:
    new = place[last] = ({'value': old}, [old], str(old))[rng.integers(3)]
  elif kind == 2 and type(old) in (int, float):
    new = place[last] = old * FACTORS[rng.integers(len(FACTORS))]
  elif kind == 3:
    new = place[last] = DEEP
  else:
    new = place[last] = ODD[rng.integers(len(ODD))]
  text = json.dumps(value).replace(f'"{DEEP}"', '[' * 3000 + ']' * 3000)
  return f'{[*path, last]} = {new!r:.60}', text.encode()


def damaged_text(data: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
  """Returns a description and other bytes in the place of a text."""
  kind, place = rng.integers(4), int(rng.integers(len(data)))
  if kind == 0:
    return f'cut at {place}', data[:place]
  if kind == 1:
    byte = (b'\0', b'\xff', b'\x1b')[rng.integers(3)]
    return f'{byte!r} at {place}', data[:place] + byte + data[place:]
  name = [*TEXTS][rng.integers(len(TEXTS))]
  return name, TEXTS[name]
