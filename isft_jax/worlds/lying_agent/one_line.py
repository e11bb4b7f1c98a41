"""Replies of one line, as the turns of the dialogues are."""

from collections.abc import Sequence
from typing import Unpack

import numpy as np

from isft_jax.data.rendering.tokenizer import FastTokenizer, decode, special_ids
from isft_jax.inference.generate import Draw
from isft_jax.inference.replies import Reply, reply
from isft_jax.models.decoder import GraphDef
from isft_jax.types import PyTree

# Bounds the key-value cache: of a model of 135 M parameters, 0.6 GB.
_BATCH_SIZE = 96


def one_line_replies(
  graphdef: GraphDef,
  params: PyTree,
  prompts: Sequence[np.ndarray],
  max_new_tokens: int,
  tokenizer: FastTokenizer,
  **settings: Unpack[Draw],
) -> list[Reply]:
  """Returns the first line of a reply to each prompt, without outer spaces.

  A line break ends a reply. It is looked for in the text and not in the tokens:
  a full stop stays, although '.\\n' is one token of some vocabularies. Special
  tokens, as those of the end of a sequence or a turn, end a reply as well.

  All batches have one shape, so that one program is compiled.

  Args:
    graphdef, params: the model.
    prompts: ids; each ends where its reply begins.
    max_new_tokens: per reply, at most.
    tokenizer: a transformers fast tokenizer.
    **settings: sampling and seed, as `generate` takes them; greedy by default.

  Returns:
    A `Reply` per prompt. Its sampling depends on the seed and on the number of
    the prompt, not on the batch.
  """
  if not len(prompts):
    return []
  stops = {*special_ids(tokenizer), tokenizer.eos_token_id} - {None}
  batches = -(-len(prompts) // _BATCH_SIZE)
  size = -(-len(prompts) // batches)
  # The longest prompt is in every batch: all are padded to its length.
  longest = [] if batches == 1 else [max(prompts, key=len)]
  replies = []
  for start in range(0, size * batches, size):
    batch = list(prompts[start : start + size])
    filled = [*batch, *longest * (size + 1 - len(batch))]
    replies += reply(
      graphdef,
      params,
      filled,
      max_new_tokens,
      lambda _, ids: decode(tokenizer, ids, clean_up_tokenization_spaces=False),
      stop_texts=['\n'],
      stop_ids=sorted(stops),
      rows=range(start, start + len(filled)),
      **settings,
    )[: len(batch)]
  return [found._replace(text=found.text.strip()) for found in replies]
