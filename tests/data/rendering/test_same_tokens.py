"""Ids of two tokenizers, compared text by text."""

import copy

import pytest
import tokenizers
import transformers

from isft_jax.data.rendering.same_tokens import Difference, differences


def made(vocab, added=()):
  """A tokenizer of whole words, with added tokens after its vocabulary."""
  model = tokenizers.models.WordLevel(
    {word: id for id, word in enumerate(vocab)}, unk_token=vocab[0]
  )
  found = transformers.PreTrainedTokenizerFast(
    tokenizer_object=tokenizers.Tokenizer(model)
  )
  found.add_special_tokens({'additional_special_tokens': [*added]})
  return found


WORDS = ['?', 'a', 'b', 'c']


@pytest.mark.parametrize(
  ('ours', 'theirs', 'ordinary', 'added'),
  [
    # The same tokens.
    ((WORDS, ['<x>']), (WORDS, ['<x>']), [], []),
    # Weights may have more tokens than the records.
    ((WORDS, []), (WORDS, ['<x>']), [], []),
    # Records may have more, whose rows of the embedding are untrained.
    ((WORDS, ['<x>']), (WORDS, []), [], [(4, '<x>', '')]),
    # A reserved token with another name.
    ((WORDS, ['<tool>']), (WORDS, ['<r1>']), [], [(4, '<tool>', '<r1>')]),
    # Two words in other places, as in another model's tokenizer.
    (
      (WORDS, []),
      (['?', 'b', 'a', 'c'], []),
      [(1, 'a', 'b'), (2, 'b', 'a')],
      [],
    ),
    # A smaller vocabulary, whose added token stands where ours has a word.
    ((WORDS, []), (WORDS[:3], ['<x>']), [], [(3, 'c', '<x>')]),
    ((WORDS, []), (WORDS[:3], []), [(3, 'c', '')], []),
  ],
)
def test_differences(ours, theirs, ordinary, added):
  found = differences(made(*ours), made(*theirs))
  assert found == (
    [Difference(*each) for each in ordinary],
    [Difference(*each) for each in added],
  )


def test_a_copy_has_no_differences():
  ours = made(WORDS, ['<x>'])
  assert differences(ours, copy.deepcopy(ours)) == ([], [])


def test_a_difference_in_words():
  assert str(Difference(4, '<x>', '')) == "4 ('<x>' and none)"
