"""Rows of records under an objective, with the weight of each target.

Inputs, targets and weights of one document in a row, under L_do:

    column      0     1     2     3     4     5
    input     User    :    Hi   Agent   :    Hey       (then ' there', ...)
    target      :    Hi   Agent   :    Hey   there
    weight      1     1     1     1     0     0

Inputs are shifted before packing. Therefore no target lies in another document,
and the first token of a document is never a target.
"""

import hashlib
import json

import numpy as np

from isft_jax import objectives
from isft_jax.config import RunConfig
from isft_jax.data.batching import packing
from isft_jax.data.records import index as index_lib
from isft_jax.data.records.dataset import Records
from isft_jax.types import Batch, Example, Provenance

# Key of the records and settings of a plan -> its budget of targets, which was
# searched for, and the digest of the plan.
KnownPlans = dict[str, tuple[int, str]]


def target_weights(
  example: Example,
  table_PV: np.ndarray,
  turn_tokens: objectives.TurnTokens = 'all',
) -> np.ndarray:
  """Returns float32 [T]: the weight of each token as a target.

  0 for the first token, which has no context, and for the tokens before
  `scored_from`, which another window of the trajectory scores.

  Args:
    example: a record.
    table_PV: weights by provenance and verdict, from `weight_table`.
    turn_tokens: see `objectives.turn_tokens`.
  """
  weights_T = table_PV[example.provenance_T, example.verdict_T]
  if turn_tokens != 'all':
    weights_T[_is_inside(example, turn_tokens == 'ends')] = 0
  weights_T[: max(1, example.scored_from)] = 0
  return weights_T


def _is_inside(example: Example, without_last: bool) -> np.ndarray:
  """Returns which tokens of the agent do not open a turn, bool [T].

  Args:
    example: a record.
    without_last: leave out those that end a turn, too.
  """
  # Numbers of the turns, and -1 for other authors.
  is_agents_T = example.provenance_T == Provenance.AGENT
  turn_T = np.where(is_agents_T, example.segment_T, -1)
  before_T, after_T = np.pad(turn_T, 1, constant_values=-1)[
    [np.arange(len(turn_T)), np.arange(len(turn_T)) + 2]
  ]
  is_inside_T = is_agents_T & (before_T == turn_T)
  return is_inside_T & (after_T == turn_T) if without_last else is_inside_T


class Scored:
  """The records of a mixture component, packed under its objective."""

  def __init__(
    self,
    records: Records,
    objective: str,
    config: RunConfig,
    known: KnownPlans | None = None,
    progress: packing.Progress = lambda done, total: None,
  ) -> None:
    """Plans the rows.

    Args:
      records: the records of the component.
      objective: its objective, which gives the weights.
      config: the config of the run. `plan_objective` overrides the objective
        for packing, so that runs with different objectives see equal rows.
      known: plans that need no search for a budget of targets. The plan of this
        component is added.
      progress: see `packing.make_plan`.

    Raises:
      ValueError: the plan's objective leaves out a token that the component's
        objective scores, or the latter scores no token at all.
    """
    plan_objective = config.plan_objective or objective
    self._planned_PV = objectives.weight_table(plan_objective)
    self._weights_PV = objectives.weight_table(objective)
    self._turn_tokens = objectives.turn_tokens(objective)
    # Every scored token must be a target of the plan.
    if np.any((self._weights_PV != 0) & (self._planned_PV == 0)):
      raise ValueError(
        f'rows are planned for {plan_objective!r}, which leaves out tokens '
        f'that {objective!r} scores; plan for the latter'
      )
    # The plan may have targets even if the objective scores none of them.
    if not packing.count_targets(records.index, self._weights_PV).any():
      raise ValueError(
        f'objective {objective!r} gives every token of '
        f'{records.folder} weight 0: there is nothing to learn from'
      )
    self.records = records
    self.plan = self._make_plan(
      config, {} if known is None else known, progress
    )
    # 'trajectory': a trajectory's weights sum to one, whatever its length.
    self._scale_T = None  # by number of the trajectory
    if config.normalize == 'trajectory':
      # The index does not count the first and last tokens of turns.
      if self._turn_tokens != 'all':
        raise ValueError(
          f'objective {objective!r} weighs only single tokens of turns, which '
          "config.normalize='trajectory' cannot count; use "
          "config.normalize='token'"
        )
      total_N = np.concatenate(
        [
          (block.counts_NPV * self._weights_PV).sum(axis=(1, 2))
          for block in index_lib.blocks(records.index)
        ]
      )
      # Sum over all windows of a trajectory.
      total_T = np.bincount(records.index.trajectory_N, total_N)
      self._scale_T = 1 / np.where(total_T > 0, total_T, 1)

  def _make_plan(
    self, config: RunConfig, known: KnownPlans, progress: packing.Progress
  ) -> packing.Plan:
    def make(targets_per_row: int) -> packing.Plan:
      return packing.make_plan(
        self.records.index,
        self._planned_PV,
        config.seq_len,
        targets_per_row,
        config.seed,
        config.documents_per_row,
        config.shuffle,
        progress,
      )

    # Nothing is searched for.
    if config.targets_per_row:
      return make(config.targets_per_row)
    key = self._plan_key(config)
    targets_per_row, digest = known.get(key, (0, ''))
    if targets_per_row > 0:
      plan = make(targets_per_row)
      if plan.digest() == digest:
        return plan
    plan = make(0)
    known[key] = plan.targets_per_row, plan.digest()
    return plan

  def _plan_key(self, config: RunConfig) -> str:
    """Returns a SHA-256 of everything that determines the plan."""
    settings = (
      self.records.digest(),
      self._planned_PV.tolist(),
      config.seq_len,
      config.seed,
      config.documents_per_row,
      config.shuffle,
    )
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()

  def place(
    self, batch: Batch[np.ndarray], b: int, entries: np.ndarray, component: int
  ) -> None:
    """Writes the documents of one row into a batch.

    Args:
      batch: the batch, which is changed.
      b: index of the row in the batch.
      entries: the entries of the row in the plan.
      component: index of this mixture component, for metrics.
    """
    column = slot = 0  # the next free ones
    for document, entry in enumerate(entries, start=1):
      column, slot = self._place(batch, b, column, slot, document, entry)
    # Metrics count authors separately for each component.
    batch.authors_BK[b, :slot] += component * len(Provenance)

  # Reads one record; planning needs only the index.
  def _place(
    self,
    batch: Batch[np.ndarray],
    b: int,
    column: int,
    slot: int,
    document: int,
    entry: np.ndarray,
  ) -> tuple[int, int]:
    """Writes one document into row b; returns the next free column and slot."""
    record, first, stop = entry
    example = self.records[record]
    # Positions of the entry's targets, counted under the plan's objective.
    planned_T = target_weights(example, self._planned_PV)
    positions_K = np.flatnonzero(planned_T)[first:stop]
    length = positions_K[-1]  # inputs end before the last target

    # Inputs.
    columns = slice(column, column + length)
    batch.tokens_BL[b, columns] = example.tokens_T[:length]
    batch.positions_BL[b, columns] = np.arange(length)
    batch.segment_ids_BL[b, columns] = document

    # Targets. The input at column p - 1 predicts the token at position p.
    slots = slice(slot, slot + len(positions_K))
    authors_K = example.provenance_T[positions_K]
    weights_K = target_weights(example, self._weights_PV, self._turn_tokens)[
      positions_K
    ]
    batch.columns_BK[b, slots] = column + positions_K - 1
    batch.targets_BK[b, slots] = example.tokens_T[positions_K]
    if self._scale_T is not None:
      trajectory = self.records.index.trajectory_N[record]
      weights_K = weights_K * self._scale_T[trajectory]
    batch.weights_BK[b, slots] = weights_K
    batch.authors_BK[b, slots] = authors_K
    return columns.stop, slots.stop
