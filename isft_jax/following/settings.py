"""Settings of a followed folder, with checks."""

import dataclasses

from isft_jax import config as config_lib


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of `isft-train --follow`; see its `--help`."""

  folder: str  # in which transcripts appear, on disk or in a bucket
  seconds: float = 10.0  # between two looks into the folder
  least: int = 1  # smallest number of new transcripts of an increment
  most: int = 100  # largest number
  rise: float = 0.02  # of the held-out loss, in nats per token
  fall: float = 0.1  # of the mean margin of probes, in nats per token
  replay: float = 0.0  # share of rows from earlier records
  increments: int = 0  # number after which following ends; 0: never
  until_idle: bool = False  # end when a look finds nothing new
  authors: str = ''  # file of rules for authors; '': the default rules

  def __post_init__(self) -> None:
    for name in ('seconds', 'rise', 'fall', 'increments'):
      config_lib.check_range(f'--follow_{name}', getattr(self, name), 0)
    config_lib.check_range('--follow_least', self.least, 1)
    config_lib.check_range('--follow_most', self.most, self.least)
    config_lib.check_range('--follow_replay', self.replay, 0, 0.9)
