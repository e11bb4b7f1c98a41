"""Objectives: one loss weight per author of a token.

  loss = - sum_i w(author_i, verdict_i) log p(z_i | z_<i, c) / sum_i w(...)

With w = 1 for every author except the context, this is the observational
likelihood of a bystander. With w = 0 for the agent's own tokens, it is the
interventional likelihood of the agent (de Freitas and Ortega, 2026, section 4).
Both condition on every token. They differ in the tokens that count as evidence.

L_do gives the agent's turns no gradient, so nothing holds its manner there. An
anchored objective has another loss for the agent's tokens, which needs no
evidence: the distance from the model before fine-tuning.

  loss_i = KL(base(. | z_<i, c) || p(. | z_<i, c))   in place of -log p(z_i | .)

The reverse distance, KL(p || base), has no limit where the base gives no
probability. So it forbids new manners, and leaves the choice among those of the
base almost free.
"""

import re
from typing import Literal

import numpy as np

from isft_jax.types import Provenance, Verdict

# Tokens of the agent's turns that have its weight; see `turn_tokens`.
TurnTokens = Literal['all', 'first', 'ends']

# Every author that can be scored, except the agent. PAD and CONTEXT cannot:
# the likelihood is conditional on the context c.
_WORLD = (
  Provenance.TEMPLATE,
  Provenance.USER,
  Provenance.TOOL,
  Provenance.HARNESS,
  Provenance.DEMONSTRATION,
)

#                 world  agent  agent, when its verdict is WRONG
_NAMED = {
  'observational': (1.0, 1.0, 1.0),  # every author counts alike
  'interventional': (1.0, 0.0, 0.0),  # only the world counts as evidence
  'agent_only': (0.0, 1.0, 1.0),  # ordinary fine-tuning on the agent's tokens
  'error_masked': (1.0, 1.0, 0.0),  # observational without wrong claims
  'truth_only': (0.0, 1.0, 0.0),  # agent_only without wrong claims
}

NAMES = tuple(_NAMED)

_ANCHORS = {
  'weighted': '',
  'anchored': 'forward',
  'reverse_anchored': 'reverse',
  'averaged': 'average',
}

# Objectives with a weight for the agent, such as weighted_first(0.3).
_WEIGHTED = re.compile(
  r'(weighted|anchored|reverse_anchored|averaged)(?:_(first|ends))?\(([^()]+)\)'
)


def weight_table(objective: str) -> np.ndarray:
  """Returns the weight of a target token by its author and verdict.

  Args:
    objective: one of
      - a name in `NAMES`;
      - `weighted(w)`: weight 1 for the world, w for the agent;
      - `anchored(w)`, `reverse_anchored(w)` or `averaged(w)`: the same weights,
        but the loss of the agent's tokens is their distance from the base; see
        `anchor`;
      - one of these four with `_first` or `_ends`, as in `weighted_first(w)`:
        of the agent's turns, only these tokens have a weight; see
        `turn_tokens`;
      - weights by author, as in `USER=1,TOOL=0.5`; other authors get 0.

  Returns:
    float32 [provenance, verdict].

  Raises:
    ValueError: the objective has another form, a weight is negative or not
      finite, or PAD or CONTEXT has a weight (they are never scored).
  """
  # Authors that are not named below keep the weight 0, such as CONTEXT.
  table_PV = np.zeros((len(Provenance), len(Verdict)), np.float32)
  weighted = _WEIGHTED.fullmatch(objective)
  # A name, or weighted(w): the verdict matters only for the agent's tokens.
  if objective in _NAMED or weighted:
    if weighted:
      agent = _number(weighted[3], objective)
      world, wrong = 1.0, agent
    else:
      world, agent, wrong = _NAMED[objective]
    table_PV[list(_WORLD)] = world
    table_PV[Provenance.AGENT] = agent
    table_PV[Provenance.AGENT, Verdict.WRONG] = wrong
    return table_PV
  # Weights by author, for all verdicts alike.
  if '=' in objective:
    scored = {p.name: p for p in (*_WORLD, Provenance.AGENT)}
    for item in objective.split(','):
      author, _, weight = item.partition('=')
      if author.strip() not in scored:
        raise ValueError(
          f'objective {objective!r}: {author.strip()!r} cannot be scored; '
          f'authors are {", ".join(scored)}, each at most once'
        )
      # Popped, so that a second weight for the same author is an error.
      table_PV[scored.pop(author.strip())] = _number(weight, objective)
    return table_PV
  raise ValueError(
    f'unknown objective {objective!r}; use one of {", ".join(NAMES)}, '
    'weighted(0.3), anchored(0.3), reverse_anchored(0.3), averaged(0.3), one '
    'of these four with _first or _ends, as in weighted_first(0.3), or weights '
    'by author such as USER=1,TOOL=0.5'
  )


def evidence(objective: str) -> str:
  """Returns an objective without the agent's tokens that it only anchors.

  Their weights are not for -log p, so a held-out loss leaves them out.

  Args:
    objective: as `weight_table` takes it.
  """
  return 'interventional' if anchor(objective) else objective


def anchor(objective: str) -> str:
  """Returns how the agent's tokens are held near the base.

  Their loss is the Kullback-Leibler divergence between the model and the base,
  in nats, over the whole vocabulary. The token that the agent wrote does not
  enter it.

  Args:
    objective: as `weight_table` takes it.

  Returns:
    'forward': by KL(base || model), which is large where the model has lost
    something of the base. 'reverse': by KL(model || base), which is large where
    the model has something new. 'average': like 'forward', but the base is a
    moving average of the model itself. '': not at all.
  """
  match = _WEIGHTED.fullmatch(objective)
  return _ANCHORS[match[1]] if match else ''


def needs_base(objective: str) -> bool:
  """Returns whether the agent's tokens stay near a model that never changes.

  Args:
    objective: as `weight_table` takes it.
  """
  return anchor(objective) in ('forward', 'reverse')


def turn_tokens(objective: str) -> TurnTokens:
  """Returns which tokens of the agent's turns have its weight.

  Args:
    objective: as `weight_table` takes it.

  Returns:
    'all'. 'first': the token that opens a turn, which mostly says who is
    talking, and little about the world. 'ends': also the token that ends the
    turn. Every turn then teaches where to stop, and none where not to, so an
    agent that learns from its own turns may come to stop too early.
  """
  match = _WEIGHTED.fullmatch(objective)
  found = match[2] if match else None
  return 'first' if found == 'first' else 'ends' if found else 'all'


def split_list(text: str) -> list[str]:
  """Splits a list of objectives with commas, as a flag has it.

  Weights by author also contain commas, which do not split:

      'observational,USER=1,TOOL=0.5,weighted(0.1)'
      -> 'observational', 'USER=1,TOOL=0.5', 'weighted(0.1)'

  Args:
    text: names of objectives. They are not checked here.
  """
  found: list[str] = []
  for part in (each.strip() for each in text.split(',')):
    # Weights of two neighbours belong to one objective.
    if found and '=' in part and '=' in found[-1]:
      found[-1] += f',{part}'
    elif part:
      found.append(part)
  return found


def _number(text: str, objective: str) -> float:
  try:
    value = float(text)
  except ValueError:
    value = -1.0  # refused below, with the same message
  # Weights are stored in float32, which would turn 1e39 into infinity.
  if not 0 <= value <= float(np.finfo(np.float32).max):
    raise ValueError(
      f'objective {objective!r}: {text.strip()!r} is not a weight (a finite '
      'number, 0 or more)'
    )
  return value
