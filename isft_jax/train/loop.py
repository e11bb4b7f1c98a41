"""The story of a training run, from records to a checkpoint."""

import pathlib
from typing import Any, NamedTuple

import jax

from isft_jax import config as config_lib
from isft_jax import sharding
from isft_jax.data import pipeline, tokenizer
from isft_jax.data.records import Records
from isft_jax.train import metrics as metrics_lib
from isft_jax.train.checkpoint import Checkpoints
from isft_jax.train.trainer import Trainer, make_trainer


class Trained(NamedTuple):
  """What a run leaves: a model, and how it got there."""

  graphdef: Any
  params: Any
  summary: dict


def train(config: config_lib.RunConfig, workdir: str) -> Trained:
  """Trains, or goes on from the newest checkpoint in workdir.

  Raises ValueError if the config cannot work, or if the records were not
  rendered with the config's tokenizer and template.
  """
  config_lib.validate(config)
  workdir = pathlib.Path(workdir)
  config_lib.claim(workdir, config)

  records = Records(config.records)
  fingerprint = _same_fingerprint(config, records)
  source = pipeline.BatchSource(
    records, config, jax.process_index(), jax.process_count()
  )
  batches = pipeline.batches(source)
  steps = len(source)
  trainer = make_trainer(config.model, config.optim, config.mesh, steps)

  with Checkpoints(workdir) as checkpoints:
    if checkpoints.latest():
      state, data = checkpoints.restore(trainer.abstract)
      batches.set_state(data)
    elif config.init_from:
      state = trainer.start(_params_of(config.init_from, trainer, fingerprint))
    else:
      state = trainer.init(config.seed)

    done = int(state.step)
    log_path = workdir / 'metrics.jsonl'
    with metrics_lib.Metrics(log_path, config.name, done, steps) as metrics:
      for step in range(done + 1, steps + 1):
        batch = sharding.to_global(next(batches), trainer.mesh)
        state, values = trainer.step(state, batch)
        metrics.add(step, values)
        last = step == steps
        save = last or step % config.checkpoint_every == 0
        if save or step % config.log_every == 0:
          # The newest step is still running: leave it to the next flush, so
          # that its successor is dispatched meanwhile.
          metrics.flush(keep=0 if save else 1)
        if save:
          checkpoints.save(
            step, state, batches.get_state(), config, fingerprint
          )

  rows = metrics_lib.read(log_path)
  return Trained(trainer.graphdef, state.params, _summary(rows, source))


def _same_fingerprint(config, records: Records) -> str:
  ours = tokenizer.fingerprint(
    tokenizer.load(config.tokenizer), config.template
  )
  theirs = records.metadata.get('fingerprint')
  if ours != theirs:
    raise ValueError(
      f'{config.records} was rendered with fingerprint {theirs}, and '
      f'{config.tokenizer} with template {config.template!r} has {ours}: its '
      'tokens mean something else to this run; prepare the records again'
    )
  return ours


def _params_of(run: str, trainer: Trainer, fingerprint: str):
  with Checkpoints(run) as checkpoints:
    if checkpoints.latest() is None:
      raise ValueError(f'{run}: no checkpoint there to start from')
    params, theirs = checkpoints.restore_params(trainer.abstract.params)
  if theirs != fingerprint:
    raise ValueError(
      f'{run} was trained on records with fingerprint {theirs}, and these have '
      f'{fingerprint}: its embedding belongs to another tokenizer or template'
    )
  return params


def _summary(rows: list[dict], source: pipeline.BatchSource) -> dict:
  epoch = rows[-source.steps_per_epoch :]
  scored = sum(row['targets'] for row in epoch)
  return {
    'steps': rows[-1]['step'],
    'scored_tokens': round(sum(row['targets'] for row in rows)),
    'seconds': round(sum(row['seconds'] for row in rows), 2),
    'final_loss': sum(row['loss'] * row['targets'] for row in epoch) / scored,
  }
