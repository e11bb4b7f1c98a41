"""What does masking the agent cost? Its slot, in dialogues held out.

L_do gives the agent's slot no gradient: how to open, what to say and when to
stop must come from elsewhere. Four measures, over held-out dialogues:

  ended        share of replies that end their turn within the tokens allowed
  user_like    share that talk like the user, by `speaker`
  good_nll     mean -log p of a token in the agent's turns that are right
  nll          the same of every author's tokens

Replies are sampled in the first two slots of the agent, the claim and the
acknowledgement, after the turns that the dialogue has there.

Source: ours. Models trained on the user's turns alone learn to be users (arXiv
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
  """Returns what stands before the agent's first so many turns, as ids."""
  is_agents_T = example.provenance_T == Provenance.AGENT
  turns = np.unique(example.segment_T[is_agents_T])
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

  examples: held-out dialogues, rendered.
  seed: of the sampled replies.
  """
  prompts = [slot for example in examples for slot in agent_slots(example, 2)]
  replies = one_line_replies(
    graphdef,
    params,
    prompts,
    reply_tokens,
    renderer.tokenizer,
    sampling=Sampling(temperature=1.0),
    seed=seed,
  )
  total_PV, count_PV = _sums(graphdef, params, examples)
  total_P, count_P = total_PV.sum(axis=1), count_PV.sum(axis=1)
  good = Provenance.AGENT, Verdict.RIGHT
  return {
    'ended': float(np.mean([reply.ended_by != 'length' for reply in replies])),
    'user_like': float(np.mean([speaker(r.text) == 'user' for r in replies])),
    'good_nll': float(total_PV[good] / count_PV[good]),
    'nll': {
      author.name: float(total_P[author] / count_P[author])
      for author in Provenance
      if count_P[author] and author != Provenance.CONTEXT
    },
  }


def _sums(
  graphdef: GraphDef, params: PyTree, examples: Sequence[Example]
) -> tuple[np.ndarray, np.ndarray]:
  """Returns sum and count of -log p by provenance and verdict."""
  whole = [Slot(e.tokens_T[:1], e.tokens_T[1:]) for e in examples]
  nll_BK, weights_BK = score(graphdef, params, whole)
  nll_T = nll_BK[weights_BK != 0]
  at_T = tuple(
    np.concatenate([getattr(e, name)[1:] for e in examples])
    for name in ('provenance_T', 'verdict_T')
  )
  total_PV = np.zeros((len(Provenance), len(Verdict)))
  count_PV = np.zeros_like(total_PV)
  np.add.at(total_PV, at_T, nll_T)
  np.add.at(count_PV, at_T, 1)
  return total_PV, count_PV
