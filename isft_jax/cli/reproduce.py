"""Runs an experiment: data, base models, arms, probes, report.

  isft-reproduce --config=configs/lying_agent_tiny.py
  isft-reproduce --config=configs/lying_agent_tiny.py --config.seed=1
  isft-reproduce --config=configs/evidence_tiny.py:only=flywheel
  isft-reproduce --from=runs/evidence_tiny-seed0/results.json
  isft-reproduce --from=S0/results.json,S1/results.json --workdir=DIR

It downloads nothing. If interrupted, run the same command again to resume. The
last two train nothing: they make a page again from its results, and the summary
of several seeds of the lying agent (means and ranges, also as Markdown).
"""

from absl import flags

from isft_jax.cli import main
from isft_jax.config import EvidenceConfig

FROM = flags.DEFINE_list(
  'from',
  None,
  'results.json of a run: writes its page beside it, or into --workdir, and '
  'trains nothing. Of several seeds of the lying agent, separated by commas: '
  'writes their summary.',
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
  from isft_jax.report import rebuild

  page, *others = rebuild.rebuild(FROM.value, main.WORKDIR.value)
  print(', or read '.join([f'open {page}', *map(str, others)]))


def run():
  """The console script isft-reproduce."""
  main.run(_run, __doc__, (main.CONFIG, main.WORKDIR, FROM))
