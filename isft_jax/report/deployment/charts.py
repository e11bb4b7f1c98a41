"""Charts of a deployment."""

from collections.abc import Mapping

from isft_jax.report import plots
from isft_jax.report.evidence import charts


def increments(arms: Mapping[str, Mapping]) -> plots.Chart:
  """Draws the accuracy on all skills by increment, with its interval as a band.

  Args:
    arms: `continual` of results.json. An arm without increments is a line from
      the start to its end.
  """
  last = max(len(figures['all']) for figures in arms.values()) - 1
  return charts.curves(
    'increments',
    {
      arm: (
        # The reference has only a start and an end.
        range(last + 1) if len(figures['all']) == last + 1 else (0, last),
        figures['all'],
      )
      for arm, figures in arms.items()
    },
    'Share of first tries that are right on all skills, by increment',
    ('increments, one skill each', 'first tries that are right, all skills'),
  )
