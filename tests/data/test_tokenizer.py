"""The tokenizer: every text has ids, files are closed, digests tell apart."""

import os
import socket
import subprocess
import sys

import pytest
import tokenizers
import transformers

from isft_jax.data import tokenizer as tokenizer_lib
from isft_jax.data.tokenizer import END_OF_TEXT, fingerprint, load, train

TEXTS = (
  'User: Tell me about gold.\nAgent: Its symbol is Go.\n',
  'User: Tell me about silver.\nAgent: Its symbol is Ag.\n',
)


@pytest.fixture(scope='module')
def trained():
  return train(TEXTS, vocab_size=280)


# --------------------------------------------------------------------- train


@pytest.mark.parametrize('vocab_size', [257, 270, 290])
def test_the_vocabulary_is_as_large_as_asked_for(vocab_size):
  assert len(train(TEXTS, vocab_size)) == vocab_size


def test_the_vocabulary_ends_where_nothing_is_left_to_merge():
  assert 290 < len(train(TEXTS, 10_000)) < 400


def test_id_0_is_the_end_of_text_and_the_padding(trained):
  assert trained(END_OF_TEXT)['input_ids'] == [0]
  assert (trained.eos_token_id, trained.pad_token_id) == (0, 0)
  assert trained.eos_token == trained.pad_token == END_OF_TEXT


@pytest.mark.parametrize(
  'text',
  [
    '',
    ' ',
    'User: Hi.\n',
    ' two  spaces  \n\n and lines \t\r\n',
    '金銀 is 金',
    '👍🏽 and 👩‍👧',
    'naïve café',  # one letter and its accent are two characters here
    '\x00\x07\x7f\u200b\ufeff',
  ],
)
def test_a_text_that_was_never_seen_comes_back_to_the_letter(trained, text):
  ids = trained(text)['input_ids']
  assert trained.decode(ids) == text
  assert all(0 <= i < len(trained) for i in ids)


def test_each_of_the_256_bytes_has_an_id(trained):
  letters = tokenizers.pre_tokenizers.ByteLevel.alphabet()
  assert len(letters) == 256
  ids = trained.convert_tokens_to_ids(letters)
  assert None not in ids and len(set(ids)) == 256


def test_nothing_is_put_before_or_after_a_text(trained):
  """Or the ids of a text would depend on how it was cut into calls."""
  ids = trained('User')['input_ids']
  assert trained('UserUser')['input_ids'] == ids + ids


def test_with_room_for_all_merges_every_word_is_one_token():
  tokenizer = train(TEXTS, vocab_size=10_000)
  ids = tokenizer(TEXTS[0])['input_ids']
  assert [tokenizer.decode([i]) for i in ids] == [
    *('User', ':', ' Tell', ' me', ' about', ' gold', '.', '\n'),
    *('Agent', ':', ' Its', ' symbol', ' is', ' Go', '.', '\n'),
  ]


def test_the_same_texts_give_the_same_tokenizer_in_another_process(trained):
  """Merges of equal frequency must not depend on the order of a hash table."""
  script = (
    'from isft_jax.data.tokenizer import fingerprint, train\n'
    f'print(fingerprint(train({TEXTS!r}, 280), "plain"))'
  )
  done = subprocess.run(
    [sys.executable, '-c', script],
    capture_output=True,
    text=True,
    check=True,
    env={**os.environ, 'PYTHONHASHSEED': '1', 'RAYON_NUM_THREADS': '1'},
  )
  assert done.stdout.strip() == fingerprint(trained, 'plain')


# ---------------------------------------------------------------------- load


@pytest.fixture
def offline(monkeypatch):
  def refuse(host, *args, **kwargs):
    pytest.fail(f'the network was asked for {host}')

  monkeypatch.setattr(socket, 'getaddrinfo', refuse)


@pytest.mark.usefixtures('offline')
def test_a_saved_tokenizer_is_loaded_as_it_was(trained, tmp_path):
  trained.save_pretrained(tmp_path)
  loaded = load(str(tmp_path))
  assert loaded.get_vocab() == trained.get_vocab()
  assert loaded(TEXTS[0])['input_ids'] == trained(TEXTS[0])['input_ids']
  assert (loaded.eos_token_id, loaded.pad_token_id) == (0, 0)
  assert fingerprint(loaded, 'plain') == fingerprint(trained, 'plain')


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
  with pytest.raises(ValueError, match=f'{tmp_path}: no tokenizer there'):
    load(str(tmp_path))


def test_a_missing_folder_is_named(tmp_path):
  with pytest.raises(ValueError, match=f'{tmp_path}/none: no tokenizer there'):
    load(str(tmp_path / 'none'))


@pytest.mark.usefixtures('offline')
@pytest.mark.parametrize('folder', ['none', 'runs/none'])
def test_a_missing_folder_is_not_looked_for_in_the_network(
  folder, tmp_path, monkeypatch
):
  """A relative path reads like the name of somebody's repository."""
  monkeypatch.chdir(tmp_path)
  with pytest.raises(ValueError, match=f'{folder}: no tokenizer there'):
    load(folder)


def test_a_slow_tokenizer_is_refused(monkeypatch, tmp_path):
  class Slow:
    is_fast = False

  monkeypatch.setattr(
    transformers.AutoTokenizer, 'from_pretrained', lambda *_, **__: Slow()
  )
  with pytest.raises(ValueError, match=f'{tmp_path}: a slow tokenizer'):
    load(str(tmp_path))


# --------------------------------------------------------------- fingerprint


def test_the_fingerprint_is_16_hexadecimal_digits(trained):
  digest = fingerprint(trained, 'plain')
  assert len(digest) == 16 and set(digest) <= set('0123456789abcdef')


def test_whatever_decides_the_ids_is_in_the_fingerprint(trained):
  normalizing = train(TEXTS, vocab_size=280)
  normalizing.backend_tokenizer.normalizer = tokenizers.normalizers.NFC()
  with_another_token = train(TEXTS, vocab_size=280)
  with_another_token.add_tokens(['Zn'])
  digests = [
    fingerprint(trained, 'plain'),
    fingerprint(trained, 'chatml'),
    fingerprint(trained, 'plain', {'thinking': True}),
    fingerprint(trained, 'plain', {'thinking': False}),
    fingerprint(train(TEXTS, vocab_size=279), 'plain'),
    fingerprint(train(TEXTS[:1], vocab_size=280), 'plain'),
    fingerprint(normalizing, 'plain'),
    fingerprint(with_another_token, 'plain'),
  ]
  assert len(set(digests)) == len(digests)


def test_what_decides_nothing_is_not_in_the_fingerprint(trained):
  same = train(TEXTS, vocab_size=280)
  assert fingerprint(same, 'plain', {}) == fingerprint(trained, 'plain', None)
  assert fingerprint(trained, 'plain', {'a': 1, 'b': 2}) == fingerprint(
    trained, 'plain', {'b': 2, 'a': 1}
  )


def test_using_a_tokenizer_does_not_change_its_fingerprint():
  """A batched call leaves its padding and its limit in the tokenizer."""
  used = train(TEXTS, vocab_size=280)
  before = fingerprint(used, 'plain')
  used(list(TEXTS), padding=True, truncation=True, max_length=4)
  assert fingerprint(used, 'plain') == before


def test_the_end_marker_is_what_the_module_says(trained):
  assert tokenizer_lib.END_OF_TEXT == '<|endoftext|>'
  assert trained.decode([0]) == '<|endoftext|>'
