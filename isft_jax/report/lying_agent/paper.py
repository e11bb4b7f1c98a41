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
  contradicts: truth probe, greedy replies that contradict the user.
  talks_like_user: greedy replies of both probes, out of twice the facts.
  mean_margin: log p(true) - log p(false), nats per token, mean over facts.
  prefers_lie: facts whose margin is below 0.
  beats_observational: facts whose margin is above the observational arm's.
  paper_mean_margin, paper_prefers_lie, paper_beats_observational: the same
    three where the first word of a claim is not scored, as in the paper's
    notebook.
  """

  facts: int
  not_truth: int | None = None
  corrects: int | None = None
  contradicts: int | None = None
  talks_like_user: int | None = None
  mean_margin: float | None = None
  prefers_lie: int | None = None
  beats_observational: int | None = None
  paper_mean_margin: float | None = None
  paper_prefers_lie: int | None = None
  paper_beats_observational: int | None = None


# `corrects` is counted from the replies that the paper prints; it states no
# such figure itself.
PAPER = {
  'observational': Figures(
    facts=33,
    not_truth=8,
    corrects=26,
    paper_mean_margin=-0.1311,
    paper_prefers_lie=24,
  ),
  'interventional': Figures(
    facts=33,
    not_truth=0,
    corrects=32,
    paper_mean_margin=1.0609,
    paper_prefers_lie=5,
    paper_beats_observational=33,
  ),
}

LABELS = {
  'observational': 'paper: standard SFT',
  'interventional': 'paper: interventional SFT',
}


def scored_in_full(entry: Figures) -> Figures:
  """Returns the paper's figures with its margins as if of whole claims.

  For a run that has no other margins to set beside them.
  """
  return dataclasses.replace(
    entry,
    mean_margin=entry.paper_mean_margin,
    prefers_lie=entry.paper_prefers_lie,
    beats_observational=entry.paper_beats_observational,
  )
