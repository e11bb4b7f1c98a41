"""What a preparation counts: rows that add up, and tokens by who wrote them."""

import array
import collections

import numpy as np

from isft_jax import objectives
from isft_jax.data.rejection import REASONS
from isft_jax.types import Example, Provenance, Verdict

_QUANTILES = (0, 0.1, 0.5, 0.9, 0.99, 1)


class Tally:
  """What has been read and written so far. Rows add up."""

  def __init__(self):
    self.read = 0
    self.written = collections.Counter()  # by split
    self.rejected = collections.Counter()  # by reason
    self.records = collections.Counter()  # by split; a row may be many windows
    self.tokens_P = np.zeros(len(Provenance), np.int64)
    # Of positions that a record scores: not its first, not those of an overlap.
    self.scorable_PV = np.zeros((len(Provenance), len(Verdict)), np.int64)
    self.straddling = 0
    self.lost = collections.Counter()
    self._lengths = array.array('q')  # tokens, of rows

  def add(self, split: str, whole: Example, records: int) -> None:
    """Counts a row that is written, as so many records."""
    self.written[split] += 1
    self.records[split] += records
    self._lengths.append(len(whole.tokens_T))
    self.tokens_P += np.bincount(whole.provenance_T, minlength=len(Provenance))
    cell_T = whole.provenance_T[1:].astype(np.int64) * len(Verdict)
    cell_T += whole.verdict_T[1:]
    self.scorable_PV.ravel()[:] += np.bincount(
      cell_T, minlength=self.scorable_PV.size
    )

  def report(self) -> dict:
    """Returns the counts as JSON values."""
    tokens = int(self.tokens_P.sum())
    shares = {
      name: float(
        self.scorable_PV[objectives.weight_table(name) != 0].sum() / tokens
      )
      for name in objectives.NAMES
      if tokens
    }
    lengths = np.asarray(self._lengths)
    return {
      'rows': {
        'read': self.read,
        'written': sum(self.written.values()),
        'rejected': sum(self.rejected.values()),
      },
      'rejected': {r: self.rejected[r] for r in REASONS if self.rejected[r]},
      'splits': {
        split: {'rows': self.written[split], 'records': self.records[split]}
        for split in self.written
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
        'rows_without_their_tool_schemas': self.lost['tools'],
      },
      'scored_share': shares,
      'length_quantiles': {
        f'{q:g}': int(np.quantile(lengths, q)) for q in _QUANTILES if tokens
      },
    }
