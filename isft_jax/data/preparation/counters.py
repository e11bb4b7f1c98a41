"""Counts rows, tokens and rejections during preparation."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from isft_jax import objectives
from isft_jax.data.rendering.rejection import REASONS
from isft_jax.types import Example, Provenance, Verdict

_QUANTILES = (0, 0.1, 0.5, 0.9, 0.99, 1)


class Tally:
  """Counts so far; the tallies of several workers can be added.

  The invariant is: rows read = rows written + rows rejected.
  """

  def __init__(self) -> None:
    self.read = 0  # rows
    self.written: Counter[str] = Counter()  # rows by split
    self.rejected: Counter[str] = Counter()  # rows by reason
    # Records by split. A row that is cut into windows has several records.
    self.records: Counter[str] = Counter()
    self.tokens_P = np.zeros(len(Provenance), np.int64)
    # Tokens that can be targets, by author and verdict: not the first token of
    # a row. Tokens in the overlap of two windows count once.
    self.scorable_PV = np.zeros((len(Provenance), len(Verdict)), np.int64)
    self.straddling = 0  # tokens with characters of several authors
    self.lost: Counter[str] = Counter()  # see `fidelity.count_losses`
    # Number of rows for each length, or of examples if a row has several.
    # Millions of rows have only thousands of different lengths.
    self.lengths: Counter[int] = Counter()

  def add(self, split: str, examples: Sequence[Example], records: int) -> None:
    """Counts a row that is written.

    Args:
      split: its split.
      examples: the row before it is cut into windows: one example, or one per
        turn of the agent.
      records: number of its records.
    """
    self.written[split] += 1
    self.records[split] += records
    for example in examples:
      self.lengths[len(example.tokens_T)] += 1
      # Tokens that are only context were counted in an earlier example.
      new_T = slice(example.scored_from, None)
      provenance_T = example.provenance_T[new_T]
      self.tokens_P += np.bincount(provenance_T, minlength=len(Provenance))
      # Histogram over pairs (author, verdict) with a joint index. The first
      # token of a row is no target.
      cell_T = provenance_T.astype(np.int64) * len(Verdict)
      cell_T += example.verdict_T[new_T]
      self.scorable_PV.ravel()[:] += np.bincount(
        cell_T[not example.scored_from :], minlength=self.scorable_PV.size
      )

  def merge(self, other: 'Tally') -> 'Tally':
    """Adds the counts of another tally; returns this one."""
    for name, count in vars(other).items():
      if isinstance(count, Counter):
        getattr(self, name).update(count)
      else:
        setattr(self, name, getattr(self, name) + count)
    return self

  def report(self) -> dict:
    """Returns the counts as a dict of JSON values."""
    # Share of all tokens that each objective scores.
    tokens = int(self.tokens_P.sum())
    shares = {
      name: float(
        self.scorable_PV[objectives.weight_table(name) != 0].sum() / tokens
      )
      for name in objectives.NAMES
      if tokens
    }
    return {
      'rows': {
        'read': self.read,
        'written': self.written.total(),
        'rejected': self.rejected.total(),
      },
      'rejected': {r: self.rejected[r] for r in REASONS if self.rejected[r]},
      'splits': {
        split: {'rows': self.written[split], 'records': self.records[split]}
        for split in sorted(self.written, reverse=True)
      },
      'tokens': tokens,
      'tokens_by_author': {
        author.name: int(self.tokens_P[author])
        for author in Provenance
        if self.tokens_P[author]
      },
      'straddling_tokens': self.straddling,
      'lost': {
        'thinking_characters': self.lost['thinking'],
        'whitespace_characters': self.lost['whitespace'],
        'dropped_characters': self.lost['words'],
        'rows_without_their_tool_schemas': self.lost['tools'],
      },
      'scored_share': shares,
      'length_quantiles': {
        f'{q:g}': int(_quantile(self.lengths, q)) for q in _QUANTILES if tokens
      },
    }


def _quantile(counts: Counter[int], q: float) -> float:
  """Returns np.quantile(values, q), for values with multiplicities."""
  # The two values around position q * (n - 1); np.quantile interpolates.
  values = sorted(counts)
  stops = np.cumsum([counts[value] for value in values])
  below, share = divmod(q * (stops[-1] - 1), 1)
  ends = [below, min(below + 1, stops[-1] - 1)]
  around = [values[i] for i in np.searchsorted(stops, ends, side='right')]
  return np.quantile(around, share)
