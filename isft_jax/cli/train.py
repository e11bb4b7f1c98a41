"""Trains a model on records, or resumes from the last checkpoint in workdir.

  isft-train --config=configs/train_tiny.py --config.records=DIR \\
    --config.tokenizer=DIR [--config.model.init_from=WORKDIR] \\
    [--config.objective=interventional]

Without --config, the fields belong to the config finetune:

  isft-train --config.records=DIR --config.model.init_from=FOLDER

A mixture has shares of the rows, and an objective for each component:

  isft-train --config=... --config.mixture="(('RUNS', 3, 'interventional'),
    ('DEMONSTRATIONS', 1, 'observational'))"

On several hosts, run the same command on each, with a shared workdir:

  isft-train --config=... --multihost                      # TPU slice, SLURM
  isft-train --config=... --coordinator=ADDRESS:PORT --hosts=2 --host=0

Or learn from a folder in which transcripts appear, until it is stopped:

  isft-train --follow=DIR --config.model.init_from=FOLDER \\
    --config.heldout=RECORDS --workdir=WORKDIR

After SIGTERM or SIGHUP it saves a checkpoint and exits with 75, after Ctrl-C
with 130. A second Ctrl-C ends it at once. Run the same command again to resume.
"""

import hashlib
import re
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from absl.flags import (
  DEFINE_boolean,
  DEFINE_float,
  DEFINE_integer,
  DEFINE_string,
)

from isft_jax.cli import main
from isft_jax.config import RunConfig
from isft_jax.train import signals

if TYPE_CHECKING:
  from isft_jax.data.rendering.renderer import Renderer
  from isft_jax.models.decoder import GraphDef
  from isft_jax.types import PyTree

  Probe = Callable[[GraphDef, PyTree], dict[str, float]]

MULTIHOST = DEFINE_boolean(
  'multihost',
  False,
  'Training on all hosts that TPU metadata or SLURM list, with this one.',
)
COORDINATOR = DEFINE_string(
  'coordinator',
  '',
  'ADDRESS:PORT of the first host, if neither TPU metadata nor SLURM list the '
  'hosts; needs --hosts and --host.',
)
HOSTS = DEFINE_integer(
  'hosts', 0, 'Number of hosts; 0 means that TPU metadata or SLURM has it.'
)
HOST = DEFINE_integer(
  'host',
  -1,
  'Index of this host, from 0; -1 means that TPU metadata or SLURM has it.',
)
HEARTBEAT = DEFINE_integer(
  'heartbeat',
  100,
  'Seconds of silence after which a host counts as dead and the others stop.',
  lower_bound=1,
)
PROFILE = DEFINE_string(
  'profile',
  '',
  'Steps to trace for xprof, as START:STOP; the trace goes to WORKDIR/profile.',
)
WANDB = DEFINE_string(
  'wandb', '', 'Project of Weights & Biases that also receives the curves.'
)
PROBE = DEFINE_string(
  'probe',
  '',
  "Facts to probe every config.eval_every steps: 'paper', or a file of facts "
  'as for isft-probe.',
)

SAMPLES = DEFINE_string(
  'samples',
  '',
  'File of prompts that the model answers greedily every config.eval_every '
  'steps and after the last one, with or without held-out records: .txt or '
  '.jsonl, as for isft-generate --prompts. The replies go to '
  'WORKDIR/samples.jsonl (default none).',
)
SAMPLE_TOKENS = DEFINE_integer(
  'sample_tokens', 64, 'Maximum tokens per reply to --samples.', 1
)
FOLLOW = DEFINE_string(
  'follow',
  '',
  'Folder, also in a bucket, in which transcripts appear. They are learned in '
  'increments, each of which is measured before it is accepted.',
)
FOLLOW_SECONDS = DEFINE_float(
  'follow_seconds',
  10.0,
  'Seconds between two looks into the folder of --follow. A file is taken if '
  'it is the same in both.',
)
FOLLOW_LEAST = DEFINE_integer(
  'follow_least', 1, 'Smallest number of new transcripts of an increment.'
)
FOLLOW_MOST = DEFINE_integer(
  'follow_most', 100, 'Largest number of new transcripts of an increment.'
)
FOLLOW_RISE = DEFINE_float(
  'follow_rise',
  0.02,
  'Nats per token by which the held-out loss may rise above the lowest so far. '
  'An increment after which it is higher is rolled back.',
)
FOLLOW_FALL = DEFINE_float(
  'follow_fall',
  0.1,
  'Nats per token by which the mean margin of --probe may fall below the '
  'highest so far. An increment after which it is lower is rolled back.',
)
FOLLOW_REPLAY = DEFINE_float(
  'follow_replay',
  0.0,
  'Share of the rows of an increment that repeat earlier records: those of '
  'config.records and of accepted increments.',
)
FOLLOW_INCREMENTS = DEFINE_integer(
  'follow_increments',
  0,
  'Number of increments after which --follow ends; 0 means never.',
)
FOLLOW_UNTIL_IDLE = DEFINE_boolean(
  'follow_until_idle',
  False,
  'Ends --follow when a look finds no new transcript.',
)
FOLLOW_AUTHORS = DEFINE_string(
  'follow_authors',
  '',
  'JSON file of rules for the authors of transcripts in --follow, as for '
  'isft-prepare --authors (default none).',
)
_FOLLOW = (
  *(FOLLOW, FOLLOW_SECONDS, FOLLOW_LEAST, FOLLOW_MOST, FOLLOW_RISE),
  *(FOLLOW_FALL, FOLLOW_REPLAY, FOLLOW_INCREMENTS, FOLLOW_UNTIL_IDLE),
  FOLLOW_AUTHORS,
)


def _train(config: RunConfig, workdir: str) -> None:
  if FOLLOW.value:
    _follow(config, workdir)
    return
  for flag in _FOLLOW:
    if flag.present:
      raise ValueError(f'--{flag.name} needs --follow=DIR')
  # Imported late: --help need not wait for jax.
  from isft_jax.inference import chat_loop
  from isft_jax.train import loop, multihost

  samples = chat_loop.read_prompts(SAMPLES.value) if SAMPLES.value else []
  # Hosts join before anything else uses jax.
  if MULTIHOST.value or COORDINATOR.value:
    multihost.join(
      COORDINATOR.value, HOSTS.value, HOST.value, heartbeat=HEARTBEAT.value
    )
  run = loop.train(
    config,
    workdir,
    probe=_make_probe(config) if PROBE.value else None,
    profile=parse_steps(PROFILE.value),
    wandb=WANDB.value,
    samples=samples,
    sample_tokens=SAMPLE_TOKENS.value,
  )
  # The first host prints the summary for all.
  if not multihost.is_first():
    return
  print(
    f'{config.name}: {run.summary["steps"]} steps on '
    f'{run.summary["scored_tokens"]:,} scored tokens, final loss '
    f'{run.summary["final_loss"]:.4f}\n'
    f'checkpoints and metrics.jsonl are in {workdir}'
  )
  if 'best_step' in run.summary:
    step, loss = (run.summary[f'best_{x}'] for x in ('step', 'heldout_loss'))
    print(
      f'the best checkpoint is step {step}, with a held-out loss of '
      f'{loss:.4f}:\n'
      f'  isft-generate --checkpoint={shlex.quote(workdir)} --step=best'
    )
  _write_page(workdir)


def _follow(config: RunConfig, workdir: str) -> None:
  """Learns from the folder of --follow."""
  for flag in (MULTIHOST, COORDINATOR, PROFILE, WANDB, SAMPLES):
    if flag.value:
      raise ValueError(
        f'--follow works on one host, and without --{flag.name}: leave it out'
      )
  from isft_jax.following import follow
  from isft_jax.following.settings import Settings
  from isft_jax.report.following import page

  settings = Settings(
    folder=FOLLOW.value,
    seconds=FOLLOW_SECONDS.value,
    least=FOLLOW_LEAST.value,
    most=FOLLOW_MOST.value,
    rise=FOLLOW_RISE.value,
    fall=FOLLOW_FALL.value,
    replay=FOLLOW_REPLAY.value,
    increments=FOLLOW_INCREMENTS.value,
    until_idle=FOLLOW_UNTIL_IDLE.value,
    authors=FOLLOW_AUTHORS.value,
  )
  is_local = '://' not in workdir

  def show() -> None:
    try:
      page.write(workdir)
    except (OSError, ValueError) as error:
      # The increment itself is complete.
      print(f'warning: no report.html: {error}', file=sys.stderr)

  events = follow.follow(
    config,
    workdir,
    settings,
    _probe if PROBE.value else None,
    _probe_digest(),
    show if is_local else lambda: None,
  )
  kinds = [event['event'] for event in events]
  print(
    f'{config.name}: {kinds.count("accepted"):,} increments accepted, '
    f'{kinds.count("rolled_back"):,} rolled back, {kinds.count("skipped"):,} '
    f'skipped; every event is in {workdir}/follow.jsonl'
  )
  if is_local:
    print(
      f'open {workdir}/{page.NAME}, or talk to the model:\n'
      f'  isft-generate --checkpoint={shlex.quote(workdir)}'
    )


def _probe_digest() -> str:
  """Returns what identifies the facts of --probe; '' without any."""
  from isft_jax import files

  if PROBE.value in ('', 'paper'):
    return PROBE.value
  return hashlib.sha256(files.read_text(PROBE.value).encode()).hexdigest()


def _write_page(workdir: str) -> None:
  """Writes the page of the run, and prints its path and what comes next."""
  if '://' in workdir:
    return  # a page is to be opened, so that isft-report writes it to a disk
  from isft_jax.cli import report

  try:
    page = report.write([workdir], workdir)
  except (OSError, ValueError) as error:
    # The run itself is complete.
    print(f'warning: no report.html: {error}', file=sys.stderr)
    return
  print(
    f'open {page}, or talk to the model:\n'
    f'  isft-generate --checkpoint={shlex.quote(workdir)}'
  )


def parse_steps(text: str) -> tuple[int, ...]:
  """Returns the steps of 'START:STOP' as (first, last), or () for ''.

  Raises:
    ValueError: the text is neither, or START is 0 or after STOP.
  """
  if not text:
    return ()
  match = re.fullmatch(r'(\d+):(\d+)', text)
  if not match or not 0 < int(match[1]) <= int(match[2]):
    raise ValueError(
      f'--profile must be START:STOP, as in 10:15 (got {text!r})'
    )
  return int(match[1]), int(match[2])


def _make_probe(config: RunConfig) -> 'Probe':
  """Returns a function that probes facts, rendered like the records."""
  from isft_jax import config as config_lib
  from isft_jax.data.records.dataset import Records
  from isft_jax.data.rendering import tokenizer as tokenizer_lib
  from isft_jax.data.rendering.renderer import Renderer

  config.check()
  # The first component of a mixture gives the template and the context.
  folder = config_lib.mixture_components(config)[0][0]
  tokenizer = tokenizer_lib.load(
    config.tokenizer or tokenizer_lib.beside(folder)
  )
  rendering = Records(folder).metadata['rendering']
  return _probe(Renderer.from_rendering(tokenizer, rendering), folder)


def _probe(renderer: 'Renderer', folder: str) -> 'Probe':
  """Returns a function that probes the facts of --probe.

  Args:
    renderer: renders the facts.
    folder: records whose context the facts have, if they share one; or ''.
  """
  from isft_jax.data.records.dataset import Records
  from isft_jax.worlds.lying_agent import fact_files, facts, generator, probes
  from isft_jax.worlds.lying_agent.context import shared_context

  # Facts of the paper or of a file, which may have a context.
  bank, context = facts.FACTS, ''
  if PROBE.value != 'paper':
    bank, context = fact_files.read(PROBE.value)
  # Else the context that all records share, or that of the lying agent.
  if not context:
    shared = shared_context(Records(folder), renderer) if folder else None
    context = generator.CONTEXT if shared is None else shared
  return probes.watch(bank, renderer, context)


def run() -> None:
  """Runs the console script isft-train."""
  sys.argv = main.add_default_config(sys.argv, 'finetune')
  with signals.Watch():
    main.run_config(
      _train,
      __doc__,
      (
        *(MULTIHOST, COORDINATOR, HOSTS, HOST, HEARTBEAT),
        *(PROFILE, WANDB, PROBE, SAMPLES, SAMPLE_TOKENS),
        *_FOLLOW,
      ),
      (RunConfig,),
      is_lasting=True,
    )
