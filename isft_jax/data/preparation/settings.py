"""The settings of a preparation, checked."""

import dataclasses

from isft_jax.data.formats import registry
from isft_jax.data.preparation import windows

OVERLONG = ('window', 'reject')


@dataclasses.dataclass(frozen=True)
class Settings:
  """What to prepare, and how. See `isft-prepare --help`."""

  input: str
  format: str = 'auto'
  heldout: float = 0.0  # of the rows, by hash of their ids
  max_length: int = 0  # tokens; 0: as long as they are
  overlong: str = 'window'
  overlap: int = 0  # tokens; 0: a quarter of max_length
  split: str = ''  # of a data set of the hub; '': train
  num_shards: int = 0  # of each split; 0: one for every 8,192 records
  extends: str = ''  # the folder of a data set that this one begins with

  def __post_init__(self) -> None:
    if self.format not in registry.NAMES:
      raise ValueError(
        f'--format={self.format} is none of {", ".join(registry.NAMES)}'
      )
    if self.overlong not in OVERLONG:
      raise ValueError(
        f'--overlong={self.overlong} is none of {", ".join(OVERLONG)}'
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
    """Tokens of context that a window has at least."""
    return self.overlap or self.max_length // 4
