"""The story of a training run, from records to a checkpoint."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from isft_jax import chips, files, losses, sharding
from isft_jax import config as config_lib
from isft_jax.data.batching import pipeline
from isft_jax.models import flops
from isft_jax.models.decoder import GraphDef
from isft_jax.train import inputs, multihost, preemption, start
from isft_jax.train import metrics as metrics_lib
from isft_jax.train.checkpoint import Checkpoints
from isft_jax.train.loggers import Boards
from isft_jax.train.profile import Profile
from isft_jax.train.trainer import Trainer, make_trainer
from isft_jax.types import PyTree


class Trained(NamedTuple):
  """What a run leaves: a model, and how it got there."""

  graphdef: GraphDef
  params: dict
  summary: dict[str, float]


def train(
  config: config_lib.RunConfig,
  workdir: epath.PathLike,
  probe: Callable[[GraphDef, dict], dict[str, float]] | None = None,
  profile: tuple[int, ...] = (),
  wandb: str = '',
  progress: Callable[[int, float], str] | None = None,
) -> Trained:
  """Trains, or goes on from the newest checkpoint in workdir.

  Every host of a cluster calls it; the summary is the first host's.

  probe: (graphdef, params) -> numbers by name; asked whenever the held-out
    records are measured.
  profile: the first and the last step to trace; see Profile.
  wandb: a project of Weights & Biases.
  progress: (steps done, seconds per step) -> what a line of progress says of
    the whole that the run is a part of.

  Raises ValueError if the config cannot work, or if the records were not
  rendered with the config's tokenizer; FloatingPointError if a loss is not
  finite; SystemExit if it was told to stop (preemption.py), and has saved.
  """
  config.check()
  config, names, source, heldout, fingerprint = inputs.open_inputs(config)
  multihost.tell(f'  {config.name:<16} {source.plan.describe(names)}')
  batches = pipeline.batches(source)
  steps = len(source)
  # Arms that start elsewhere share what is compiled.
  architecture = dataclasses.replace(config.model, init_from='')
  trainer = make_trainer(
    architecture, config.optim, config.mesh, steps, sources=len(names)
  )
  sharding.check_rows(config.rows, trainer.mesh, config.optim.accumulate)
  workdir = epath.Path(workdir)
  config_lib.claim(workdir, config, write=multihost.is_first())

  with (
    Checkpoints(workdir, config) as checkpoints,
    preemption.Notice() as notice,
    Profile(profile, workdir) as trace,
  ):
    if checkpoints.latest():
      state, data = checkpoints.restore(trainer.abstract)
      batches.set_state(data)
    else:
      state = start.begin(config, trainer, fingerprint)

    done = int(state.step)
    with metrics_lib.Metrics(
      workdir,
      config.name,
      done,
      steps,
      Boards(workdir, config, done, wandb) if multihost.is_first() else None,
      names,
      _ideal_seconds(config, source, trainer),
      progress,
    ) as metrics:
      try:
        for step in range(done + 1, steps + 1):
          batch = sharding.to_global(next(batches), trainer.mesh)
          with trace.step(step):
            state, values = trainer.step(state, batch)
          trace.done(step, values)
          if _is_due(step, config.eval_every, steps):
            if heldout:
              values |= _evaluate(trainer, state.params, heldout, len(names))
            if probe:
              values['probe'] = probe(trainer.graphdef, state.params)
          metrics.add(step, values)

          stop = notice.came(step)
          save = stop or _is_due(step, config.checkpoint_every, steps)
          if save or step % config.log_every == 0:
            # The newest step is still running: leave it to the next flush, so
            # that its successor is dispatched meanwhile.
            metrics.flush(keep=0 if save else 1)
          if save:
            checkpoints.save(step, state, batches.get_state(), fingerprint)
          if stop and step < steps:
            checkpoints.wait()
            multihost.tell(
              f'told to stop: step {step} is saved in {workdir}; the same '
              'command goes on'
            )
            raise SystemExit(preemption.EXIT_CODE)
      except metrics_lib.NotFiniteError as error:
        raise _with_batch(error, source, workdir) from None

  summary = _summary(workdir, source) if multihost.is_first() else {}
  return Trained(trainer.graphdef, state.params, summary)


def _is_due(step: int, every: int, steps: int) -> bool:
  return step == steps or (every > 0 and step % every == 0)


def _ideal_seconds(
  config: config_lib.RunConfig, source: pipeline.BatchSource, trainer: Trainer
) -> float:
  """Returns what a step takes at the peak of the devices; 0 if unknown."""
  shape = config.rows, source.plan.row_length, source.plan.row_targets
  peak = chips.peak(trainer.mesh.devices.flat)
  return flops.model(config.model, *shape).total / peak if peak else 0.0


def _evaluate(
  trainer: Trainer,
  params: PyTree,
  heldout: Mapping[str, pipeline.BatchSource],
  sources: int,
) -> dict[str, PyTree]:
  """Returns the held-out loss by author, still on the devices.

  heldout: batches by source. The loss is also told by source, if the run has
    several.
  """

  def add_up(
    parts: Sequence[tuple[jax.Array, jax.Array]],
  ) -> tuple[jax.Array, jax.Array]:
    return jax.tree.map(lambda *x: jnp.sum(jnp.stack(x), 0), *parts)

  sums = {
    name: add_up(
      [
        trainer.evaluate(params, sharding.to_global(found[i], trainer.mesh))
        for i in range(len(found))
      ]
    )
    for name, found in heldout.items()
  }
  values = {
    'heldout_nll_by_author': losses.normalize(*add_up(list(sums.values())))
  }
  if sources > 1:
    values['heldout_nll_by_source'] = {
      name: losses.normalize(*found) for name, found in sums.items()
    }
  return values


def _with_batch(
  error: metrics_lib.NotFiniteError,
  source: pipeline.BatchSource,
  workdir: epath.Path,
) -> FloatingPointError:
  """Saves the batch of the step that went wrong, and says whose it is."""
  host = f'_host{jax.process_index()}' if jax.process_count() > 1 else ''
  path = workdir / f'not_finite_step{error.step}{host}.npz'
  with files.open_bytes(path, 'wb') as file:
    np.savez(file, **source[error.step - 1]._asdict())
  ids = source.ids(error.step - 1)
  shown = ', '.join(ids[:8]) + (', ...' if len(ids) > 8 else '')
  return FloatingPointError(
    f'{error}; its batch, of {len(ids)} records ({shown}), is in {path}: look '
    'at it, or lower config.optim.learning_rate'
  )


def _summary(
  workdir: epath.Path, source: pipeline.BatchSource
) -> dict[str, float]:
  rows = metrics_lib.read(workdir / 'metrics.jsonl')
  epoch = rows[-source.steps_per_epoch :]
  # Lines of runs that began before there was a `weight` had it as `targets`.
  weights = [row.get('weight', row['targets']) for row in epoch]
  losses = (row['loss'] * w for row, w in zip(epoch, weights, strict=True))
  return {
    'steps': rows[-1]['step'],
    'scored_tokens': round(sum(row['targets'] for row in rows)),
    'seconds': round(sum(row['seconds'] for row in rows), 2),
    'final_loss': sum(losses) / sum(weights),
  }
