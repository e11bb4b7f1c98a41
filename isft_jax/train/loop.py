"""The story of a training run, from records to a checkpoint."""

import dataclasses
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from isft_jax import config as config_lib
from isft_jax import losses, sharding
from isft_jax.data import pipeline, tokenizer
from isft_jax.data.records import Records
from isft_jax.train import metrics as metrics_lib
from isft_jax.train import start
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
  rendered with the config's tokenizer; FloatingPointError if a loss is not
  finite.
  """
  config_lib.validate(config)
  records = Records(config.records)
  encoder = tokenizer.load(config.tokenizer or tokenizer.beside(config.records))
  config = dataclasses.replace(config, model=start.with_shape(config.model))
  config = _with_vocabulary(config, tokenizer.size(encoder))
  source, fingerprint = _open(config, records, encoder)
  heldout = _open_heldout(config, records.splits, encoder, fingerprint)
  print(f'  {config.name:<16} {source.plan.describe()}', flush=True)
  batches = pipeline.batches(source)
  steps = len(source)
  # Arms that start elsewhere share what is compiled.
  architecture = dataclasses.replace(config.model, init_from='')
  trainer = make_trainer(architecture, config.optim, config.mesh, steps)
  sharding.check_rows(config.rows, trainer.mesh, config.optim.accumulate)
  workdir = pathlib.Path(workdir)
  config_lib.claim(workdir, config)

  with Checkpoints(workdir) as checkpoints:
    if checkpoints.latest():
      state, data = checkpoints.restore(trainer.abstract)
      batches.set_state(data)
    else:
      state = start.begin(config, trainer, fingerprint)

    done = int(state.step)
    with metrics_lib.Metrics(workdir, config.name, done, steps) as metrics:
      try:
        for step in range(done + 1, steps + 1):
          batch = sharding.to_global(next(batches), trainer.mesh)
          state, values = trainer.step(state, batch)
          if heldout and _is_due(step, config.eval_every, steps):
            values |= _evaluate(trainer, state.params, heldout)
          metrics.add(step, values)

          save = _is_due(step, config.checkpoint_every, steps)
          if save or step % config.log_every == 0:
            # The newest step is still running: leave it to the next flush, so
            # that its successor is dispatched meanwhile.
            metrics.flush(keep=0 if save else 1)
          if save:
            checkpoints.save(
              step, state, batches.get_state(), config, fingerprint
            )
      except metrics_lib.NotFiniteError as error:
        raise _with_batch(error, source, workdir) from None

  rows = metrics_lib.read(workdir / 'metrics.jsonl')
  return Trained(trainer.graphdef, state.params, _summary(rows, source))


def _is_due(step: int, every: int, steps: int) -> bool:
  return step == steps or (every > 0 and step % every == 0)


def _with_vocabulary(config: config_lib.RunConfig, ids: int):
  """Returns the config of a model that has an embedding for each id."""
  model = config.model
  if model.vocab_size == 0:  # a round number shards, and fits the hardware
    model = dataclasses.replace(model, vocab_size=-(-ids // 128) * 128)
  if model.vocab_size < ids:
    raise ValueError(
      f'config.model.vocab_size={model.vocab_size}, and the tokenizer has '
      f'{ids} ids; 0 takes as many as it has'
    )
  return dataclasses.replace(config, model=model)


def _open(
  config: config_lib.RunConfig, records: Records, encoder
) -> tuple[pipeline.BatchSource, str]:
  """Opens the records of a run, if it may train on them."""
  fingerprint = tokenizer.check(encoder, records.metadata, records.folder)
  source = pipeline.BatchSource(
    records, config, jax.process_index(), jax.process_count()
  )
  return source, fingerprint


def _open_heldout(
  config: config_lib.RunConfig,
  splits: tuple[str, ...],
  encoder,
  fingerprint: str,
) -> pipeline.BatchSource | None:
  if config.heldout:
    records = Records(config.heldout)
  elif 'heldout' in splits:
    records = Records(config.records, 'heldout')
  else:
    return None
  everything = 'observational'  # every author is measured
  once = dataclasses.replace(
    config,
    objective=everything,
    plan_objective=everything,
    epochs=1,
    steps=0,
  )
  source, theirs = _open(once, records, encoder)
  if theirs != fingerprint:
    raise ValueError(
      f'{records.folder} was rendered with another chat template than '
      f'{config.records}: prepare both with the same one'
    )
  return source


def _evaluate(trainer: Trainer, params, heldout: pipeline.BatchSource) -> dict:
  """Returns the held-out loss by author, still on the devices."""
  parts = [
    trainer.evaluate(params, sharding.to_global(heldout[i], trainer.mesh))
    for i in range(len(heldout))
  ]
  total_P, count_P = jax.tree.map(lambda *x: jnp.sum(jnp.stack(x), 0), *parts)
  return {'heldout_nll_by_author': losses.normalize(total_P, count_P)}


def _with_batch(error, source: pipeline.BatchSource, workdir: pathlib.Path):
  """Saves the batch of the step that went wrong, and says whose it is."""
  path = workdir / f'not_finite_step{error.step}.npz'
  np.savez(path, **source[error.step - 1]._asdict())
  ids = source.ids(error.step - 1)
  shown = ', '.join(ids[:8]) + (', ...' if len(ids) > 8 else '')
  return FloatingPointError(
    f'{error}; its batch, of {len(ids)} records ({shown}), is in {path}: look '
    'at it, or lower config.optim.learning_rate'
  )


def _summary(rows: list[dict], source: pipeline.BatchSource) -> dict:
  epoch = rows[-source.steps_per_epoch :]
  scored = sum(row['targets'] for row in epoch)
  return {
    'steps': rows[-1]['step'],
    'scored_tokens': round(sum(row['targets'] for row in rows)),
    'seconds': round(sum(row['seconds'] for row in rows), 2),
    'final_loss': sum(row['loss'] * row['targets'] for row in epoch) / scored,
  }
