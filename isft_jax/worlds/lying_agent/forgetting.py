"""Measures how fine-tuning changes other facts and other text.

Two measures, each taken before and after fine-tuning:

  unmentioned  margins of facts that no dialogue mentions
  elsewhere    loss per token of text that no arm is trained on

Source: ours. De Freitas and Ortega (2026) probe the facts they train on.
"""

from collections.abc import Sequence

import numpy as np

from isft_jax.data.rendering.renderer import Renderer
from isft_jax.data.rendering.tokenizer import FastTokenizer
from isft_jax.models.decoder import GraphDef
from isft_jax.types import PyTree
from isft_jax.worlds.lying_agent import probes
from isft_jax.worlds.lying_agent.facts import Fact


def measure_unmentioned(
  graphdef: GraphDef,
  params: PyTree,
  facts: Sequence[Fact],
  renderer: Renderer,
  context: str,
) -> dict[str, float]:
  """Returns margins of facts that are not in the training data.

  The margin of a fact is that of the question probe,

    Delta = log p(true claim) / |true claim|
            - log p(false claim) / |false claim|,

  in the agent's slot after 'Tell me about <topic>.'.

  Args:
    graphdef, params: the model.
    facts: facts that no training dialogue mentions.
    renderer: the renderer of the training data.
    context: system prompt before the question, or '' for none.

  Returns:
    'facts', the number of facts; 'mean_margin' in nats per token;
    'prefers_lie', the number of facts with a negative margin.

  Raises:
    ValueError: `facts` is empty, or a prompt's ids depend on the claim.
  """
  margin_N = margins(graphdef, params, facts, renderer, context)
  return {
    'facts': len(facts),
    'mean_margin': float(np.mean(margin_N)),
    'prefers_lie': int(np.sum(margin_N < 0)),
  }


def margins(
  graphdef: GraphDef,
  params: PyTree,
  facts: Sequence[Fact],
  renderer: Renderer,
  context: str,
) -> np.ndarray:
  """Returns the margin of each fact [N], in nats per token.

  Arguments and errors are those of `measure_unmentioned`.
  """
  if not facts:
    raise ValueError('facts must not be empty')
  # The true and the false claim of each fact in turn.
  claims: list[probes.Slot] = []
  for fact in facts:
    question = probes.QUESTION.format(topic=fact.topic)
    turns = probes.user_says(question, context)
    claims += probes.slots(turns, fact, renderer)
  prepared = probes.Prepared(tuple(facts), claims, prompts=[])
  return probes.margins(graphdef, params, prepared)


def nll_per_token(
  graphdef: GraphDef,
  params: PyTree,
  tokenizer: FastTokenizer,
  texts: Sequence[str],
) -> tuple[float, int]:
  """Returns the mean of -log p over the tokens of texts, and their number.

    nll = - sum_{texts} sum_{i >= 2} log p(z_i | z_1 ... z_{i-1}) / tokens

  The first token of a text has no context and is not scored. Each text is a
  separate sequence.

  Args:
    graphdef, params: the model.
    tokenizer: a transformers tokenizer; no special tokens are added.
    texts: plain texts, without chat template.

  Returns:
    (nll in nats per token, number of scored tokens).

  Raises:
    ValueError: every text has fewer than two tokens.
  """
  encoded = tokenizer(list(texts), add_special_tokens=False)['input_ids']
  texts_ids = [np.array(ids, np.int32) for ids in encoded if len(ids) > 1]
  if not texts_ids:
    raise ValueError('no text has two tokens, so no token can be scored')
  # The first token is the prompt, and all others are scored.
  slots = [probes.Slot(ids[:1], ids[1:]) for ids in texts_ids]
  # Sum in float64: thousands of float32 terms lose digits.
  nll_NK, weights_NK = probes.score(graphdef, params, slots)
  total = np.sum(nll_NK * weights_NK, dtype=np.float64)
  tokens = int(np.sum(weights_NK))
  return float(total / tokens), tokens
