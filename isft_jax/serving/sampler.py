"""Samples replies and keeps the exact ids of each, with the end of its turn."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.inference.chat_model import ChatModel, Prompt
from isft_jax.inference.generate import generate
from isft_jax.inference.replies import cut, settled
from isft_jax.inference.sampling import Sampling

# Steps between two looks at a stream, and at whether its client has left.
_AT_ONCE = 4


class Settings(NamedTuple):
  """How replies are sampled, and where they end.

  Attributes:
    max_new_tokens: maximum tokens per reply, the stop token included.
    sampling: temperature, top-k and top-p.
    seed: sampling seed.
    stop_texts: texts that end a reply, besides the model's stop ids.
  """

  max_new_tokens: int
  sampling: Sampling
  seed: int
  stop_texts: Sequence[str]


class Completion(NamedTuple):
  """A reply with the ids that the model sampled.

  Attributes:
    text: text of the reply, without its stop.
    ids: all sampled ids, with the stop token or the tokens of the stop text.
    tail: text of what the reply sampled after `text`, such as '<|im_end|>'.
    finish_reason: 'stop' or 'length'.
    parameters: where the parameters are that sampled it; '' if unknown.
  """

  text: str
  ids: list[int]
  tail: str
  finish_reason: Literal['stop', 'length']
  parameters: str = ''


class Interrupted(Exception):
  """Raised if `show` ends a reply."""


def sample(
  chat_model: ChatModel,
  prompt: Prompt,
  number: int,
  settings: Settings,
  show: Callable[[int, str], bool],
) -> list[Completion]:
  """Samples several replies to one prompt.

  Args:
    chat_model: the model.
    prompt: ids before the replies.
    number: number of replies. Each has its own random key.
    settings: how they are sampled.
    show: (index of a reply, its text so far that will not change) -> whether
      to end all replies.

  Returns:
    The completions. None has a token after the one that completes a stop text.

  Raises:
    Interrupted: `show` returned True.
  """
  stop_texts = settings.stop_texts
  is_interrupted = False

  def decode(ids_T: np.ndarray) -> str:
    return chat_model.decode_reply(prompt, ids_T)

  def watch(index: int, ids_T: np.ndarray) -> bool:
    nonlocal is_interrupted
    text = decode(ids_T)
    if cut(text, stop_texts) != text:
      return True
    is_interrupted |= show(index, settled(text, stop_texts))
    return is_interrupted

  replies = generate(
    *chat_model.model,
    [prompt.ids_T] * number,
    settings.max_new_tokens,
    sampling=settings.sampling,
    seed=settings.seed,
    stop_ids=chat_model.stop_ids,
    watch=watch,
    block=_AT_ONCE,
    keep_stop=True,
  )
  if is_interrupted:
    raise Interrupted
  completions = [
    _completion(chat_model, decode, ids_T, stop_texts) for ids_T in replies
  ]
  return [each._replace(parameters=chat_model.place) for each in completions]


def _completion(
  chat_model: ChatModel,
  decode: Callable[[np.ndarray], str],
  ids_T: np.ndarray,
  stop_texts: Sequence[str],
) -> Completion:
  has_stop = ids_T[-1] in chat_model.stop_ids
  words_T = ids_T[:-1] if has_stop else ids_T
  text = decode(words_T)
  if cut(text, stop_texts) != text:
    # The reply ran on until its block ended. Keep the tokens up to the one that
    # completes a stop text, whatever the size of the block.
    while len(words_T) > 1:
      shorter = decode(words_T[:-1])
      if cut(shorter, stop_texts) == shorter:
        break
      words_T, text = words_T[:-1], shorter
    kept = cut(text, stop_texts)
    return Completion(kept, words_T.tolist(), text[len(kept) :], 'stop')
  if has_stop:
    # With its text, although it is a special token.
    tail = tokenizer_lib.decode(chat_model.tokenizer, ids_T[-1:])
    return Completion(text, ids_T.tolist(), tail, 'stop')
  return Completion(text, ids_T.tolist(), '', 'length')
