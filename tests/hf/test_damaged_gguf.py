"""A damaged GGUF file is read, or refused in one line that names it."""

import json

import gguf
import numpy as np
import pytest

from isft_jax import gguf_file
from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.hf import gguf_weights, pretrained
from tests.damaged_files import ODD, POINTER
from tests.dialogues import chatml_tokenizer

WIDTH = 16


@pytest.fixture(scope='module')
def file(tmp_path_factory):
  """A small model with its tokenizer."""
  path = tmp_path_factory.mktemp('gguf') / 'm.gguf'
  tokenizer = chatml_tokenizer()
  core = json.loads(tokenizer.backend_tokenizer.to_str())['model']
  tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
  special = tokenizer_lib.special_ids(tokenizer)
  writer = gguf.GGUFWriter(path, 'llama')
  for key, value in {
    'llama.embedding_length': WIDTH,
    'llama.block_count': 1,
    'llama.feed_forward_length': 24,
    'llama.attention.head_count': 2,
    'llama.attention.head_count_kv': 1,
    'tokenizer.ggml.eos_token_id': 0,
  }.items():
    writer.add_uint32(key, value)
  writer.add_float32('llama.attention.layer_norm_rms_epsilon', 1e-6)
  writer.add_float32('llama.rope.freq_base', 1e4)
  writer.add_string('tokenizer.ggml.model', 'gpt2')
  writer.add_string('tokenizer.ggml.pre', 'gpt-2')
  writer.add_string('tokenizer.chat_template', tokenizer.chat_template)
  writer.add_array('tokenizer.ggml.tokens', tokens)
  writer.add_array(
    'tokenizer.ggml.token_type',
    [3 if id in special else 1 for id in range(len(tokens))],
  )
  writer.add_array('tokenizer.ggml.merges', [*map(' '.join, core['merges'])])
  random = np.random.default_rng(0)
  for name, shape in {
    'token_embd.weight': (len(tokens), WIDTH),
    'output_norm.weight': (WIDTH,),
    'blk.0.attn_norm.weight': (WIDTH,),
    'blk.0.ffn_norm.weight': (WIDTH,),
    'blk.0.attn_q.weight': (16, WIDTH),
    'blk.0.attn_k.weight': (8, WIDTH),
    'blk.0.attn_v.weight': (8, WIDTH),
    'blk.0.attn_output.weight': (WIDTH, 16),
    'blk.0.ffn_gate.weight': (24, WIDTH),
    'blk.0.ffn_up.weight': (24, WIDTH),
    'blk.0.ffn_down.weight': (WIDTH, 24),
  }.items():
    writer.add_tensor(name, random.normal(size=shape).astype(np.float32))
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return gguf_file.read(path)


def enter(path):
  """What all commands read of a file before its weights."""
  header = gguf_file.read(path)
  config = gguf_weights.model_config(header)
  tensors = gguf_weights.Tensors(header, config)
  tokenizer = tokenizer_lib.load(str(path))
  return config, tensors.names(), tokenizer.get_vocab()


def flaw_of(enter, path):
  """Returns (whether a file is refused, what is wrong with that; or '')."""
  try:
    enter(path)
  except ValueError as error:
    line = str(error)
    is_line = line.startswith(str(path)) and line.isprintable()
    return True, '' if is_line and len(line) < 400 else line
  except BaseException as error:  # panics of Rust are no Exceptions
    return True, repr(error)
  return False, ''


def test_the_whole_file_loads(file):
  config, names, vocab = enter(file.path)
  assert (config.vocab_size, config.head_size) == (len(vocab), 8)
  assert len(names) == len(file.tensors)
  model, _ = pretrained.load(file.path)
  assert np.isfinite(model(np.array([[1, 2, 3]]))).all()


def damaged_bytes(data, first, rng, kind):
  """Returns a file that is cut, or has other bits or numbers in its header."""
  changed = bytearray(data)
  place = int(rng.integers(first - 8))
  if kind == 0:
    del changed[rng.integers(len(data)) :]
  elif kind == 1:
    # Counts, keys and sizes are at the start, and the vocabulary follows.
    changed[rng.integers(1000)] = rng.integers(256)
  elif kind == 2:
    changed[place] ^= 1 << int(rng.integers(8))
  else:
    numbers = b'\xff' * 8, bytes(8), b'\0\0\0\0\1\0\0\0'
    changed[place : place + 8] = numbers[rng.integers(3)]
  return bytes(changed)


def test_damaged_bytes_are_refused_in_one_line(file, tmp_path):
  data, path = file.path.read_bytes(), tmp_path / 'x.gguf'
  first = min(tensor.start for tensor in file.tensors.values())
  flaws, refused = [], 0
  for seed in range(400):
    rng = np.random.default_rng(seed)
    path.write_bytes(damaged_bytes(data, first, rng, seed % 4))
    is_refused, flaw = flaw_of(enter, path)
    refused += is_refused
    if flaw:
      flaws.append(f'seed {seed}: {flaw:.300}')
  assert not flaws, '\n'.join(flaws)
  assert 200 < refused < 400


def test_odd_values_are_refused_in_one_line(file, monkeypatch):
  read, flaws, refused = gguf_file.read, [], 0
  lists = [1] * 402, ['a b'] * 402, [None] * 402, [['a']] * 402
  for key in file.metadata:
    for odd in (*ODD, *lists, -1.5, 10**9):
      # Text of a GGUF file is UTF-8.
      if odd == '\ud800':
        continue
      header = file._replace(metadata=file.metadata | {key: odd})
      monkeypatch.setattr(gguf_file, 'read', lambda path, h=header: h)
      is_refused, flaw = flaw_of(enter, file.path)
      refused += is_refused
      if flaw:
        flaws.append(f'{key}={odd!r:.50}: {flaw:.300}')
  monkeypatch.setattr(gguf_file, 'read', read)
  assert not flaws, '\n'.join(flaws)
  assert refused > 300


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    (
      'llama.block_count',
      0,
      'block_count=0 must be an integer from 1 to 4,096',
    ),
    ('llama.block_count', 1.5, 'block_count=1.5 must be an integer'),
    ('llama.embedding_length', 10**12, 'embedding_length=1000000000000 must'),
    ('llama.attention.head_count', 0, 'head_count=0 must be an integer'),
    ('llama.attention.head_count', 3, 'heads do not divide|cannot be rotated'),
    ('llama.rope.freq_base', float('nan'), 'freq_base=nan must be a number'),
    ('llama.rope.freq_base', -1.0, r'freq_base=-1.0 must be a number from 1'),
    (
      'llama.attention.layer_norm_rms_epsilon',
      0.0,
      r'rms_epsilon=0.0 must be a number from 1e-30 to 1',
    ),
    ('tokenizer.ggml.merges', ['a b c'], 'tokenizer.ggml.merges: '),
  ],
)
def test_what_is_wrong_is_named(key, value, message, file, monkeypatch):
  header = file._replace(metadata=file.metadata | {key: value})
  monkeypatch.setattr(gguf_file, 'read', lambda path: header)
  with pytest.raises(ValueError, match=message):
    enter(file.path)


def test_a_pointer_and_a_folder_are_named(tmp_path):
  path = tmp_path / 'x.gguf'
  path.write_bytes(POINTER)
  with pytest.raises(
    ValueError, match='a git-lfs pointer, not the file itself'
  ):
    enter(path)
  path.write_bytes(b'')
  with pytest.raises(ValueError, match='not a GGUF file; copy or download it'):
    enter(path)
