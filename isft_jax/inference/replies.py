"""Generates replies as text, with stop texts and display while they grow."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Unpack

import numpy as np

from isft_jax import progress_bar
from isft_jax.inference.generate import DrawUntil, generate
from isft_jax.models.decoder import GraphDef
from isft_jax.types import PyTree


class Reply(NamedTuple):
  """A reply of a model.

  Attributes:
    text: text of the reply, without the stop text.
    tokens: number of tokens generated.
    ended_by: 'stop token', 'stop text', 'length' or 'interrupt'.
  """

  text: str
  tokens: int
  ended_by: str


def reply(
  graphdef: GraphDef,
  params: PyTree,
  prompts: Sequence[np.ndarray],
  max_new_tokens: int,
  decode: Callable[[int, np.ndarray], str],
  *,
  stop_texts: Sequence[str] = (),
  show: Callable[[int, str], bool] | None = None,
  **settings: Unpack[DrawUntil],
) -> list[Reply]:
  """Generates a reply to each prompt, cut before its first stop text.

  Stop texts are searched for in the text, not in the tokens. They may begin and
  end inside a token, and cross blocks.

  Args:
    graphdef: structure of the model.
    params: parameters of the model.
    prompts: int ids of each prompt.
    max_new_tokens: maximum tokens per reply.
    decode: (index of the prompt, ids of its reply) -> text.
    stop_texts: texts that end a reply.
    show: (index, text so far that will not change) -> whether to end the reply
      there. It is called after each block, and once with the whole reply.
    **settings: sampling, seed, rows, block and stop_ids of `generate`.

  Returns:
    One reply per prompt.

  Raises:
    ValueError: a stop text is empty, or `generate` refuses its arguments.
  """
  if '' in stop_texts:
    raise ValueError('a stop text is empty: it would end every reply at once')

  # Indices of replies that `show` ended. This is how `ended_by` is known.
  interrupted: set[int] = set()

  def watch(index: int, ids: np.ndarray) -> bool:
    text = decode(index, ids)
    # End a reply as soon as a stop text is complete. It is cut below.
    if cut(text, stop_texts) != text:
      return True
    # Text that may still become part of a stop text is not shown.
    if show and show(index, settled(text, stop_texts)):
      interrupted.add(index)
    return index in interrupted

  generated = generate(
    graphdef,
    params,
    prompts,
    max_new_tokens,
    watch=watch,
    **settings,
  )
  # A reply may run past its stop text until its block ends, so cut it here.
  replies = []
  for index, ids in enumerate(generated):
    text = decode(index, ids)
    kept = cut(text, stop_texts)
    # `generate` does not report why a reply ended.
    if kept != text:
      ended_by = 'stop text'
    elif len(ids) == max_new_tokens:
      ended_by = 'length'
    else:
      ended_by = 'interrupt' if index in interrupted else 'stop token'
    replies.append(Reply(kept, len(ids), ended_by))
    # The whole reply, with the end that `watch` has held back.
    if show:
      # The whole reply, including text that was held back as a possible stop
      # text.
      show(index, kept)
  return replies


def show_in(bar: progress_bar.Bar, done: int) -> Callable[[int, str], bool]:
  """Returns a `show` that notes the characters of growing replies in a bar.

  Args:
    bar: bar of all replies.
    done: number of replies that were generated before.
  """
  lengths: dict[int, int] = {}

  def show(index: int, text: str) -> bool:
    if bar.is_due():
      bar.update(done, f'{sum(lengths.values()):,} characters in this batch')
    lengths[index] = len(text)
    return False

  return show


def cut(text: str, stop_texts: Sequence[str]) -> str:
  """Cuts a text before the first stop text in it.

  Args:
    text: text of a reply.
    stop_texts: texts that end a reply.

  Returns:
    The text before the earliest of them, or the whole text.
  """
  # find() returns -1 for a stop text that does not occur.
  starts = [text.find(stop) for stop in stop_texts]
  return text[: min((at for at in starts if at >= 0), default=len(text))]


def settled(text: str, stop_texts: Sequence[str]) -> str:
  """Returns the beginning of a growing text that can no longer change.

  Args:
    text: text of a reply so far.
    stop_texts: texts that end a reply.

  Returns:
    The text without an unfinished character or stop text at its end.
  """
  text = text.rstrip('\ufffd')  # the first bytes of a longer character
  prefixes = (
    size
    for stop in stop_texts
    # A complete stop text has been cut before.
    for size in range(1, len(stop))
    if text.endswith(stop[:size])
  )
  return text[: len(text) - max(prefixes, default=0)]
