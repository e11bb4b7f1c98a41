"""Data types that the whole package shares: authors, trajectories, batches.

Names of arrays end in their shape, one einsum letter per axis:

  B batch rows     L tokens per row   K scored targets per row   T tokens
  D width          H query heads      N key-value heads          A head size
  F MLP width      V vocabulary       S cached columns    E experts

So `tokens_BL` is an array [batch rows, tokens per row].
"""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

# A tree of arrays in any containers. jax has no type for it.
PyTree = Any
Array = TypeVar('Array')


class Provenance(enum.IntEnum):
  """Author of a token. Records store these codes, so they never change."""

  PAD = 0  # padding, which nobody wrote
  TEMPLATE = 1  # protocol: role headers, separators
  CONTEXT = 2  # system prompt, task framing, tool schemas
  USER = 3
  TOOL = 4  # output of a tool or of the environment
  AGENT = 5  # the model that wrote the trajectory: its interventions
  DEMONSTRATION = 6  # in the agent's slot, but written by a third party
  HARNESS = 7  # inserted by a scaffold: format warnings, retries


class Verdict(enum.IntEnum):
  """Correctness of an author's claim. Records store these codes."""

  UNKNOWN = 0  # nobody judged the claim
  RIGHT = 1
  WRONG = 2  # the objectives `error_masked` and `truth_only` drop these


# A token can hold characters of two authors. It then belongs to the first
# author in this list that wrote any of them, so a loss never counts the agent's
# characters as evidence about the world.
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
  """A span of a turn's text, characters [start, stop), and its author."""

  start: int
  stop: int
  provenance: Provenance
  verdict: Verdict = Verdict.UNKNOWN


class JsonObject(dict):
  """A JSON object that keeps the text from which it was parsed."""

  def __init__(self, value: Mapping[str, Any], text: str) -> None:
    super().__init__(value)
    self.text = text

  def __reduce__(self) -> tuple:
    return JsonObject, (dict(self), self.text)


@dataclasses.dataclass(frozen=True)
class Segment:
  """One turn of a trajectory.

  Attributes:
    role: name of the slot in chat templates: 'system', 'user', 'tool' or
      'assistant'.
    text: content of the turn.
    provenance: author of the turn. The assistant's slot may hold a
      DEMONSTRATION.
    verdict: correctness of the turn's claim, if it was judged.
    parts: spans of the text by other authors. They do not overlap.
    fields: other fields that the chat template reads: tool_calls, name, ...
  """

  role: str
  text: str
  provenance: Provenance
  verdict: Verdict = Verdict.UNKNOWN
  parts: tuple[Part, ...] = ()
  fields: Mapping[str, object] = dataclasses.field(default_factory=dict)

  @property
  def in_agents_slot(self) -> bool:
    """Whether the turn is in the agent's slot, whoever wrote it."""
    # Templates have their own names for the assistant ('model', 'gpt'), so a
    # role outside this list is the agent's if the agent wrote the turn.
    world = ('system', 'developer', 'user', 'tool')
    is_agents = self.provenance == Provenance.AGENT and self.role not in world
    return self.role == 'assistant' or is_agents

  def message(self) -> dict[str, object]:
    """Returns the turn as a message for chat templates."""
    return {'role': self.role, 'content': self.text, **self.fields}


@dataclasses.dataclass(frozen=True)
class Trajectory:
  """An interaction as a sequence of turns of text, not yet tokenized.

  Attributes:
    id: name of the trajectory.
    segments: turns, in order.
    tools: schemas of the agent's tools, or None.
    template_values: values for the chat template by name, which replace those
      of the renderer for this trajectory.
  """

  id: str
  segments: tuple[Segment, ...]
  tools: tuple[Mapping, ...] | None = None
  template_values: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Example:
  """A rendered trajectory: one record. It has authors, but no loss mask.

  The objective is chosen at training time, so one set of records serves all
  objectives.

  Attributes:
    id: id of the trajectory.
    tokens_T: int32, token ids.
    provenance_T: uint8, one `Provenance` per token.
    segment_T: int32, index of the turn of each token.
    verdict_T: uint8, one `Verdict` per token.
    scored_from: first index that may be scored. Earlier tokens are only
      context (the overlap of a window).
    window: index of this window in its trajectory.
  """

  id: str
  tokens_T: np.ndarray
  provenance_T: np.ndarray
  segment_T: np.ndarray
  verdict_T: np.ndarray
  scored_from: int = 0
  window: int = 0


class Batch(NamedTuple, Generic[Array]):
  """Packed rows for a training step, with targets already shifted.

  Batch[np.ndarray] is on a host, and Batch[jax.Array] is on devices.

  Attributes:
    tokens_BL: int32, inputs. A row holds several documents.
    positions_BL: int32, counted from 0 in each document.
    segment_ids_BL: int32, number of the document in its row: 1, 2, ...; 0 is
      padding.
    columns_BK: int32, column of the row whose output predicts the target.
    targets_BK: int32, token that follows that column.
    weights_BK: float32, weight of the target in the objective; 0 in padding.
    authors_BK: int32, `Provenance` of the target, for metrics by author. If a
      run has a mixture: provenance + len(Provenance) * component number.
  """

  tokens_BL: Array
  positions_BL: Array
  segment_ids_BL: Array
  columns_BK: Array
  targets_BK: Array
  weights_BK: Array
  authors_BK: Array
