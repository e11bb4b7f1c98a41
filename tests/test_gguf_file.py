"""What a GGUF file states: written by the package gguf, read here."""

import gguf
import numpy as np
import pytest

from isft_jax import gguf_file


@pytest.fixture
def path(tmp_path):
  """A file with a value of each kind and two tensors."""
  path = tmp_path / 'small.gguf'
  writer = gguf.GGUFWriter(path, 'llama')
  writer.add_uint8('a.uint8', 200)
  writer.add_int8('an.int8', -3)
  writer.add_uint32('a.uint32', 2**31)
  writer.add_int32('an.int32', -5)
  writer.add_uint64('a.uint64', 2**40)
  writer.add_float32('a.float32', 0.5)
  writer.add_float64('a.float64', 0.1)
  writer.add_bool('a.bool', True)
  writer.add_string('a.text', 'Köln 金')
  writer.add_array('some.texts', ['a', '', 'Ġb'])
  writer.add_array('some.numbers', [1, -2, 3])
  writer.add_tensor('matrix', np.arange(6, dtype=np.float32).reshape(2, 3))
  writer.add_tensor('vector', np.arange(3, dtype=np.float16))
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


def test_every_kind_of_value_is_read(path):
  assert gguf_file.read(path).metadata == {
    'general.architecture': 'llama',
    'a.uint8': 200,
    'an.int8': -3,
    'a.uint32': 2**31,
    'an.int32': -5,
    'a.uint64': 2**40,
    'a.float32': 0.5,
    'a.float64': 0.1,
    'a.bool': True,
    'a.text': 'Köln 金',
    'some.texts': ['a', '', 'Ġb'],
    'some.numbers': [1, -2, 3],
  }


def test_tensors_are_where_the_package_gguf_finds_them(path):
  theirs = {
    tensor.name: (
      tuple(int(n) for n in tensor.shape[::-1]),
      int(tensor.tensor_type),
      int(tensor.data_offset),
    )
    for tensor in gguf.GGUFReader(path).tensors
  }
  assert gguf_file.read(path).tensors == theirs


def test_a_file_that_is_cut_off_in_its_table_is_an_error(path):
  whole = path.read_bytes()
  end = min(tensor.start for tensor in gguf_file.read(path).tensors.values())
  last = whole[:end].rstrip(b'\0')
  for size in range(0, len(last), 7):
    path.write_bytes(whole[:size])
    with pytest.raises(ValueError, match=r'not a GGUF file|cut off'):
      gguf_file.read(path)


@pytest.mark.parametrize(
  ('place', 'replacement', 'message'),
  [
    (0, b'PK\3\4', 'not a GGUF file'),
    (4, b'\0\0\0\3', 'only versions 2 and 3, little-endian'),
    (8, b'\xff' * 8, 'cut off'),
  ],
)
def test_another_file_is_an_error(path, place, replacement, message):
  data = bytearray(path.read_bytes())
  data[place : place + len(replacement)] = replacement
  path.write_bytes(data)
  with pytest.raises(ValueError, match=message):
    gguf_file.read(path)
