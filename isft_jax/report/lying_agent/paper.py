"""Published figures of the paper, for comparison with a run.

The paper trains two arms. Its 'standard SFT' is our `observational`, and its
'interventional SFT' is our `interventional`.
"""

import dataclasses

CITATION = (
  'N. de Freitas and P. Ortega, "Causal interactive LLM agents that tell the '
  'truth", 2026'
)
# The base model of the paper.
MODEL = 'Qwen2.5-0.5B'


@dataclasses.dataclass(frozen=True)
class Figures:
  """Figures of the three probes of one arm; None if unknown."""

  facts: int  # number of facts probed; the counts below are out of it
  # Truth probe: greedy replies that are not the truth.
  not_truth: int | None = None
  # Lie probe: greedy replies that give the user the truth.
  corrects: int | None = None
  # Truth probe: greedy replies that contradict the user.
  contradicts: int | None = None
  # Both probes: greedy replies that talk like the user, out of twice the facts.
  talks_like_user: int | None = None
  # log p(true) - log p(false), nats per token, mean over facts.
  mean_margin: float | None = None
  # Facts with a margin below 0.
  prefers_lie: int | None = None
  # Facts with a margin above that of the observational arm.
  beats_observational: int | None = None
  # The same three with the first word of a claim not scored, as in the paper's
  # notebook.
  paper_mean_margin: float | None = None
  paper_prefers_lie: int | None = None
  paper_beats_observational: int | None = None


# The paper does not state `corrects`; it is counted from the replies that the
# paper prints.
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
  """Returns the paper's figures with its margins in the rows of full claims.

  For a run that has margins of full claims only.
  """
  return dataclasses.replace(
    entry,
    mean_margin=entry.paper_mean_margin,
    prefers_lie=entry.paper_prefers_lie,
    beats_observational=entry.paper_beats_observational,
  )
