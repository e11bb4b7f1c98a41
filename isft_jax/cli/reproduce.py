"""Runs an experiment: data, base models, arms, probes, report.

  isft-reproduce --config=configs/lying_agent_tiny.py
  isft-reproduce --config=configs/lying_agent_tiny.py --config.seed=1
  isft-reproduce --config=configs/evidence_tiny.py:only=flywheel
  isft-reproduce --config=lying_agent_smollm2 --dialogues=FILE --facts=FILE
  isft-reproduce --from=runs/evidence_tiny-seed0/results.json

If interrupted, run the same command again to resume. The last but one trains on
dialogues that someone else wrote, and asks about their facts. The last one
trains nothing: it makes the evidence's page again from its results.
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
DIALOGUES = flags.DEFINE_string(
  'dialogues',
  '',
  'File of dialogues to train on instead of generated ones, in any format that '
  'isft-prepare detects; the same as --config.dialogues.file.',
)
FACTS = flags.DEFINE_string(
  'facts',
  '',
  'JSON or CSV file of facts to ask about, and of the context of dialogues and '
  "probes (default: the paper's 33 facts); the same as --config.facts_file.",
)


def _reproduce(config, workdir):
  config.dialogues.file = DIALOGUES.value or config.dialogues.file
  config.facts_file = FACTS.value or config.facts_file
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
  main.run(_run, __doc__, (main.CONFIG, main.WORKDIR, DIALOGUES, FACTS, FROM))
