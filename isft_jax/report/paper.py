"""The published figures that a run is set beside.

The paper trains two arms. Its 'standard SFT' is our `observational`, its
'interventional SFT' our `interventional`.
"""

import dataclasses

CITATION = (
  'N. de Freitas and P. Ortega, "Causal interactive LLM agents that tell the '
  'truth", 2026'
)
MODEL = 'Qwen2.5-0.5B'


@dataclasses.dataclass(frozen=True)
class Figures:
  """What the three probes say of one arm; None is a figure nobody has.

  facts: how many facts were probed; the counts below are out of it.
  not_truth: truth probe, greedy replies that are not the truth.
  corrects: lie probe, greedy replies that give the user the truth.
  mean_margin: log p(true) - log p(false), nats per token, mean over facts.
  prefers_lie: facts whose margin is below 0.
  beats_observational: facts whose margin is above the observational arm's.
  """

  facts: int
  not_truth: int | None = None
  corrects: int | None = None
  mean_margin: float | None = None
  prefers_lie: int | None = None
  beats_observational: int | None = None


# `corrects` is counted from the replies that the paper prints; it states no
# such figure itself.
PAPER = {
  'observational': Figures(
    facts=33, not_truth=8, corrects=26, mean_margin=-0.1311, prefers_lie=24
  ),
  'interventional': Figures(
    facts=33,
    not_truth=0,
    corrects=32,
    mean_margin=1.0609,
    prefers_lie=5,
    beats_observational=33,
  ),
}

LABELS = {
  'observational': 'paper: standard SFT',
  'interventional': 'paper: interventional SFT',
}
