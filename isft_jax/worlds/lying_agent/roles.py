"""Measures the cost of masking: quality of the agent's turns when held out.

L_do gives the agent's turns no gradient. The model must learn elsewhere how to
open a turn, how to answer and when to stop. Six measures over held-out
dialogues:

  ended        share of replies that end their turn before the token limit
  user_like    share of replies that talk like the user, see `speaker`
  good_nll     mean -log p per token of the agent's turns that are right
  nll          mean -log p per token, for each author
  kl           mean KL(base || model) per token, for each author
  entropy      mean entropy of the next token in the agent's turns

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
from isft_jax.worlds.lying_agent.probes import Slot, kl_and_entropy, score
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
  base: PyTree,
) -> dict[str, Any]:
  """Returns the six measures of a model.

  Args:
    graphdef, params: the model.
    examples: rendered held-out dialogues.
    renderer: the renderer of the training data.
    reply_tokens: maximum tokens per reply.
    seed: sampling seed of the replies.
    base: parameters of the model before fine-tuning.

  Returns:
    'ended' and 'user_like', shares; 'good_nll' and 'entropy' in nats per token;
    'nll' and 'kl', nats per token by author, without the context.
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
  # The first token of a dialogue is not scored.
  whole = [Slot(e.tokens_T[:1], e.tokens_T[1:]) for e in examples]
  nll_BK, weights_BK = score(graphdef, params, whole)
  kl_BK, entropy_BK, _ = kl_and_entropy(graphdef, params, base, whole)
  nll, kl, entropy = (
    _Means(examples, values_BK[weights_BK != 0])
    for values_BK in (nll_BK, kl_BK, entropy_BK)
  )
  return {
    'ended': float(np.mean([reply.ended_by != 'length' for reply in replies])),
    'user_like': float(np.mean([speaker(r.text) == 'user' for r in replies])),
    'good_nll': nll.mean(Provenance.AGENT, Verdict.RIGHT),
    'entropy': entropy.mean(Provenance.AGENT),
    'nll': nll.by_author(),
    'kl': kl.by_author(),
  }


class _Means:
  """Means of a value per token, by the token's author and verdict."""

  def __init__(self, examples: Sequence[Example], values_T: np.ndarray) -> None:
    """Sums the values of all tokens of examples but the first of each."""
    # Author and verdict of every token: the cell that it is added to.
    cell_T = tuple(
      np.concatenate([getattr(e, name)[1:] for e in examples])
      for name in ('provenance_T', 'verdict_T')
    )
    self._total_PV = np.zeros((len(Provenance), len(Verdict)))
    self._count_PV = np.zeros_like(self._total_PV)
    np.add.at(self._total_PV, cell_T, values_T)
    np.add.at(self._count_PV, cell_T, 1)

  def mean(
    self, author: Provenance, verdict: Verdict | slice = slice(None)
  ) -> float:
    """Returns the mean over the tokens of an author, with any verdict."""
    cells = author, verdict
    return float(self._total_PV[cells].sum() / self._count_PV[cells].sum())

  def by_author(self) -> dict[str, float]:
    """Returns author -> mean, for all authors that occur."""
    return {
      author.name: self.mean(author)
      for author in Provenance
      # The context is the same text in all dialogues.
      if self._count_PV[author].any() and author != Provenance.CONTEXT
    }
