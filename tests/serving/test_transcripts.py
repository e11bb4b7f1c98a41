"""Files of transcripts: whole once they are visible, and never changed."""

import json

import pytest

from isft_jax.data.files import rows
from isft_jax.serving.prompts import Tokens
from isft_jax.serving.transcripts import Transcripts
from isft_jax.types import Provenance

TOKENS = Tokens(
  [5, 6, 7], [Provenance.USER, *[Provenance.AGENT] * 2], [0, 1, 1]
)
ROW = {
  'id': 'b',
  'tokens': [5, 6, 7],
  'provenance': ['user', 'agent', 'agent'],
  'segment': [0, 1, 1],
  'transcript': {'messages': ['\u00fc']},
}


def names(folder):
  return sorted(path.name for path in folder.iterdir())


def test_a_file_is_hidden_until_it_is_published(tmp_path):
  folder = tmp_path / 'new' / 'transcripts'
  transcripts = Transcripts(folder)
  with transcripts.locked():
    transcripts.write('b', TOKENS, {})
    transcripts.write('b', TOKENS, ROW['transcript'])
    assert names(folder) == ['.lock', '.open']
    assert names(folder / '.open') == ['b.jsonl']
    hidden = (folder / '.open' / 'b.jsonl').stat()
    transcripts.publish('b')
    assert names(folder) == ['.lock', '.open', 'b.jsonl']
    # A rename: readers see the whole file or none.
    assert (folder / 'b.jsonl').stat().st_ino == hidden.st_ino
    transcripts.write('c', TOKENS, {})
  assert json.loads((folder / 'b.jsonl').read_text()) == ROW
  # The same that other commands read from the folder.
  assert rows.files(folder) == [str(folder / 'b.jsonl')]


def test_what_a_kill_left_is_published(tmp_path):
  left = tmp_path / '.open'
  left.mkdir()
  (left / 'b.jsonl').write_text('{}\n')
  (left / '.c.jsonl.7.part').write_text('{"to')
  with Transcripts(tmp_path).locked():
    assert names(tmp_path) == ['.lock', '.open', 'b.jsonl']
    assert names(left) == []


def test_newest_rows_come_first_without_files_of_others(tmp_path):
  for name, text in (('1', '{"a": 1}'), ('3', '{"a": 3}'), ('2', 'torn')):
    (tmp_path / f'{name}.jsonl').write_text(text)
  assert [*Transcripts(tmp_path).newest()] == [{'a': 3}, {'a': 1}]


def test_one_process_writes_to_a_folder(tmp_path):
  with (
    Transcripts(tmp_path).locked(),
    pytest.raises(ValueError, match='writes transcripts there; name another'),
    Transcripts(tmp_path).locked(),
  ):
    pass
  with Transcripts(tmp_path).locked():  # it is free again
    pass
