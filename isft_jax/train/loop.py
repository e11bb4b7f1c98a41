"""Training loop: from records and a config to checkpoints and metrics."""

import contextlib
import dataclasses
import hashlib
import json
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

import isft_jax
from isft_jax import chips, files, losses, objectives, sharding
from isft_jax import config as config_lib
from isft_jax.data.batching import pipeline
from isft_jax.hf import pretrained
from isft_jax.models import flops
from isft_jax.models.decoder import GraphDef
from isft_jax.train import (
  checkpoint,
  inputs,
  lock,
  multihost,
  plans,
  preemption,
  resume,
  run_tokenizer,
  start,
)
from isft_jax.train import metrics as metrics_lib
from isft_jax.train import workdir as workdir_lib
from isft_jax.train.checkpoint import Checkpoints
from isft_jax.train.loggers import Loggers
from isft_jax.train.profile import Profile
from isft_jax.train.samples import Samples
from isft_jax.train.trainer import Trainer, make_trainer
from isft_jax.types import PyTree

SAMPLE_TOKENS = 64  # maximum tokens per reply to a sample prompt


class Trained(NamedTuple):
  """Result of a run: the model, and totals of its training.

  Attributes:
    graphdef: structure of the model.
    params: trained parameters, on the devices.
    summary: `steps`, `scored_tokens`, `seconds` and `final_loss` (mean of the
      last epoch, in nats); with `config.keep_best`, also `best_step` and
      `best_heldout_loss`; {} on all hosts but the first.
    base: frozen base of the adapters, which another run can take; None without
      adapters.
  """

  graphdef: GraphDef
  params: dict
  summary: dict[str, float]
  base: start.Base | None = None


def train(
  config: config_lib.RunConfig,
  workdir: epath.PathLike,
  probe: Callable[[GraphDef, dict], dict[str, float]] | None = None,
  profile: tuple[int, ...] = (),
  wandb: str = '',
  progress: Callable[[int, float], str] | None = None,
  base: start.Base | None = None,
  samples: Sequence[Mapping[str, Any]] = (),
  sample_tokens: int = SAMPLE_TOKENS,
  initial: Callable[[], PyTree] | None = None,
) -> Trained:
  """Trains a model, resuming from the newest checkpoint in the workdir.

  On several hosts, every host calls it.

  Args:
    config: config of the run.
    workdir: folder of the run, on disk or in a bucket.
    probe: (graphdef, params) -> numbers by name; called whenever the held-out
      records are evaluated.
    profile: first and last step to trace; see `Profile`.
    wandb: project of Weights & Biases, or ''.
    progress: (steps done, seconds per step) -> text about the experiment that
      this run is part of, for lines of progress.
    base: frozen base of the adapters, from a run with the same base, model and
      mesh; None: it is loaded.
    samples: prompts that the model answers greedily whenever the held-out
      records are evaluated; see `samples.Samples`.
    sample_tokens: maximum tokens per reply to them.
    initial: returns the parameters to start from, of those that learn, which
      are donated. It is called if there is no checkpoint. None: the config says
      how the run starts.

  Returns:
    The trained model.

  Raises:
    ValueError: the config cannot work, the records were not rendered with its
      tokenizer, the chat template refuses a prompt, a resumed run has other
      records than before, hosts differ, or another process trains in the
      workdir.
    FloatingPointError: a loss, a gradient or the state is not finite. Such a
      state is never saved.
    SystemExit: the process was asked to stop by SIGTERM or SIGHUP, and the run
      is saved.
    KeyboardInterrupt: the same, by Ctrl-C. A second one saves nothing.
  """
  with preemption.Notice() as notice:
    return _train(
      config,
      epath.Path(workdir),
      probe,
      profile,
      wandb,
      progress,
      base,
      samples,
      sample_tokens,
      initial,
      notice,
    )


def _train(
  config: config_lib.RunConfig,
  workdir: epath.Path,
  probe: Callable[[GraphDef, dict], dict[str, float]] | None,
  profile: tuple[int, ...],
  wandb: str,
  progress: Callable[[int, float], str] | None,
  base: start.Base | None,
  samples: Sequence[Mapping[str, Any]],
  sample_tokens: int,
  initial: Callable[[], PyTree] | None,
  notice: preemption.Notice,
) -> Trained:
  # Inputs and trainer.
  config.check()
  opened = inputs.open_inputs(config, workdir)
  config, names, source, heldout, fingerprint, records, known, *_ = opened
  multihost.tell(f'  {config.name:<16} {source.plan.describe(names)}')
  # Hosts that differ would hang in a step, or train on other batches.
  multihost.check_equal(
    inputs.describe(opened)
    | {
      'workdir': str(workdir),
      'probe': probe is not None,
      'samples': [len(samples), sample_tokens, _digest(samples)],
      'version of jax': jax.__version__,
      'version of isft_jax': isft_jax.__version__,
    }
  )
  batches = pipeline.batches(source)
  # The plan of the batches fixes the number of steps, which the learning rate
  # schedule needs.
  steps = len(source)
  anchors = tuple(
    objectives.anchor(objective)
    for _, _, objective in config_lib.mixture_components(config)
  )
  start.check_base(config)
  # Without init_from, so that runs which start from other weights share the
  # compiled step.
  architecture = dataclasses.replace(config.model, init_from='')
  trainer = make_trainer(
    architecture,
    config.optim,
    config.mesh,
    # Increments have batches of one shape and any number of steps, which only
    # a cosine needs. They share what is compiled.
    0 if initial and config.optim.schedule == 'constant' else steps,
    components=len(names),
    lora=config.lora,
    anchors=anchors,
  )
  sharding.check_batch_size(
    config.batch_size, trainer.mesh, config.optim.accumulate
  )
  for plan in (each.plan for each in (source, *heldout.values())):
    sharding.check_row(plan.seq_len, plan.targets_per_row, trainer.mesh)
  # Prompts are encoded before anything is compiled or written.
  asked = None
  if samples:
    asked = Samples(
      samples,
      sample_tokens,
      pretrained.Model(trainer.graphdef, trainer.abstract.model_params),
      opened.tokenizer,
      opened.rendering,
    )
  described = _describe(config, trainer, steps, initial is not None)
  multihost.tell(f'  {config.name:<16} {described}')

  with contextlib.ExitStack() as stack:
    # Workdir. A wrong one is refused before anything is written.
    if checkpoint.is_pointer(workdir):
      raise ValueError(
        f'{workdir} belongs to isft-train --follow; give another --workdir'
      )
    folders = [each for each, _, _ in config_lib.mixture_components(config)]
    workdir_lib.check(workdir, [*folders, *filter(None, [config.heldout])])
    stack.enter_context(lock.locked(workdir))
    config_lib.claim(workdir, config, write=False)
    if multihost.is_first():
      plans.write(workdir, known)
      run_tokenizer.write(
        workdir, opened.tokenizer, opened.rendering, fingerprint
      )
    checkpoints = stack.enter_context(Checkpoints(workdir, config))
    if config.keep_best:
      checkpoints.keep_best()
    trace = stack.enter_context(Profile(profile, workdir))
    # The frozen base of adapters, or of an anchored objective.
    if not start.has_base(config):
      base = None
    elif base is None:
      base = start.load_base(config, trainer, fingerprint)
    else:
      base = start.place_base(base, trainer)
    identity = base.identity if base else {}
    # State: the newest checkpoint, or the start.
    stored: dict[str, Any] = {}
    if checkpoints.latest():
      # Compared before the arrays are read, which takes minutes.
      stored = checkpoints.restore_run()
      resume.check_data(workdir, stored, fingerprint, records)
      resume.check_base(workdir, stored, identity)
      state, data = checkpoints.restore(trainer.abstract)
      resume.check_position(workdir, int(state.step), data)
      batches.set_state(data)
    elif initial:
      placed = jax.tree.map(lambda x: x.sharding, trainer.abstract.params)
      state = trainer.start(jax.device_put(initial(), placed))
    else:
      _check_tokenizer(opened)
      state = start.begin(
        config, trainer, fingerprint, identity.get('sha256', '')
      )
    if base:
      state = state._replace(frozen=base.params)
    # Nobody should train for hours from such numbers, or use them as a result.
    if not trainer.is_finite(state):
      place = f'{workdir}: step {state.step}' if state.step else 'the start'
      raise ValueError(
        f'{place} has parameters or moments that are not finite; begin from '
        'another checkpoint or model'
      )

    # Loggers write only on the first host. `Metrics` collects on all of them,
    # because every host must see a loss that is not finite.
    done = int(state.step)
    # A start that fails, or is too large for the devices, claims no workdir.
    if done and multihost.is_first():
      config_lib.claim(workdir, config)
    if asked:
      asked.begin(workdir, done)
    with metrics_lib.Metrics(
      workdir,
      config.name,
      done,
      steps,
      Loggers(workdir, config, done, wandb, is_finished=done == steps)
      if multihost.is_first()
      else None,
      names,
      _ideal_seconds(config, source, trainer),
      progress,
      source.steps_per_epoch,
      stored.get('metrics'),
    ) as metrics:
      try:
        # Steps count from 1. The first `done` of them are in the checkpoint.
        for step in range(done + 1, steps + 1):
          # Dispatch the step. The call returns before the devices are done.
          batch = sharding.to_global(next(batches), trainer.mesh)
          with trace.step(step):
            state, values = trainer.step(state, batch)
          trace.end_step(step, values)
          if step == 1 and multihost.is_first():
            config_lib.claim(workdir, config)
          notice.begin()  # from now on there is something to save

          # Evaluate the new parameters.
          heldout_loss = None
          evaluated: list[jax.Array] = []
          if _is_due(step, config.eval_every, steps):
            if heldout:
              values |= _evaluate(
                trainer,
                state.model_params,
                heldout,
                len(names),
                config.keep_best,
                evaluated,
              )
            if config.keep_best:
              # The devices wait here, and all hosts take the same decision.
              heldout_loss = multihost.share(float(values['heldout_loss']))
            if probe:
              values['probe'] = probe(trainer.graphdef, state.model_params)
            if asked:
              asked.answer(config.name, step, steps, state.model_params)
          metrics.add_evaluated(step, evaluated)
          metrics.add(step, values)

          # Log and save.
          stop = notice.should_stop(step)
          save = stop or _is_due(step, config.checkpoint_every, steps)
          if heldout_loss is not None:
            save = save or checkpoints.is_best(heldout_loss)
          if save or step % config.log_every == 0:
            # The newest step is still running. Its metrics are left for the
            # next flush, so that the next step is dispatched meanwhile.
            metrics.flush(keep=0 if save else 1)
          if save:
            # The last update can be the bad one, with a finite gradient.
            if not trainer.is_finite(state):
              raise metrics_lib.NotFiniteError(
                f'{config.name}: the parameters or moments after step {step} '
                'are not finite',
                step,
              )
            position = batches.get_state()
            checkpoints.save(
              step,
              state,
              position,
              fingerprint,
              records,
              identity,
              heldout_loss,
              metrics.totals(),
            )
          # After the last step there is nothing left to resume, so the run just
          # ends.
          if stop and step < steps:
            checkpoints.wait()
            if notice.noted == signal.SIGINT:
              raise KeyboardInterrupt
            multihost.tell(
              f'asked to stop: step {step} is saved in {workdir}; run the same '
              'command again to resume'
            )
            raise SystemExit(preemption.EXIT_CODE)
      except metrics_lib.NotFiniteError as error:
        raise _with_batch(error, source, workdir) from None
      summary = metrics.summary() if multihost.is_first() else {}
      if summary and checkpoints.best:
        summary['best_step'], summary['best_heldout_loss'] = checkpoints.best

  return Trained(trainer.graphdef, state.model_params, summary, base)


def _digest(samples: Sequence[Mapping[str, Any]]) -> str:
  return hashlib.sha256(json.dumps([*samples]).encode()).hexdigest()


def _check_tokenizer(opened: inputs.Inputs) -> None:
  """Refuses a model to start from whose ids mean other texts; prints doubts."""
  place = opened.config.model.init_from
  # Another run is compared by its fingerprint.
  if not place or start.is_run(place):
    return
  records = config_lib.mixture_components(opened.config)[0][0]
  template = opened.rendering.get('template', '')
  for warning in start.check_tokenizer(
    place, records, opened.tokenizer, template
  ):
    multihost.tell(f'warning: {warning}')


def _describe(
  config: config_lib.RunConfig, trainer: Trainer, steps: int, is_given: bool
) -> str:
  """Returns the model, the steps and the memory of a run in one line."""
  frozen, learning = (
    sum(leaf.size for leaf in jax.tree.leaves(tree)) / 1e6
    for tree in (trainer.abstract.frozen, trainer.abstract.params)
  )
  lora, devices = config.lora, trainer.mesh.devices
  place = config.model.init_from or 'random numbers'
  start = 'the run before' if is_given else place
  model = f'{learning:,.2f} M parameters from {start}'
  if lora.rank:
    model = (
      f'{learning:,.2f} M parameters of adapters of rank {lora.rank}'
      + (f' from {lora.init_from}' if lora.init_from else '')
      + f', on {frozen:,.2f} M frozen ones in {config.model.param_dtype} from '
      f'{place}'
    )
  return (
    f'{model}; {_count(steps, "step")} of '
    f'{_count(config.batch_size, "row")}, {_objectives(config)}, learning rate '
    f'{config.optim.learning_rate:g}; parameters and moments take '
    f'{trainer.bytes_per_device / 1e6:,.1f} MB on each device '
    f'({devices.size} x {devices.flat[0].device_kind})'
  )


def _count(number: int, what: str) -> str:
  return f'{number:,} {what}{"s" * (number != 1)}'


def _objectives(config: config_lib.RunConfig) -> str:
  components = config_lib.mixture_components(config)
  return ' + '.join(dict.fromkeys(objective for _, _, objective in components))


def _is_due(step: int, every: int, steps: int) -> bool:
  # The last step is always due, so that a run ends with a checkpoint.
  return step == steps or (every > 0 and step % every == 0)


def _ideal_seconds(
  config: config_lib.RunConfig, source: pipeline.BatchSource, trainer: Trainer
) -> float:
  """Returns the seconds of a step at peak rate; 0 if the peak is unknown."""
  # Operations without recomputation, as in the usual definition of MFU.
  shape = config.batch_size, source.plan.seq_len, source.plan.targets_per_row
  peak = chips.peak(trainer.mesh.devices.flat)
  return (
    flops.model(config.model, *shape, config.lora).total / peak if peak else 0.0
  )


def _evaluate(
  trainer: Trainer,
  params: PyTree,
  heldout: Mapping[str, pipeline.BatchSource],
  components: int,
  is_scored: bool,
  evaluated: list[jax.Array],
) -> dict[str, PyTree]:
  """Returns the held-out loss by author, and for each component of a mixture.

  The values stay on the devices, so that training need not wait for them.

  Args:
    trainer: trainer of the run.
    params: parameters to evaluate.
    heldout: held-out batches by name of the component.
    components: number of mixture components.
    is_scored: whether the batches have the objective's weights. The loss of all
      scored tokens, `heldout_loss`, is then returned too.
    evaluated: gets a result of each batch, to see how many are done.
  """

  def add_up(pairs: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *x: jnp.sum(jnp.stack(x), 0), *pairs)

  # The evaluation is one pass over all held-out batches of each component.
  parts = {
    name: [
      trainer.evaluate(params, sharding.to_global(batches[i], trainer.mesh))
      for i in range(len(batches))
    ]
    for name, batches in heldout.items()
  }
  evaluated += [count for each in parts.values() for (_, count), _ in each]
  # Sums and counts of all components are added.
  both = {name: add_up(each) for name, each in parts.items()}
  by_author, scored = add_up(list(both.values()))
  values = {'heldout_nll_by_author': losses.normalize(*by_author)}
  if is_scored:
    values['heldout_loss'] = losses.normalize(*scored)
  if components > 1:
    # Sums and counts are added before the division: a mean over tokens, not
    # over components.
    values['heldout_nll_by_source'] = {
      name: losses.normalize(*pair) for name, (pair, _) in both.items()
    }
  return values


def _with_batch(
  error: metrics_lib.NotFiniteError,
  source: pipeline.BatchSource,
  workdir: epath.Path,
) -> FloatingPointError:
  """Saves the batch of a step whose numbers are not finite.

  Returns an error that names the file and the records.
  """
  # Each host saves its own rows.
  host = f'_host{jax.process_index()}' if jax.process_count() > 1 else ''
  path = workdir / f'not_finite_step{error.step}{host}.npz'
  with files.open_bytes(path, 'wb') as file:
    # Steps count from 1, batches from 0.
    np.savez(file, **source[error.step - 1]._asdict())
  # At most 8 ids, so that the message stays readable.
  ids = source.ids(error.step - 1)
  shown = ', '.join(ids[:8]) + (', ...' if len(ids) > 8 else '')
  return FloatingPointError(
    f'{error}; its batch of {len(ids)} records ({shown}) is saved in {path}; '
    'look at it, or lower config.optim.learning_rate'
  )
