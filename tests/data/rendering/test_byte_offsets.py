"""Offsets by spelling are the tokenizer's own, or none."""

import hypothesis
import numpy as np
import pytest
import tokenizers
import transformers
from hypothesis import strategies as st

from isft_jax.data.rendering import byte_offsets
from isft_jax.data.rendering.tokenizer import rust_tokenizer
from tests.data.chat_tokenizer import SPECIAL, trained

TEXTS = st.lists(
  st.sampled_from(
    ['the ', 'weather', ' ', '\n', 'é', '日本', '😀', '\x00', '{"a": 1}']
    + [*SPECIAL, '<think>', '<|im_', 'end|>']
  )
  | st.text(max_size=8)
).map(''.join)


def both(tokenizer, text):
  encoding = rust_tokenizer(tokenizer).encode(text, add_special_tokens=False)
  ids_T = np.asarray(encoding.ids, np.int32)
  theirs_T2 = np.asarray(encoding.offsets, np.int64).reshape(-1, 2)
  return byte_offsets.offsets(tokenizer, ids_T, text), theirs_T2


@hypothesis.settings(deadline=None, derandomize=True, max_examples=300)
@hypothesis.given(text=TEXTS)
def test_they_are_the_tokenizers_own(text):
  text = text.encode(errors='ignore').decode()
  ours_T2, theirs_T2 = both(trained(), text)
  np.testing.assert_array_equal(ours_T2, theirs_T2)


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('', []),
    ('日', [(0, 1)] * 3),  # three tokens of one character
    ('a<|im_end|>日', [(0, 1), (1, 11), *[(11, 12)] * 3]),
  ],
)
def test_a_few_by_hand(text, expected):
  ours_T2, _ = both(trained(), text)
  assert [tuple(pair) for pair in ours_T2.tolist()] == expected


def wrapped(model, normalizer=None, pre_tokenizer=None):
  made = tokenizers.Tokenizer(model)
  if normalizer:
    made.normalizer = normalizer
  if pre_tokenizer:
    made.pre_tokenizer = pre_tokenizer
  return transformers.PreTrainedTokenizerFast(tokenizer_object=made)


def words():
  vocab = {'▁hi': 0, '▁you': 1, '<unk>': 2, 'hi': 3, 'you': 4}
  return tokenizers.models.WordLevel(vocab, unk_token='<unk>')


OTHERS = {
  'a vocabulary of words': wrapped(
    words(), pre_tokenizer=tokenizers.pre_tokenizers.Whitespace()
  ),
  'a metaspace': wrapped(
    words(), pre_tokenizer=tokenizers.pre_tokenizers.Metaspace()
  ),
}


@pytest.mark.parametrize('what', OTHERS)
def test_where_tokens_do_not_spell_the_text_there_are_none(what):
  ours_T2, theirs_T2 = both(OTHERS[what], 'hi you')
  assert ours_T2 is None
  assert len(theirs_T2) == 2


def test_a_normalizer_that_changes_the_text_leaves_the_tokenizers_own():
  """As Qwen's NFC does, of a letter and an accent that are written apart."""
  tokenizer = trained()
  tokenizer = transformers.PreTrainedTokenizerFast(
    tokenizer_object=tokenizers.Tokenizer.from_str(
      tokenizer.backend_tokenizer.to_str()
    )
  )
  tokenizer.backend_tokenizer.normalizer = tokenizers.normalizers.NFC()
  assert both(tokenizer, 'e\u0301')[0] is None
  ours_T2, theirs_T2 = both(tokenizer, 'é')
  np.testing.assert_array_equal(ours_T2, theirs_T2)


def test_the_letters_of_bytes_are_those_of_gpt_2():
  alphabet = {*tokenizers.pre_tokenizers.ByteLevel.alphabet()}
  bytes_of = byte_offsets._byte_of_letter()
  assert bytes_of.keys() == alphabet
  for letter, byte in bytes_of.items():
    # The pre-tokenizer writes the byte of an ASCII character as its letter.
    if byte < 128:
      (piece,) = ENCODE_BYTES.pre_tokenize_str(chr(byte))
      assert piece[0] == letter
  assert sorted(bytes_of.values()) == [*range(256)]


ENCODE_BYTES = tokenizers.pre_tokenizers.ByteLevel(
  add_prefix_space=False, use_regex=False
)
