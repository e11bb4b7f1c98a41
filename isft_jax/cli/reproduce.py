"""Runs an experiment: data, base models, arms, probes, report.

  isft-reproduce --config=configs/lying_agent_tiny.py
  isft-reproduce --config=configs/lying_agent_tiny.py --config.seed=1
  isft-reproduce --config=configs/lying_agent_tiny.py --seeds=0:5
  isft-reproduce --config=lying_agent_tiny --config.arms=agent_only,truth_only
  isft-reproduce --config=configs/evidence_tiny.py:only=flywheel
  isft-reproduce --config=configs/deployment_tiny.py
  isft-reproduce --config=lying_agent_smollm2 --dialogues=FILE --facts=FILE
  isft-reproduce --from=runs/evidence_tiny-seed0/results.json
  isft-reproduce --from=S0/results.json,S1/results.json --workdir=DIR

If interrupted, run the same command again to resume. The third command runs the
seeds 0 to 4, and then writes their summary: means, ranges and the interval of
the difference (also as Markdown). The command with --dialogues trains on
dialogues from a file and asks about the facts in another. The last two do not
train: they rebuild the page of a run from its results, and write a summary of
several seeds.
"""

import copy
import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from absl import flags

from isft_jax.cli import main
from isft_jax.experiments.config import (
  DeploymentConfig,
  EvidenceConfig,
  LyingAgentConfig,
)
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
SEEDS = flags.DEFINE_string(
  'seeds',
  '',
  'Seeds of the lying agent to run one after the other, as START:STOP (STOP is '
  'not run) or a list such as 0,3,7; then a summary of them is written. With '
  '--workdir=DIR, seed S runs in DIR/seedS and the summary is in DIR.',
)


def _reproduce(
  config: LyingAgentConfig | DeploymentConfig, workdir: str
) -> None:
  # The two flags are short names of fields of the lying agent.
  if isinstance(config, LyingAgentConfig):
    config.dialogues.file = DIALOGUES.value or config.dialogues.file
    config.facts_file = FACTS.value or config.facts_file
  elif DIALOGUES.value or FACTS.value:
    raise ValueError(
      '--dialogues and --facts are for the lying agent; the problems of a '
      'deployment come from config.world'
    )
  _split_arms(config)
  config.check()
  # Imported late: --help need not wait for jax.
  from isft_jax.train import lock

  with lock.locked(workdir):
    if isinstance(config, DeploymentConfig):
      from isft_jax.experiments.deployment import run

      run.reproduce(config, workdir)
    elif isinstance(config, EvidenceConfig):
      from isft_jax.experiments.evidence import grid

      grid.reproduce(config, workdir)
    else:
      from isft_jax.experiments import lying_agent

      lying_agent.reproduce(config, workdir)


def _split_arms(config: Any) -> None:
  """Splits arms that a flag gave as one text: --config.arms=A,B."""
  # Imported late: --help need not wait for NumPy.
  from isft_jax import objectives

  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if dataclasses.is_dataclass(value):
      _split_arms(value)
    elif field.name in ('arms', 'heldout_arms'):
      arms = itertools.chain.from_iterable(map(objectives.split_list, value))
      setattr(config, field.name, tuple(arms))


def _run() -> None:
  if FROM.value is not None and SEEDS.value:
    raise ValueError('--from and --seeds exclude each other; give only one')
  # --from needs no config and no jax.
  if FROM.value is not None:
    _summarize(FROM.value, main.WORKDIR.value)
  elif SEEDS.value:
    _run_seeds(_parse_seeds(SEEDS.value), main.CONFIG.value)
  else:
    main.configured(_reproduce)


def _run_seeds(
  seeds: Sequence[int], config: LyingAgentConfig | DeploymentConfig | None
) -> None:
  """Runs a config with each seed, and writes their summary."""
  if config is None or isinstance(config, EvidenceConfig | DeploymentConfig):
    raise ValueError(
      '--seeds needs the --config of a lying agent; the evidence and the '
      'deployment run the number of seeds that config.seeds says'
    )
  # Without --workdir, each seed has the same folder as without --seeds.
  workdir = main.WORKDIR.value
  folders = {
    seed: f'{workdir}/seed{seed}'
    if workdir
    else f'runs/{config.name}-seed{seed}'
    for seed in seeds
  }
  summary = workdir or f'runs/{config.name}-seeds{_name(seeds)}'
  with main.resumable(summary):
    for number, (seed, folder) in enumerate(folders.items(), 1):
      print(f'seed {seed} ({number} of {len(seeds)}): {folder}', flush=True)
      one = copy.deepcopy(config)
      one.seed = seed
      _reproduce(one, folder)
  results = [f'{folder}/results.json' for folder in folders.values()]
  _summarize(results, summary)


def _parse_seeds(text: str) -> list[int]:
  """Returns the seeds of 'START:STOP' or of a list with commas."""
  try:
    if ':' in text:
      seeds = [*range(*map(int, text.split(':')))]
    else:
      seeds = [int(part) for part in text.split(',')]
  except (TypeError, ValueError):
    seeds = []
  # A summary compares seeds, so that one of them is not enough.
  if len({*seeds}) < max(2, len(seeds)):
    raise ValueError(
      f'--seeds={text} must be two or more different seeds, as START:STOP or a '
      'list with commas, such as 0:5 or 0,3,7'
    )
  return seeds


def _name(seeds: Sequence[int]) -> str:
  """Returns '0-4' for seeds without a gap, and otherwise '0,3,7'."""
  if [*seeds] == [*range(seeds[0], seeds[-1] + 1)]:
    return f'{seeds[0]}-{seeds[-1]}'
  return ','.join(map(str, seeds))


def _summarize(results: Sequence[str], workdir: str | None) -> None:
  """Writes the page of one run, or of several seeds, and prints its path."""
  from isft_jax.report import rebuild

  page, *others = rebuild.rebuild(results, workdir)
  print(', or read '.join([f'open {page}', *map(str, others)]))


def run() -> None:
  """Runs the console script isft-reproduce."""
  holders = main.CONFIG, main.WORKDIR, DIALOGUES, FACTS, FROM, SEEDS
  with signals.Watch():
    kinds = LyingAgentConfig, DeploymentConfig
    main.run(_run, __doc__, holders, kinds, is_lasting=True)
