"""Checkpoints of a run: writes them, detects damaged ones, resumes from them.

Orbax moves a checkpoint into its place when all of it is written. If a file is
lost or cut later, Orbax notices when it reads the file, if at all: it takes
some missing files for zeros. So each checkpoint has a manifest, `files.json`,
with the size of every file.
"""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any, Self

import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from isft_jax.config import RunConfig
from isft_jax.train import multihost
from isft_jax.train.step import TrainState
from isft_jax.types import PyTree

_STEP = 'step'
_MANIFEST = 'files.json'


def folder_of(workdir: epath.PathLike) -> epath.Path:
  """Returns where the checkpoints of a run are, here or in a bucket."""
  folder = epath.Path(workdir) / 'checkpoints'
  # Of gs://... pathlib would make a folder named gs: in this one.
  return folder if '://' in str(folder) else folder.absolute()


class Checkpoints:
  """The checkpoints of one run, written asynchronously by Orbax.

  Each holds `params`, `opt_state` (the step is its number), `data` (state of
  the data iterator) and `run` (config and fingerprint of the records).
  """

  def __init__(
    self, workdir: epath.PathLike, config: RunConfig | None = None
  ) -> None:
    """Opens the checkpoints of a run.

    config: of the run that goes on and writes more. It keeps the newest
      `keep_last`, and those of steps that `keep_every` divides; damaged ones
      are put aside. None: they are read only.
    """
    self._folder = folder_of(workdir)
    self._config = config
    if config and multihost.is_first():
      self._put_aside()
    if config and jax.process_count() > 1:
      multihost_utils.sync_global_devices('damaged checkpoints are put aside')
    self._manager = ocp.CheckpointManager(
      self._folder,
      options=ocp.CheckpointManagerOptions(
        max_to_keep=config and config.keep_last,
        keep_period=config and (config.keep_every or None),
        step_prefix=_STEP,
        create=config is not None,
        # Of a run that is still writing they are not left behind.
        cleanup_tmp_directories=config is not None,
        async_options=ocp.AsyncOptions(post_finalization_callback=self._finish),
      ),
      item_names=('params', 'opt_state', 'data', 'run'),
    )
    self._saving: int | None = None
    self._newest = None if config else self._newest_whole()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *error: object) -> None:
    self._manager.close()  # waits for what is being written

  def latest(self) -> int | None:
    """Returns the steps done at the newest whole checkpoint, or None."""
    return self._manager.latest_step() if self._config else self._newest

  def _newest_whole(self) -> int | None:
    for step in sorted(self._manager.all_steps(), reverse=True):
      if damage := _damage(self._folder_of(step)):
        multihost.tell(f'{damage}: an older checkpoint is taken')
      else:
        return step
    return None

  def save(
    self, step: int, state: TrainState, data: dict[str, Any], fingerprint: str
  ) -> None:
    """Starts to save; returns once the arrays are copied from the devices."""
    assert self._config is not None
    if step == self.latest():
      return
    self.wait()  # as Orbax would: the one before needs its own step's manifest
    self._saving = step
    self._manager.save(
      step,
      args=ocp.args.Composite(
        params=ocp.args.StandardSave(state.params),
        opt_state=ocp.args.StandardSave(state.opt_state),
        data=ocp.args.JsonSave(data),
        run=ocp.args.JsonSave(
          {
            'config': dataclasses.asdict(self._config),
            'fingerprint': fingerprint,
          }
        ),
      ),
    )

  def wait(self) -> None:
    """Returns once what was saved is in its place."""
    self._manager.wait_until_finished()

  def restore(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """Returns (state, data) of the newest checkpoint.

    abstract: the state as ShapeDtypeStructs with shardings. They need not be
      those it was saved with.

    Raises ValueError if it cannot be read.
    """
    restored = self._read(
      params=ocp.args.StandardRestore(abstract.params),
      opt_state=ocp.args.StandardRestore(abstract.opt_state),
      data=ocp.args.JsonRestore(),
    )
    state = abstract._replace(
      step=jax.device_put(
        jax.numpy.asarray(self.latest(), abstract.step.dtype),
        abstract.step.sharding,
      ),
      params=restored['params'],
      opt_state=restored['opt_state'],
    )
    return state, restored['data']

  def restore_run(self) -> dict[str, Any]:
    """Returns the config of the run and the fingerprint of its records."""
    return self._read(run=ocp.args.JsonRestore())['run']

  def restore_params(self, abstract_params: PyTree) -> tuple[PyTree, str]:
    """Returns (params, fingerprint of the records they were trained on)."""
    restored = self._read(
      params=ocp.args.StandardRestore(abstract_params),
      run=ocp.args.JsonRestore(),
    )
    return restored['params'], restored['run']['fingerprint']

  def _read(self, **items: ocp.args.CheckpointArgs) -> dict[str, Any]:
    step = self.latest()
    try:
      return self._manager.restore(step, args=ocp.args.Composite(**items))
    except Exception as error:
      if 'RESOURCE_EXHAUSTED' in str(error):
        raise  # it is not the checkpoint's fault
      raise ValueError(
        f'{self._folder_of(step)} cannot be read ({str(error).splitlines()[0]})'
        ': move it away, and the one before is taken'
      ) from error

  def _folder_of(self, step: int | None) -> epath.Path:
    return self._folder / f'{_STEP}_{step}'

  def _finish(self) -> None:
    # Orbax calls it on the first host, when all is written and before it is
    # moved into its place; in buckets, where nothing is moved, it is there.
    folder = self._folder_of(self._saving)
    parts = [*self._folder.glob(f'{folder.name}.orbax-checkpoint-tmp*')]
    _write_manifest(parts[0] if parts else folder)

  def _put_aside(self) -> None:
    found = {
      int(number): folder
      for folder in self._folder.glob(f'{_STEP}_*')
      if (number := folder.name.removeprefix(f'{_STEP}_')).isdecimal()
    }
    for _, folder in sorted(found.items(), reverse=True):
      if damage := _damage(folder):
        aside = folder.with_name(f'damaged_{folder.name}')
        if aside.exists():  # of an earlier time
          aside.rmtree()
        folder.rename(aside)
        multihost.tell(
          f'{damage}: the run goes on from an older one, or from the start; '
          f'what is left of this one is in {aside}'
        )
      elif (folder / _MANIFEST).exists():
        return  # nobody will ask for an older one


def _write_manifest(folder: epath.Path) -> None:
  """Writes the size of every file of a finished checkpoint."""
  sizes = json.dumps(_sizes(folder), indent=1) + '\n'
  (folder / _MANIFEST).write_text(sizes)


def _damage(folder: epath.Path) -> str:
  """Returns what a checkpoint lacks by its manifest, or ''.

  Sizes are compared, and contents are not read. A checkpoint without a
  manifest counts as undamaged.
  """
  path = folder / _MANIFEST
  if not path.exists():
    return ''
  try:
    expected = json.loads(path.read_text())
  except ValueError:
    return f'{path} is damaged'
  sizes = _sizes(folder)
  for name, size in expected.items():
    if name not in sizes:
      return f'{folder / name} is missing'
    if sizes[name] < size:
      return f'{folder / name} has {sizes[name]:,} of {size:,} bytes'
  return ''


def _sizes(folder: epath.Path) -> dict[str, int]:
  """Returns the bytes of each file in the folders of a checkpoint's items."""
  items = (path for path in folder.iterdir() if path.is_dir())
  return {
    str(path.relative_to(folder)): path.stat().length
    for item in items
    for path in sorted(_files(item))
  }


def _files(folder: epath.Path) -> Iterator[epath.Path]:
  for path in folder.iterdir():
    if path.is_dir():
      yield from _files(path)
    else:
      yield path
