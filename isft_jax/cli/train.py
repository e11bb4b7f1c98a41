"""Trains a model on records, or goes on from the newest checkpoint in workdir.

  isft-train --config=configs/train_tiny.py --config.records=DIR \\
    --config.tokenizer=DIR [--config.model.init_from=WORKDIR] \\
    [--config.objective=interventional]

Records can be mixed, by shares of the rows, each with an objective:

  isft-train --config=... --config.sources="(('RUNS', 3, 'interventional'),
    ('DEMONSTRATIONS', 1, 'observational'))"

On several hosts, the same command on each, with a workdir that all can reach:

  isft-train --config=... --multihost                      # TPU slice, SLURM
  isft-train --config=... --coordinator=ADDRESS:PORT --hosts=2 --host=0

Exits with 75 if it was told to stop (SIGTERM) and has saved: start it again.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from absl.flags import DEFINE_boolean, DEFINE_integer, DEFINE_string

from isft_jax.cli import main
from isft_jax.config import RunConfig

if TYPE_CHECKING:
  from isft_jax.models.decoder import GraphDef
  from isft_jax.types import PyTree

MULTIHOST = DEFINE_boolean(
  'multihost', False, 'Join the other hosts that TPU metadata or SLURM name.'
)
COORDINATOR = DEFINE_string(
  'coordinator', '', 'Join the hosts that meet here: ADDRESS:PORT of the first.'
)
HOSTS = DEFINE_integer('hosts', 0, 'With --coordinator: how many there are.')
HOST = DEFINE_integer('host', -1, 'With --coordinator: which this is, from 0.')
HEARTBEAT = DEFINE_integer(
  'heartbeat',
  100,
  'Seconds of silence after which a host counts as dead, and the others end.',
  lower_bound=1,
)
PROFILE = DEFINE_string(
  'profile', '', 'START:STOP, steps to trace for xprof, into workdir/profile.'
)
WANDB = DEFINE_string(
  'wandb', '', 'A project of Weights & Biases to draw curves in as well.'
)
PROBE = DEFINE_string(
  'probe',
  '',
  "Facts to ask about every config.eval_every steps: 'paper', or a file of "
  'facts as isft-probe takes it.',
)


def _train(config: RunConfig, workdir: str) -> None:
  # Imported late: --help need not wait for jax.
  from isft_jax.train import loop, multihost

  if MULTIHOST.value or COORDINATOR.value:
    multihost.join(
      COORDINATOR.value, HOSTS.value, HOST.value, heartbeat=HEARTBEAT.value
    )
  run = loop.train(
    config,
    workdir,
    probe=_probe_of(config) if PROBE.value else None,
    profile=steps_of(PROFILE.value),
    wandb=WANDB.value,
  )
  if not multihost.is_first():
    return
  print(
    f'{config.name}: {run.summary["steps"]} steps on '
    f'{run.summary["scored_tokens"]:,} scored tokens, final loss '
    f'{run.summary["final_loss"]:.4f}\n'
    f'checkpoints and metrics.jsonl are in {workdir}'
  )


def steps_of(text: str) -> tuple[int, ...]:
  """Returns (first, last) of 'START:STOP', () of ''.

  Raises ValueError if it is neither.
  """
  if not text:
    return ()
  found = re.fullmatch(r'(\d+):(\d+)', text)
  if not found or not 0 < int(found[1]) <= int(found[2]):
    raise ValueError(f'--profile={text!r} is not START:STOP, as in 10:15')
  return int(found[1]), int(found[2])


def _probe_of(
  config: RunConfig,
) -> 'Callable[[GraphDef, PyTree], dict[str, float]]':
  """Returns what asks a model about facts, rendered as the records are."""
  from isft_jax import config as config_lib
  from isft_jax.data.records.dataset import Records
  from isft_jax.data.rendering import tokenizer
  from isft_jax.data.rendering.renderer import Renderer
  from isft_jax.worlds.lying_agent import fact_files, facts, generator, probes
  from isft_jax.worlds.lying_agent.context import shared_context

  config.check()
  bank, context = facts.FACTS, ''
  if PROBE.value != 'paper':
    bank, context = fact_files.read(PROBE.value)
  folder = config_lib.sources_of(config)[0][0]
  encoder = tokenizer.load(config.tokenizer or tokenizer.beside(folder))
  records = Records(folder)
  renderer = Renderer.from_rendering(encoder, records.metadata['rendering'])
  if not context:
    known = shared_context(records, renderer)
    context = generator.CONTEXT if known is None else known
  return probes.watch(bank, renderer, context)


def run() -> None:
  """The console script isft-train."""
  main.run_config(
    _train,
    __doc__,
    (MULTIHOST, COORDINATOR, HOSTS, HOST, HEARTBEAT, PROFILE, WANDB, PROBE),
  )
