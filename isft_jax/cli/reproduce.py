"""Runs an experiment: data, base models, arms, probes, report.

  isft-reproduce --config=configs/lying_agent_tiny.py
  isft-reproduce --config=configs/lying_agent_tiny.py --config.seed=1
  isft-reproduce --config=configs/evidence_tiny.py:only=flywheel
  isft-reproduce --from=runs/evidence_tiny-seed0/results.json

It downloads nothing. The same command goes on where it was interrupted. The
last one trains nothing: it makes the evidence's page again from its results.
"""

from absl import flags

from isft_jax.cli import main
from isft_jax.config import EvidenceConfig

FROM = flags.DEFINE_string(
  'from',
  None,
  "An evidence run's results.json: make its page again beside it, or in "
  '--workdir, and train nothing.',
)


def _reproduce(config, workdir):
  # Imported late: --help need not wait for jax.
  if isinstance(config, EvidenceConfig):
    from isft_jax.experiments import evidence as experiment
  else:
    from isft_jax.experiments import lying_agent as experiment

  experiment.reproduce(config, workdir)


def _run():
  if FROM.value is None:
    return main.configured(_reproduce)
  from isft_jax.report import evidence

  print(f'open {evidence.rebuild(FROM.value, main.WORKDIR.value)}')


def run():
  """The console script isft-reproduce."""
  main.run(_run, __doc__, (main.CONFIG, main.WORKDIR, FROM))
