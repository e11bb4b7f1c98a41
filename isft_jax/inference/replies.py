"""Replies as text: stop texts, and what can be shown while a reply grows."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Unpack

import numpy as np

from isft_jax.inference.generate import DrawUntil, generate
from isft_jax.models.decoder import GraphDef
from isft_jax.types import PyTree


class Reply(NamedTuple):
  """What a model wrote.

  tokens: how many it took.
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
  """Returns a `Reply` to each prompt, cut before the first stop text in it.

  A stop text is looked for in the text and not in the tokens: it may begin and
  end inside of them, and straddle blocks.

  decode: (index of the prompt, ids of its reply) -> text.
  show: (index, the part of its text that stays) -> whether to end the reply
    there; called after each block, and with the whole reply.
  settings: for `generate`, which also says what is raised.
  """
  if '' in stop_texts:
    raise ValueError('a stop text is empty: it would end every reply at once')

  interrupted: set[int] = set()

  def watch(index: int, ids: np.ndarray) -> bool:
    text = decode(index, ids)
    if cut(text, stop_texts) != text:
      return True
    if show and show(index, settled(text, stop_texts)):
      interrupted.add(index)
    return index in interrupted

  found = generate(
    graphdef,
    params,
    prompts,
    max_new_tokens,
    watch=watch,
    **settings,
  )
  replies = []
  for index, ids in enumerate(found):
    text = decode(index, ids)
    kept = cut(text, stop_texts)
    if kept != text:
      ended_by = 'stop text'
    elif len(ids) == max_new_tokens:
      ended_by = 'length'
    else:
      ended_by = 'interrupt' if index in interrupted else 'stop token'
    replies.append(Reply(kept, len(ids), ended_by))
    if show:
      show(index, kept)
  return replies


def cut(text: str, stop_texts: Sequence[str]) -> str:
  """Returns the text before the first stop text in it, or all of it."""
  found = [text.find(stop) for stop in stop_texts]
  return text[: min((at for at in found if at >= 0), default=len(text))]


def settled(text: str, stop_texts: Sequence[str]) -> str:
  """Returns the part of a growing text that will stay whatever comes.

  Held back are an unfinished character, which decodes as U+FFFD, and the
  beginning of a stop text.
  """
  text = text.rstrip('\ufffd')
  held = (
    size
    for stop in stop_texts
    for size in range(1, len(stop))
    if text.endswith(stop[:size])
  )
  return text[: len(text) - max(held, default=0)]
