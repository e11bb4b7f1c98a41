"""Counts rows, tokens and rejections during preparation."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from isft_jax import objectives
from isft_jax.data.rendering.rejection import REASONS
from isft_jax.types import Example, Provenance, Verdict

# Number of different keys that are counted apart. Rows may have keys that are
# data, as ids.
_MOST_KEYS = 1_000
_OTHER_KEYS = 'other keys'
# The shortest row, the longest row, and quantiles between them.
_QUANTILES = (0, 0.1, 0.5, 0.9, 0.99, 1)


class Tally:
  """Counts so far; the tallies of several workers can be added.

  The invariant is: rows read = rows written + rows rejected.
  """

  def __init__(self) -> None:
    self.read = 0  # rows
    self.written: Counter[str] = Counter()  # rows by split
    self.rejected: Counter[str] = Counter()  # rows by reason
    # Rows that are malformed because of a bug, by the name of the exception.
    self.unexpected_errors: Counter[str] = Counter()
    # Records by split. A row that is cut into windows has several records.
    self.records: Counter[str] = Counter()
    self.tokens_P = np.zeros(len(Provenance), np.int64)
    # Tokens that can be targets, by author and verdict: not the first token of
    # a row. Tokens in the overlap of two windows count once.
    self.scorable_PV = np.zeros((len(Provenance), len(Verdict)), np.int64)
    self.straddling = 0  # tokens with characters of several authors
    self.lost: Counter[str] = Counter()  # see `fidelity.count_losses`
    # Rows with a key that nothing used, by the key; see `formats.usage`.
    self.unused: Counter[str] = Counter()
    # Rows with a mark whose value has no meaning, by the mark.
    self.misread: Counter[str] = Counter()
    # Turns that are left out on purpose, by kind.
    self.left_out: Counter[str] = Counter()
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

  def add_unused(
    self,
    keys: Iterable[str],
    left_out: Mapping[str, int],
    misread: Iterable[str] = (),
  ) -> None:
    """Counts what was not read of a row.

    Args:
      keys: paths of keys that nothing used.
      left_out: turns left out on purpose, by kind.
      misread: marks whose values have no meaning.
    """
    for key in keys:
      self.unused[_bounded(self.unused, key)] += 1
    for mark in misread:
      self.misread[_bounded(self.misread, mark)] += 1
    for kind, number in left_out.items():
      self.left_out[_bounded(self.left_out, kind)] += number

  def merge(self, other: 'Tally') -> 'Tally':
    """Adds the counts of another tally; returns this one."""
    for name, count in vars(other).items():
      # These counters stay bounded when they are added.
      if name in ('unused', 'misread', 'left_out'):
        counts = getattr(self, name)
        for key, number in count.items():
          counts[_bounded(counts, key)] += number
      elif isinstance(count, Counter):
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
    # `verify` compares these rows and splits with the records.
    return {
      'rows': {
        'read': self.read,
        'written': self.written.total(),
        'rejected': self.rejected.total(),
      },
      'rejected': {r: self.rejected[r] for r in REASONS if self.rejected[r]},
      'unexpected_errors': _sorted(self.unexpected_errors),
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
      # Text and schemas that the rendering lacks; see `fidelity.count_losses`.
      'lost': {
        'thinking_characters': self.lost['thinking'],
        'whitespace_characters': self.lost['whitespace'],
        'dropped_characters': self.lost['words'],
        'rows_without_their_tool_schemas': self.lost['tools'],
      },
      'keys_not_used': _sorted(self.unused),
      'marks_not_understood': _sorted(self.misread),
      'turns_left_out': _sorted(self.left_out),
      'scored_share': shares,
      'length_quantiles': {
        f'{q:g}': int(_quantile(self.lengths, q)) for q in _QUANTILES if tokens
      },
    }


def _bounded(counts: Counter[str], key: str) -> str:
  """Returns a key, or `_OTHER_KEYS` if there are too many others."""
  return key if key in counts or len(counts) < _MOST_KEYS else _OTHER_KEYS


def _sorted(counts: Counter[str]) -> dict[str, int]:
  """Returns counts, the largest first."""
  return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _quantile(counts: Counter[int], q: float) -> float:
  """Returns np.quantile(values, q), for values with multiplicities."""
  # The two values around position q * (n - 1); np.quantile interpolates.
  values = sorted(counts)
  stops = np.cumsum([counts[value] for value in values])
  below, share = divmod(q * (stops[-1] - 1), 1)
  ends = [below, min(below + 1, stops[-1] - 1)]
  around = [values[i] for i in np.searchsorted(stops, ends, side='right')]
  return np.quantile(around, share)
