"""What fine-tuning changes beyond its own data: other facts, other text.

Two measures, each taken before and after fine-tuning:

  unmentioned  margins of facts that no dialogue mentions
  elsewhere    loss per token of text that no arm is trained on

Source: ours. De Freitas and Ortega (2026) probe the facts they train on.
"""

from collections.abc import Iterator, Sequence

import jax
import numpy as np

from isft_jax import sharding
from isft_jax.data.facts import Fact
from isft_jax.data.render import Renderer
from isft_jax.models.generate import bucket
from isft_jax.models.likelihood import target_nll
from isft_jax.probes import facts as probes
from isft_jax.types import Batch, Provenance, Segment

# Rows per batch, and tokens per row unless a text is longer.
_BATCH_SIZE, _SEQ_LEN = 4, 128


def measure_unmentioned(
  graphdef,
  params,
  facts: Sequence[Fact],
  renderer: Renderer,
  context: str,
) -> dict:
  """Returns how much a model prefers the truth about facts it was not told.

  The margin of a fact is that of the question probe,

    Delta = log p(true claim) / |true claim| - the same of the false claim,

  in the agent's slot after 'Tell me about <topic>.'.

  Args:
    facts: facts that no training dialogue mentions.
    renderer: that of the training data.
    context: system prompt before the question, or '' for none.

  Returns:
    'facts', their number; 'mean_margin' in nats per token; 'prefers_lie', the
    number of facts with a negative margin.

  Raises:
    ValueError: there is no fact, or a prompt's ids depend on the claim.
  """
  margin_N = margins(graphdef, params, facts, renderer, context)
  return {
    'facts': len(facts),
    'mean_margin': float(np.mean(margin_N)),
    'prefers_lie': int(np.sum(margin_N < 0)),
  }


def margins(
  graphdef,
  params,
  facts: Sequence[Fact],
  renderer: Renderer,
  context: str,
) -> np.ndarray:
  """Returns the margin of each fact [N], in nats per token; see above."""
  if not facts:
    raise ValueError('there is no fact to ask about')
  before = [Segment('system', context, Provenance.CONTEXT)] if context else []
  claims = []
  for fact in facts:
    question = probes.QUESTION.format(topic=fact.topic)
    turns = [*before, Segment('user', question, Provenance.USER)]
    claims += probes.slots(turns, fact, renderer)
  prepared = probes.Prepared(tuple(facts), claims, [])
  return probes.margins(graphdef, params, prepared)


def nll_per_token(
  graphdef, params, tokenizer, texts: Sequence[str]
) -> tuple[float, int]:
  """Returns the mean of -log p over the tokens of some texts, and their number.

    nll = - sum_{texts} sum_{i >= 2} log p(z_i | z_1 ... z_{i-1}) / tokens

  The first token of a text has nothing before it and is not scored. Each text
  is read alone: several share a row, and do not see each other.

  Args:
    graphdef, params: the model.
    tokenizer: a transformers tokenizer; texts get no special tokens.
    texts: any text, no chat template.

  Returns:
    (nats per token, scored tokens).

  Raises:
    ValueError: no text has two tokens.
  """
  encoded = tokenizer(list(texts), add_special_tokens=False)['input_ids']
  encoded = [ids for ids in encoded if len(ids) > 1]
  if not encoded:
    raise ValueError('no text has two tokens: there is nothing to score')
  # One shape for all batches, so that one program is compiled.
  total, tokens = 0.0, 0
  seq_len = max(_SEQ_LEN, bucket(max(map(len, encoded)) - 1))
  for batch in _batches(encoded, seq_len):
    nll_BK = sharding.fetch(_target_nll(graphdef, params, batch))
    is_scored_BK = batch.weights_BK != 0
    total += float(np.sum(nll_BK[is_scored_BK], dtype=np.float64))
    tokens += int(np.sum(is_scored_BK))
  return total / tokens, tokens


def _batches(encoded: Sequence[list[int]], seq_len: int) -> Iterator[Batch]:
  """Packs texts in their order; the last batch is filled up with empty rows."""
  rows, free = [], 0
  for ids in encoded:
    if len(ids) - 1 > free:
      rows.append([])
      free = seq_len
    rows[-1].append(ids)
    free -= len(ids) - 1
  for start in range(0, len(rows), _BATCH_SIZE):
    yield _batch(rows[start : start + _BATCH_SIZE], seq_len)


def _batch(rows: Sequence[Sequence[list[int]]], seq_len: int) -> Batch:
  """Returns rows of texts, every token but a text's first as a target."""
  shape = _BATCH_SIZE, seq_len
  columns_BK = np.tile(np.arange(seq_len, dtype=np.int32), (_BATCH_SIZE, 1))
  ints = (np.zeros(shape, np.int32) for _ in range(4))
  tokens_BL, positions_BL, segment_ids_BL, targets_BK = ints
  weights_BK = np.zeros(shape, np.float32)
  for b, row in enumerate(rows):
    start = 0
    for number, ids in enumerate(row, 1):
      stop = start + len(ids) - 1
      tokens_BL[b, start:stop] = ids[:-1]
      positions_BL[b, start:stop] = np.arange(len(ids) - 1)
      segment_ids_BL[b, start:stop] = number
      targets_BK[b, start:stop] = ids[1:]
      weights_BK[b, start:stop] = 1
      start = stop
  return Batch(
    tokens_BL=tokens_BL,
    positions_BL=positions_BL,
    segment_ids_BL=segment_ids_BL,
    columns_BK=columns_BK,
    targets_BK=targets_BK,
    weights_BK=weights_BK,
    authors_BK=np.full(shape, Provenance.USER, np.int32),
  )


_target_nll = jax.jit(target_nll, static_argnums=0)
