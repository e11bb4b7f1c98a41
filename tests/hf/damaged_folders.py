"""A small model folder, and seeded ways to damage its files."""

import json
import pathlib
import struct
from collections.abc import Callable

import jax
import numpy as np

from isft_jax.config import ModelConfig
from isft_jax.hf import pretrained, tensor_files
from isft_jax.models import decoder
from tests.damaged_files import POINTER, damaged_json, damaged_text
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


def damage(folder: pathlib.Path, seed: int) -> tuple[str, str]:
  """Damages one file of a folder. Returns its name and what was done to it."""
  rng = np.random.default_rng(seed)
  name = [*DAMAGES][seed % len(DAMAGES)]
  damages = DAMAGES[name]
  path = folder / name
  what, data = damages[rng.integers(len(damages))](path.read_bytes(), rng)
  path.unlink()
  path.write_bytes(data)
  return name, what


def flaw_of(error: BaseException, folder: str) -> str:
  """Returns what is wrong with the line of an error; '' if nothing is."""
  line = str(error)
  if not isinstance(error, ValueError):
    return f'{type(error).__name__}: {line:.200}'
  if folder not in line:
    return f'names no file: {line:.200}'
  is_line = line.isprintable() and len(line.replace(folder, '')) < 500
  return '' if is_line else f'is no line: {line!r:.200}'
