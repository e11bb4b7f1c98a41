"""Settings of a preparation, with checks."""

import dataclasses

from isft_jax.data.formats import registry
from isft_jax.data.preparation import windows

OVERLONG = ('window', 'reject')
ON_DROPPED = ('reject', 'keep', 'split')


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of `isft-prepare`; see its `--help`."""

  input: str  # files, folders, patterns, or a data set of the hub
  format: str = 'auto'
  heldout: float = 0.0  # share of rows, chosen by a hash of their ids
  max_length: int = 0  # maximum tokens per record; 0: no limit
  overlong: str = 'window'  # how to treat rows above max_length
  overlap: int = 0  # tokens; 0: a quarter of max_length
  split: str = ''  # of a data set of the hub; '': train
  num_shards: int = 0  # per split; 0: one per 8,192 records
  extends: str = ''  # folder of a data set to which this one adds rows
  # How to treat rows of which the template leaves out words: 'keep' writes them
  # without these words, 'split' writes one example per turn of the agent.
  on_dropped: str = 'reject'

  def __post_init__(self) -> None:
    if self.format not in registry.NAMES:
      raise ValueError(
        f'--format must be one of {", ".join(registry.NAMES)} '
        f'(got {self.format!r})'
      )
    if self.overlong not in OVERLONG:
      raise ValueError(
        f'--overlong must be one of {", ".join(OVERLONG)} '
        f'(got {self.overlong!r})'
      )
    if self.on_dropped not in ON_DROPPED:
      raise ValueError(
        f'--on_dropped must be one of {", ".join(ON_DROPPED)} '
        f'(got {self.on_dropped!r})'
      )
    if not 0 <= self.heldout < 1:
      raise ValueError(f'--heldout={self.heldout} must be 0 or more, below 1')
    for name in ('max_length', 'num_shards'):
      if getattr(self, name) < 0:
        raise ValueError(f'--{name}={getattr(self, name)} must not be negative')
    if self.max_length and self.overlong == 'window':
      windows.check(self.max_length, self.context)

  @property
  def context(self) -> int:
    """Minimum number of context tokens per window."""
    return self.overlap or self.max_length // 4
