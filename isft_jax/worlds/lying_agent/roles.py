"""Measures the cost of masking: quality of the agent's turns when held out.

L_do gives the agent's turns no gradient. The model must learn elsewhere how to
open a turn, how to answer and when to stop. Four measures over held-out
dialogues:

  ended        share of replies that end their turn before the token limit
  user_like    share of replies that talk like the user, see `speaker`
  good_nll     mean -log p per token of the agent's turns that are right
  nll          mean -log p per token, for each author

Replies are sampled in the first two slots of the agent (the claim and the
acknowledgement), after the dialogue's own turns.

Source: ours. Models trained only on the user's turns learn to be users (arXiv
2510.06552).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from isft_jax.data.rendering.renderer import Renderer
from isft_jax.inference.sampling import Sampling
from isft_jax.models.decoder import GraphDef
from isft_jax.types import Example, Provenance, PyTree, Verdict
from isft_jax.worlds.lying_agent.one_line import one_line_replies
from isft_jax.worlds.lying_agent.probes import Slot, score
from isft_jax.worlds.lying_agent.speaker import speaker


def agent_slots(example: Example, number: int) -> list[np.ndarray]:
  """Returns the ids before each of the agent's first turns.

  Args:
    example: a rendered dialogue.
    number: maximum number of turns.
  """
  is_agents_T = example.provenance_T == Provenance.AGENT
  turns = np.unique(example.segment_T[is_agents_T])
  # A turn starts at its first token with the agent as author.
  starts = (
    np.argmax(is_agents_T & (example.segment_T == turn))
    for turn in turns[:number]
  )
  return [example.tokens_T[:start] for start in starts]


def measure(
  graphdef: GraphDef,
  params: PyTree,
  examples: Sequence[Example],
  renderer: Renderer,
  reply_tokens: int,
  seed: int,
) -> dict[str, Any]:
  """Returns the four measures of a model.

  Args:
    graphdef, params: the model.
    examples: rendered held-out dialogues.
    renderer: the renderer of the training data.
    reply_tokens: maximum tokens per reply.
    seed: sampling seed of the replies.

  Returns:
    'ended' and 'user_like', shares; 'good_nll' in nats per token; 'nll', nats
    per token by author, without the context.
  """
  # The claim and the acknowledgement of each dialogue.
  prompts = [slot for example in examples for slot in agent_slots(example, 2)]
  replies = one_line_replies(
    graphdef,
    params,
    prompts,
    reply_tokens,
    renderer.tokenizer,
    # Samples from the model's own distribution.
    sampling=Sampling(temperature=1.0),
    seed=seed,
  )
  total_PV, count_PV = _sums(graphdef, params, examples)
  # Sum over verdicts for the mean of an author.
  total_P, count_P = total_PV.sum(axis=1), count_PV.sum(axis=1)
  good = Provenance.AGENT, Verdict.RIGHT
  return {
    'ended': float(np.mean([reply.ended_by != 'length' for reply in replies])),
    'user_like': float(np.mean([speaker(r.text) == 'user' for r in replies])),
    'good_nll': float(total_PV[good] / count_PV[good]),
    'nll': {
      author.name: float(total_P[author] / count_P[author])
      for author in Provenance
      # The context is the same text in all dialogues.
      if count_P[author] and author != Provenance.CONTEXT
    },
  }


def _sums(
  graphdef: GraphDef, params: PyTree, examples: Sequence[Example]
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the sum and the count of -log p [provenance, verdict]."""
  # The first token of a dialogue is not scored.
  whole = [Slot(e.tokens_T[:1], e.tokens_T[1:]) for e in examples]
  nll_BK, weights_BK = score(graphdef, params, whole)
  nll_T = nll_BK[weights_BK != 0]
  # Author and verdict of every scored token: the cell that it is added to.
  cell_T = tuple(
    np.concatenate([getattr(e, name)[1:] for e in examples])
    for name in ('provenance_T', 'verdict_T')
  )
  total_PV = np.zeros((len(Provenance), len(Verdict)))
  count_PV = np.zeros_like(total_PV)
  np.add.at(total_PV, cell_T, nll_T)
  np.add.at(count_PV, cell_T, 1)
  return total_PV, count_PV
