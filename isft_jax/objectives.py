"""What an objective is: one weight for each author. This is the one line.

  loss = - sum_i w(author_i, verdict_i) log p(z_i | z_<i, c) / sum_i w(...)

With w = 1 for everybody but the context this is the observational likelihood
of a bystander; with w = 0 for the agent's own tokens it is the interventional
likelihood of the agent (de Freitas and Ortega, 2026, section 4). Both condition
on every token; they differ in which tokens count as evidence.
"""

import re

import numpy as np

from isft_jax.types import Provenance, Verdict

_WORLD = (
  Provenance.TEMPLATE,
  Provenance.USER,
  Provenance.TOOL,
  Provenance.HARNESS,
  Provenance.DEMONSTRATION,
)

#                 world  agent  agent, when its verdict is WRONG
_NAMED = {
  'observational': (1.0, 1.0, 1.0),
  'interventional': (1.0, 0.0, 0.0),
  'agent_only': (0.0, 1.0, 1.0),
  'error_masked': (1.0, 1.0, 0.0),
  'truth_only': (0.0, 1.0, 0.0),
}

NAMES = tuple(_NAMED)


def weight_table(objective: str) -> np.ndarray:
  """Returns float32 [provenance, verdict]: the weight of a target token.

  objective: a name in `NAMES`; `weighted(w)`, where the world weighs 1 and the
    agent w; or weights by author, `USER=1,TOOL=0.5` (all others weigh 0).

  Raises ValueError for anything else, for a weight that is negative or not
  finite, and for a weight on PAD or CONTEXT, which are never scored.
  """
  table_PV = np.zeros((len(Provenance), len(Verdict)), np.float32)
  weighted = re.fullmatch(r'weighted\(([^()]+)\)', objective)
  if objective in _NAMED or weighted:
    if weighted:
      agent = _number(weighted[1], objective)
      world, wrong = 1.0, agent
    else:
      world, agent, wrong = _NAMED[objective]
    table_PV[list(_WORLD)] = world
    table_PV[Provenance.AGENT] = agent
    table_PV[Provenance.AGENT, Verdict.WRONG] = wrong
    return table_PV
  if '=' in objective:
    scored = {p.name: p for p in (*_WORLD, Provenance.AGENT)}
    for item in objective.split(','):
      author, _, weight = item.partition('=')
      if author.strip() not in scored:
        raise ValueError(
          f'objective {objective!r}: {author.strip()!r} cannot be scored; '
          f'authors are {", ".join(scored)}, each at most once'
        )
      table_PV[scored.pop(author.strip())] = _number(weight, objective)
    return table_PV
  raise ValueError(
    f'unknown objective {objective!r}; use one of {", ".join(NAMES)}, '
    'weighted(0.3), or weights by author such as USER=1,TOOL=0.5'
  )


def _number(text: str, objective: str) -> float:
  try:
    value = float(text)
  except ValueError:
    value = -1.0
  if not 0 <= value <= float(np.finfo(np.float32).max):
    raise ValueError(
      f'objective {objective!r}: {text.strip()!r} is not a weight (a finite '
      'number, 0 or more)'
    )
  return value
