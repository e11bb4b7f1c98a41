"""Runs an experiment: data, base models, arms, probes, report.

  isft-reproduce --config=configs/lying_agent_tiny.py
  isft-reproduce --config=configs/lying_agent_tiny.py --config.seed=1
  isft-reproduce --config=configs/evidence_tiny.py:only=flywheel
  isft-reproduce --config=lying_agent_smollm2 --dialogues=FILE --facts=FILE
  isft-reproduce --from=runs/evidence_tiny-seed0/results.json
  isft-reproduce --from=S0/results.json,S1/results.json --workdir=DIR

If interrupted, run the same command again to resume. The fourth command trains
on dialogues from a file and asks about the facts in another. The last two do
not train: they rebuild the page of a run from its results, and write a summary
of several seeds of the lying agent (means and ranges, also as Markdown).
"""

from absl import flags

from isft_jax.cli import main
from isft_jax.experiments.config import EvidenceConfig, LyingAgentConfig
from isft_jax.train import signals

FROM = flags.DEFINE_list(
  'from',
  None,
  'Path of results.json of a finished run, whose page is made again without '
  'training. Several paths, separated by commas, make a summary of seeds of '
  'the lying agent.',
)
DIALOGUES = flags.DEFINE_string(
  'dialogues',
  '',
  'File of dialogues to train on instead of generated ones, in any format that '
  'isft-prepare detects; sets config.dialogues.file.',
)
FACTS = flags.DEFINE_string(
  'facts',
  '',
  'JSON or CSV file of facts to ask about, and of the context of dialogues and '
  "probes; sets config.facts_file (default the paper's 33 facts).",
)


def _reproduce(config: LyingAgentConfig, workdir: str) -> None:
  # The two flags are short names of config fields.
  config.dialogues.file = DIALOGUES.value or config.dialogues.file
  config.facts_file = FACTS.value or config.facts_file
  config.check()
  # Imported late: --help need not wait for jax.
  from isft_jax.train import lock

  with lock.locked(workdir):
    if isinstance(config, EvidenceConfig):
      from isft_jax.experiments.evidence import grid

      grid.reproduce(config, workdir)
    else:
      from isft_jax.experiments import lying_agent

      lying_agent.reproduce(config, workdir)


def _run() -> None:
  if FROM.value is None:
    main.configured(_reproduce)
    return
  from isft_jax.report import rebuild

  # --from needs no config and no jax.
  page, *others = rebuild.rebuild(FROM.value, main.WORKDIR.value)
  print(', or read '.join([f'open {page}', *map(str, others)]))


def run() -> None:
  """Runs the console script isft-reproduce."""
  holders = main.CONFIG, main.WORKDIR, DIALOGUES, FACTS, FROM
  with signals.Watch():
    main.run(_run, __doc__, holders, (LyingAgentConfig,), is_lasting=True)
