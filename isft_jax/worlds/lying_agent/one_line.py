"""Generates replies of one line, the form of all turns in the dialogues."""

from collections.abc import Sequence
from typing import Unpack

import numpy as np

from isft_jax import progress_bar
from isft_jax.data.rendering.tokenizer import FastTokenizer, decode, special_ids
from isft_jax.inference.generate import Draw
from isft_jax.inference.replies import Reply, reply, show_in
from isft_jax.models.decoder import GraphDef
from isft_jax.types import PyTree

# Bounds the key-value cache: 0.6 GB for a model with 135 M parameters.
_BATCH_SIZE = 96


def one_line_replies(
  graphdef: GraphDef,
  params: PyTree,
  prompts: Sequence[np.ndarray],
  max_new_tokens: int,
  tokenizer: FastTokenizer,
  **settings: Unpack[Draw],
) -> list[Reply]:
  """Returns the first line of a reply to each prompt, stripped of spaces.

  A line break or a special token (end of sequence, end of turn) ends a reply.
  The line break is detected in the text, not in the tokens: this keeps the full
  stop although '.\\n' is a single token in some vocabularies.

  All batches have the same shape, so that a single program is compiled.

  Args:
    graphdef, params: the model.
    prompts: ids of each prompt, up to the first token of the reply.
    max_new_tokens: maximum tokens per reply.
    tokenizer: a transformers fast tokenizer.
    **settings: sampling and seed, see `generate`; greedy by default.

  Returns:
    A `Reply` per prompt. Its sampling depends on the seed and on the index of
    the prompt, not on the batch.
  """
  if not len(prompts):
    return []
  # A tokenizer may have no end-of-sequence token.
  stops = {*special_ids(tokenizer), tokenizer.eos_token_id} - {None}
  # Divisions rounded up: batches, and prompts per batch.
  batches = -(-len(prompts) // _BATCH_SIZE)
  size = -(-len(prompts) // batches)
  # Every batch contains the longest prompt, so that all are padded to its
  # length and have the same shape.
  longest = [] if batches == 1 else [max(prompts, key=len)]
  replies: list[Reply] = []
  with progress_bar.Bar('replies', len(prompts), 'prompts') as bar:
    for start in range(0, size * batches, size):
      batch = list(prompts[start : start + size])
      filled = [*batch, *longest * (size + 1 - len(batch))]
      replies += reply(
        graphdef,
        params,
        filled,
        max_new_tokens,
        lambda _, ids: decode(
          tokenizer, ids, clean_up_tokenization_spaces=False
        ),
        stop_texts=['\n'],
        stop_ids=sorted(stops),
        show=show_in(bar, start),
        rows=range(start, start + len(filled)),
        **settings,
      )[: len(batch)]
      bar.update(len(replies))
  return [each._replace(text=each.text.strip()) for each in replies]
