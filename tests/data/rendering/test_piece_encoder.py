"""Pieces between special tokens are encoded as in the whole text."""

import random

import numpy as np
import pytest
import tokenizers
import transformers

from isft_jax.data.rendering import piece_encoder
from isft_jax.data.rendering.tokenizer import rust_tokenizer
from tests.data import chat_tokenizer

WORDS = ('the flight', ' to Rome', '\n', '  ', 'é', '😀', '<think>', '{"a": 1}')


def text_of(seed, pieces=12):
  """Returns a text with long pieces, some of them more than once."""
  dice = random.Random(seed)
  long = [''.join(dice.choices(WORDS, k=300)) for _ in range(3)]
  text = ''
  for _ in range(pieces):
    text += dice.choice(('<|im_start|>', '<|im_end|>', '', ' '))
    text += dice.choice((*long, dice.choice(WORDS)))
  return text


def whole(text, tokenizer):
  encoding = rust_tokenizer(tokenizer).encode(text, add_special_tokens=False)
  return encoding.ids, encoding.offsets


@pytest.mark.parametrize('seed', range(20))
def test_ids_and_offsets_are_those_of_the_whole_text(seed):
  tokenizer, text = chat_tokenizer.trained(), text_of(seed)
  ids, offsets = whole(text, tokenizer)
  for _ in range(2):  # the second time from memory
    ids_T, offsets_T2 = piece_encoder.encode(text, tokenizer)
    assert ids_T.tolist() == ids
    assert ids_T.dtype == np.int32
    # The tokenizer gives the bytes of one character to all of its tokens.
    assert offsets_T2.tolist() == [list(pair) for pair in offsets]


def test_an_empty_text_and_one_of_special_tokens():
  tokenizer = chat_tokenizer.trained()
  for text in ('', '<|im_start|>' * 40):
    ids_T, offsets_T2 = piece_encoder.encode(text, tokenizer)
    assert ids_T.tolist() == whole(text, tokenizer)[0]
    assert offsets_T2.shape == (len(ids_T), 2)


def test_long_pieces_are_encoded_once():
  tokenizer = chat_tokenizer.trained(vocab_size=701)
  encoder = piece_encoder._PieceEncoder(tokenizer)
  piece = 'You are a helpful agent. ' * 50
  texts = [f'<|im_start|>{piece}<|im_end|>{i}' for i in range(3)]
  seen = []
  original = piece_encoder._encode
  piece_encoder._encode = lambda text, *rest: (
    seen.append(text) or original(text, *rest)
  )
  try:
    for text in texts:
      encoder(text)
  finally:
    piece_encoder._encode = original
  assert seen.count(piece) == 1


def test_the_memory_forgets_the_piece_that_was_used_longest_ago(monkeypatch):
  monkeypatch.setattr(piece_encoder, '_BUDGET', 3000)
  encoder = piece_encoder._PieceEncoder(chat_tokenizer.trained(vocab_size=702))
  a, b, c = ('x ' * 600, 'y ' * 600, 'z ' * 600)
  for piece in (a, b, a, c):
    encoder(piece)
  assert list(encoder._memory) == [a, c]
  assert encoder._size == 2400


def word_tokenizer(
  *special, pre_tokenizer, normalizer=None, plain=(), **options
):
  alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
  bpe = tokenizers.Tokenizer(
    tokenizers.models.BPE({c: i for i, c in enumerate(alphabet)}, [])
  )
  bpe.pre_tokenizer = pre_tokenizer
  if normalizer is not None:
    bpe.normalizer = normalizer
  bpe.add_special_tokens(
    [tokenizers.AddedToken(text, special=True, **options) for text in special]
  )
  bpe.add_tokens([tokenizers.AddedToken(text) for text in plain])
  return transformers.PreTrainedTokenizerFast(tokenizer_object=bpe)


BYTES = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)


@pytest.mark.parametrize(
  ('tokenizer', 'is_piecewise'),
  [
    (word_tokenizer('<|a|>', '<|b|>', pre_tokenizer=BYTES), True),
    (word_tokenizer('<|a|>', pre_tokenizer=BYTES, lstrip=True), False),
    (word_tokenizer('<|a|>', pre_tokenizer=BYTES, rstrip=True), False),
    (word_tokenizer('<|a|>', pre_tokenizer=BYTES, single_word=True), False),
    (word_tokenizer('<|a', 'a|>', pre_tokenizer=BYTES), False),
    (word_tokenizer('<|a|>', '<|a|>|>', pre_tokenizer=BYTES), False),
    (word_tokenizer('x<|a|>x', '<|a|>', pre_tokenizer=BYTES), False),
    (word_tokenizer('<|a|>', pre_tokenizer=BYTES, plain=('<|b|>',)), True),
    # A token that is not special begins or ends inside of a special one.
    (word_tokenizer('<|a|>', pre_tokenizer=BYTES, plain=('|>x',)), False),
    (word_tokenizer('<|a|>', pre_tokenizer=BYTES, plain=('x<|',)), False),
    (word_tokenizer('<|a|>', pre_tokenizer=BYTES, plain=('<|a',)), False),
    (word_tokenizer(pre_tokenizer=BYTES), False),
    (
      word_tokenizer(
        '<|a|>',
        pre_tokenizer=tokenizers.pre_tokenizers.Metaspace(
          prepend_scheme='first'
        ),
      ),
      False,
    ),
    (
      word_tokenizer(
        '<|a|>',
        pre_tokenizer=BYTES,
        normalizer=tokenizers.normalizers.Prepend('_'),
      ),
      False,
    ),
  ],
)
def test_only_tokenizers_with_independent_pieces_are_split(
  tokenizer, is_piecewise
):
  assert piece_encoder._is_piecewise(tokenizer) is is_piecewise


def test_a_tokenizer_that_is_not_split_gives_the_ids_of_the_whole_text():
  tokenizer = word_tokenizer('<|a|>', pre_tokenizer=BYTES, lstrip=True)
  text = 'long ' * 300 + ' <|a|>' + ' x' * 600
  ids_T, offsets_T2 = piece_encoder.encode(text, tokenizer)
  ids, offsets = whole(text, tokenizer)
  assert ids_T.tolist() == ids
  assert offsets_T2.tolist() == [list(pair) for pair in offsets]
