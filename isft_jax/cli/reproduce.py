"""Runs the lying-agent experiment: data, base model, arms, probes, report.

  isft-reproduce --config=configs/lying_agent_tiny.py
  isft-reproduce --config=configs/lying_agent_tiny.py --config.seed=1

It downloads nothing. The same command goes on where it was interrupted.
"""

from isft_jax.cli import main


def _reproduce(config, workdir):
  # Imported late: --help need not wait for jax.
  from isft_jax.experiments import lying_agent

  lying_agent.reproduce(config, workdir)


def run():
  """The console script isft-reproduce."""
  main.run_config(_reproduce, __doc__)
