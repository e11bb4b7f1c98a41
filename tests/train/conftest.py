"""Runs of a few steps: what takes time is to compile them."""

import jax
import pytest


@pytest.fixture(scope='module', autouse=True)
def few_optimizations():
  """Lets the programs of these tests compile in half the time."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)
