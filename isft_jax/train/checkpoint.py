"""Checkpoints: the whole run, so that it can go on as if never interrupted."""

import dataclasses
import pathlib

import jax
import orbax.checkpoint as ocp

from isft_jax.config import RunConfig


class Checkpoints:
  """The checkpoints of one run, written asynchronously by Orbax.

  Each holds `params`, `opt_state` (the step is its number), `data` (state of
  the data iterator) and `run` (config and fingerprint of the records).
  """

  def __init__(self, workdir: str, keep: int = 2):
    self._manager = ocp.CheckpointManager(
      pathlib.Path(workdir).absolute() / 'checkpoints',
      options=ocp.CheckpointManagerOptions(
        max_to_keep=keep, step_prefix='step', cleanup_tmp_directories=True
      ),
      item_names=('params', 'opt_state', 'data', 'run'),
    )

  def __enter__(self):
    return self

  def __exit__(self, *error):
    self._manager.close()  # waits for what is being written

  def latest(self) -> int | None:
    """Returns the number of steps done at the newest checkpoint, or None."""
    return self._manager.latest_step()

  def save(
    self, step: int, state, data: dict, config: RunConfig, fingerprint: str
  ) -> None:
    """Starts to save; returns once the arrays are copied from the devices."""
    if step == self.latest():
      return
    self._manager.save(
      step,
      args=ocp.args.Composite(
        params=ocp.args.StandardSave(state.params),
        opt_state=ocp.args.StandardSave(state.opt_state),
        data=ocp.args.JsonSave(data),
        run=ocp.args.JsonSave(
          {
            'config': dataclasses.asdict(config),
            'fingerprint': fingerprint,
          }
        ),
      ),
    )

  def restore(self, abstract):
    """Returns (state, data) of the newest checkpoint.

    abstract: the state as ShapeDtypeStructs with shardings. They need not be
      those it was saved with.
    """
    step = self.latest()
    restored = self._manager.restore(
      step,
      args=ocp.args.Composite(
        params=ocp.args.StandardRestore(abstract.params),
        opt_state=ocp.args.StandardRestore(abstract.opt_state),
        data=ocp.args.JsonRestore(),
      ),
    )
    state = abstract._replace(
      step=jax.device_put(
        jax.numpy.asarray(step, abstract.step.dtype), abstract.step.sharding
      ),
      params=restored['params'],
      opt_state=restored['opt_state'],
    )
    return state, restored['data']

  def restore_run(self) -> dict:
    """Returns the config of the run and the fingerprint of its records."""
    return self._manager.restore(
      self.latest(), args=ocp.args.Composite(run=ocp.args.JsonRestore())
    )['run']

  def restore_params(self, abstract_params):
    """Returns (params, fingerprint of the records they were trained on)."""
    restored = self._manager.restore(
      self.latest(),
      args=ocp.args.Composite(
        params=ocp.args.StandardRestore(abstract_params),
        run=ocp.args.JsonRestore(),
      ),
    )
    return restored['params'], restored['run']['fingerprint']
