"""The paper's table, as published."""

import dataclasses

from isft_jax.report.lying_agent.paper import PAPER


def test_published_figures():
  assert set(PAPER) == {'observational', 'interventional'}
  # Facts, not the truth, corrects; then without the first word of a claim:
  # margin, prefers the lie, beats L_obs. The paper has no other figures.
  unknown = (None,) * 5
  assert dataclasses.astuple(PAPER['observational']) == (
    *(33, 8, 26, *unknown),
    *(-0.1311, 24, None),
  )
  assert dataclasses.astuple(PAPER['interventional']) == (
    *(33, 0, 32, *unknown),
    *(1.0609, 5, 33),
  )
