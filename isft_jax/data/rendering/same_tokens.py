"""Compares the ids of two tokenizers: of records, and of weights."""

from typing import NamedTuple

from isft_jax.data.rendering.tokenizer import FastTokenizer


class Difference(NamedTuple):
  """An id that stands for different texts; '' if one of them has no text."""

  id: int
  ours: str
  theirs: str

  def __str__(self) -> str:
    ours, theirs = (repr(text) if text else 'none' for text in self[1:])
    return f'{self.id} ({ours} and {theirs})'


def differences(
  ours: FastTokenizer, theirs: FastTokenizer
) -> tuple[list[Difference], list[Difference]]:
  """Returns ids that stand for different texts in two tokenizers.

  Args:
    ours: the tokenizer of records.
    theirs: the tokenizer of weights.

  Returns:
    Ids of ordinary tokens, and ids that at least one tokenizer has added to its
    vocabulary, both sorted. People rename reserved tokens and add their own, so
    that the second kind may be intended. Ids that ours lacks are in neither.
  """
  our_texts, their_texts = (
    {id: text for text, id in tokenizer.get_vocab().items()}
    for tokenizer in (ours, theirs)
  )
  added = ours.added_tokens_decoder.keys() | theirs.added_tokens_decoder.keys()
  found = [
    Difference(id, text, their_texts.get(id, ''))
    for id, text in sorted(our_texts.items())
    if text != their_texts.get(id)
  ]
  return (
    [each for each in found if each.id not in added],
    [each for each in found if each.id in added],
  )
