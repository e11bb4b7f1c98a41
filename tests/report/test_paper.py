"""The paper's table, as published."""

from isft_jax.report.paper import PAPER, Figures


def test_published_figures():
  assert set(PAPER) == {'observational', 'interventional'}
  # Facts, not the truth, corrects, margin, prefers the lie, beats L_obs.
  assert PAPER['observational'] == Figures(33, 8, 26, -0.1311, 24, None)
  assert PAPER['interventional'] == Figures(33, 0, 32, 1.0609, 5, 33)
