"""A small model folder, and seeded ways to damage its files."""

import json
import pathlib
import struct
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from isft_jax.config import ModelConfig
from isft_jax.hf import pretrained, tensor_files
from isft_jax.models import decoder
from tests.dialogues import chatml_tokenizer

MODEL = ModelConfig(
  vocab_size=402,
  width=16,
  layers=2,
  heads=2,
  kv_heads=1,
  head_size=8,
  mlp_width=24,
  rope_theta=10_000.0,
  tie_embeddings=False,
)
SETTINGS = {
  'eos_token_id': [7, 0],
  'do_sample': True,
  'temperature': 0.7,
  'top_k': 5,
  'top_p': 0.9,
  'max_new_tokens': 2,
}
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


def write_folder(path: pathlib.Path) -> pathlib.Path:
  """Writes a random model in three files with its tokenizer and settings."""
  rng, (graphdef, shapes) = np.random.default_rng(0), decoder.abstract(MODEL)
  params = jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes
  )
  model = pretrained.Model(graphdef, params)
  pretrained.save(model, MODEL, path, shard_bytes=30_000)
  chatml_tokenizer().save_pretrained(path)
  (path / 'generation_config.json').write_text(json.dumps(SETTINGS))
  return path


# ---------------------------------------------------------------- mutations

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


def damaged_template(
  data: bytes, rng: np.random.Generator
) -> tuple[str, bytes]:
  """Returns a description and a chat template that is no good."""
  ends = (
    '{% if %}',
    '{{',
    '{{ 1 / 0 }}',
    '{{ messages[99].x.y }}',
    "{{ raise_exception('a\\nb') }}",
    '{{ none + 1 }}',
    '{% for %}',
    '{{ strftime_now(format) }}',
    '{% include "/etc/passwd" %}',
    '{{ x | nofilter }}',
    '{{ ' + '(' * 300 + ')' * 300 + ' }}',
    '{% if true %}' * 200 + '{% endif %}' * 200,
    '{{ "x" * (10 ** 400) }}',
  )
  end = ends[rng.integers(len(ends))]
  return end[:40], data + end.encode()


def damaged_weights(data: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
  """Returns a description and a safetensors file with a damaged header."""
  (length,) = struct.unpack('<Q', data[:8])
  kind = rng.integers(6)
  if kind == 0:
    place = int(rng.integers(len(data)))
    return f'cut at {place}', data[:place]
  if kind == 1:
    more = int(rng.choice([-1, 1, 2**20, 2**40, 2**62]))
    return 'length', struct.pack('<Q', max(0, length + more)) + data[8:]
  if kind == 2:
    return 'pointer', POINTER
  if kind == 3:
    return 'longer', data + b'\0' * 7
  what, header = damaged_json(data[8 : 8 + length], rng)
  return what, struct.pack('<Q', len(header)) + header + data[8 + length :]


# File of the folder -> functions that damage its bytes.
DAMAGES: dict[str, tuple[Callable, ...]] = {
  'config.json': (damaged_json, damaged_json, damaged_json, damaged_text),
  'tokenizer.json': (damaged_json, damaged_json, damaged_text),
  'tokenizer_config.json': (damaged_json, damaged_text),
  'generation_config.json': (damaged_json, damaged_text),
  tensor_files.INDEX: (damaged_json, damaged_text),
  'model-00001-of-00003.safetensors': (damaged_weights,),
  'chat_template.jinja': (damaged_template, damaged_text),
}


def damage(folder: pathlib.Path, seed: int) -> str:
  """Damages one file of a folder. Returns its name and what was done to it."""
  rng = np.random.default_rng(seed)
  name = [*DAMAGES][seed % len(DAMAGES)]
  damages = DAMAGES[name]
  path = folder / name
  what, data = damages[rng.integers(len(damages))](path.read_bytes(), rng)
  path.unlink()
  path.write_bytes(data)
  return f'{name}: {what}'
