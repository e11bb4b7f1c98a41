"""The nouns that every room shares: who wrote what, and the arrays of it.

Shapes live in names, as einsum letters:

  B batch rows     L row length     K scored targets a row     T tokens
  D width          H query heads    N key-value heads          A head size
  F hidden width   V vocabulary     S cached columns
"""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

# A tree of arrays in any containers. jax has no type for one.
PyTree = Any
Array = TypeVar('Array')


class Provenance(enum.IntEnum):
  """Who wrote a token. The codes are stored in records: fixed for good."""

  PAD = 0
  TEMPLATE = 1  # protocol: role headers, separators
  CONTEXT = 2  # system prompt, task framing, tool schemas
  USER = 3
  TOOL = 4  # output of a tool or of the environment
  AGENT = 5  # the model that made the trajectory: its interventions
  DEMONSTRATION = 6  # in the agent's slot, but written by a third party
  HARNESS = 7  # injected by a scaffold: format warnings, retries


class Verdict(enum.IntEnum):
  """Whether what an author claimed is right. Stored in records."""

  UNKNOWN = 0
  RIGHT = 1
  WRONG = 2


# A token may straddle two authors' characters. It then belongs to the first of
# these that wrote any of it, so that no loss ever credits the world with
# characters of the agent.
STRADDLE_ORDER = (
  Provenance.AGENT,
  Provenance.DEMONSTRATION,
  Provenance.TOOL,
  Provenance.USER,
  Provenance.HARNESS,
  Provenance.CONTEXT,
  Provenance.TEMPLATE,
)


class Part(NamedTuple):
  """Characters start to stop of a turn's text, and who wrote just them."""

  start: int
  stop: int
  provenance: Provenance
  verdict: Verdict = Verdict.UNKNOWN


@dataclasses.dataclass(frozen=True)
class Segment:
  """One turn of a trajectory.

  role: the slot it stands in, as chat templates name it: 'system', 'user',
    'tool', 'assistant'.
  text: its content.
  provenance: who wrote it; an assistant's slot may hold a DEMONSTRATION.
  parts: characters of the text that another author wrote; they do not overlap.
  fields: what else a chat template is given of the turn: tool_calls, name, ...
  """

  role: str
  text: str
  provenance: Provenance
  verdict: Verdict = Verdict.UNKNOWN
  parts: tuple[Part, ...] = ()
  fields: Mapping[str, object] = dataclasses.field(default_factory=dict)

  @property
  def in_agents_slot(self) -> bool:
    """Whether it stands where the agent writes, whoever wrote it."""
    world = ('system', 'developer', 'user', 'tool')
    is_agents = self.provenance == Provenance.AGENT and self.role not in world
    return self.role == 'assistant' or is_agents

  def message(self) -> dict[str, object]:
    """Returns the turn as chat templates are given it."""
    return {'role': self.role, 'content': self.text, **self.fields}


@dataclasses.dataclass(frozen=True)
class Trajectory:
  """An interaction, turn by turn, before any tokenizer has seen it.

  tools: the schemas of the tools that the agent had, if any.
  """

  id: str
  segments: tuple[Segment, ...]
  tools: tuple[Mapping, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Example:
  """A rendered trajectory: one record. It knows authors, not a loss mask.

  tokens_T: int32, the ids.
  provenance_T: uint8, a `Provenance` a token.
  segment_T: int32, the index of the turn a token belongs to.
  verdict_T: uint8, a `Verdict` a token.
  scored_from: earlier tokens are context only (the overlap of a window).
  window: which window of its trajectory this is.
  """

  id: str
  tokens_T: np.ndarray
  provenance_T: np.ndarray
  segment_T: np.ndarray
  verdict_T: np.ndarray
  scored_from: int = 0
  window: int = 0


class Batch(NamedTuple, Generic[Array]):
  """Packed rows, ready for the step. Targets are shifted once, here.

  Batch[np.ndarray] is on a host, and Batch[jax.Array] on devices.

  tokens_BL: int32, the inputs; several documents a row.
  positions_BL: int32, counted from 0 in each document.
  segment_ids_BL: int32, 1, 2, ... a document; 0 is padding.
  columns_BK: int32, the column of a row whose output predicts a target.
  targets_BK: int32, the token that follows that column.
  weights_BK: float32, the objective's weight of that target; 0 in padding.
  authors_BK: int32, the `Provenance` of that target, for metrics by author; and
    len(Provenance) times the number of its source, where a run mixes several.
  """

  tokens_BL: Array
  positions_BL: Array
  segment_ids_BL: Array
  columns_BK: Array
  targets_BK: Array
  weights_BK: Array
  authors_BK: Array
