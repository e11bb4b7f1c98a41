"""Checkpoints of a run: writes them, detects damaged ones, resumes from them.

Orbax renames a checkpoint to its final name when it is complete. If a file is
lost, cut or changed later, Orbax notices this only when it reads the file, or
never: it reads some missing files as zeros, and most flipped bits as other
numbers. So each checkpoint has a manifest, `files.json`, with the size and the
SHA-256 of every file.

The best checkpoint is the one with the lowest held-out loss. Each checkpoint
holds its own held-out loss, so that a resumed run and a reader know the best
from the checkpoints themselves.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from isft_jax import files
from isft_jax.config import RunConfig, with_new_names
from isft_jax.train import multihost
from isft_jax.train.step import TrainState
from isft_jax.types import PyTree

_STEP = 'step'
# In a workdir whose checkpoints are those of a run inside of it.
_POINTER = 'accepted.json'
_MANIFEST = 'files.json'
_THREADS = 8  # that read files for checksums
_RUN_FILE = 'run', 'metadata'  # the JSON of the item `run`, as Orbax names it
_LOSS = 'heldout_loss'  # its key in this JSON

# Which checkpoint to read: that of a step, the best, or the newest.
Wanted = int | Literal['best'] | None


class Best(NamedTuple):
  """The checkpoint with the lowest held-out loss, and this loss in nats."""

  step: int
  loss: float


def is_pointer(workdir: epath.PathLike) -> bool:
  """Returns whether a workdir stands for a run inside of it."""
  return (epath.Path(workdir) / _POINTER).exists()


def point_to(workdir: epath.PathLike, run: str) -> None:
  """Makes a workdir stand for the checkpoints of a run inside of it.

  Args:
    workdir: a folder that has no checkpoints itself.
    run: path of the run's workdir, relative to it.
  """
  path = epath.Path(workdir) / _POINTER
  text = json.dumps({'run': run}) + '\n'
  if not path.exists() or path.read_text() != text:
    files.write_atomically(path, text)


def checkpoint_folder(workdir: epath.PathLike) -> epath.Path:
  """Returns the folder of a run's checkpoints, on disk or in a bucket.

  Raises:
    ValueError: the workdir points to another run, and the pointer is damaged.
  """
  folder = epath.Path(workdir)
  if (pointer := folder / _POINTER).exists():
    folder /= _pointed_to(pointer)
  folder /= 'checkpoints'
  # absolute() would turn gs://... into a folder named gs: in the current one.
  return folder if '://' in str(folder) else folder.absolute()


def _pointed_to(pointer: epath.Path) -> str:
  try:
    run = json.loads(pointer.read_text())['run']
  except (ValueError, TypeError, KeyError):
    run = None
  # A place elsewhere would be read as if it belonged to the workdir.
  if not isinstance(run, str) or not re.fullmatch(r'\w+(/\w+)*', run):
    raise ValueError(
      f'{pointer} is damaged; isft-train --follow writes it again if it is '
      'removed'
    )
  return run


class Checkpoints:
  """The checkpoints of one run, written asynchronously by Orbax.

  A checkpoint holds `params`, `opt_state`, `data` (state of the data iterator)
  and `run` (config, fingerprint, digests of the records and of a frozen base,
  held-out loss, sums over the metrics). Its number is the step. Frozen
  parameters are not in it.

  Attributes:
    best: the best checkpoint, which is kept after `keep_best`.
  """

  def __init__(
    self,
    workdir: epath.PathLike,
    config: RunConfig | None = None,
    step: Wanted = None,
  ) -> None:
    """Opens the checkpoints of a run.

    Args:
      workdir: folder of the run.
      config: config of the run, to write checkpoints. The newest `keep_last`
        are kept, and those whose step is a multiple of `keep_every`. Damaged
        ones are renamed. None: open for reading only.
      step: number of the checkpoint to read, or 'best', instead of the newest.
        Only without a config.

    Raises:
      ValueError: that checkpoint does not exist, or is damaged.
    """
    self._folder = checkpoint_folder(workdir)
    self._config = config
    self.best: Best | None = None
    # Rename damaged checkpoints before any host lists the folder.
    if config and multihost.is_first():
      self._put_aside()
    if config:
      multihost.wait_for_all('damaged checkpoints are put aside')
    self._manager = ocp.CheckpointManager(
      self._folder,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=self._policy(),
        step_prefix=_STEP,
        create=config is not None,
        # A reader must not delete unfinished files of a live run.
        cleanup_tmp_directories=config is not None,
        async_options=ocp.AsyncOptions(post_finalization_callback=self._finish),
      ),
      item_names=('params', 'opt_state', 'data', 'run'),
    )
    # A run that writes has renamed damaged checkpoints, so Orbax's newest is
    # good. A reader must look for itself, once. It compares sizes here, and
    # checksums of the items that it reads in `_read`.
    self._saving: int | None = None
    self._wanted = self._best_step() if step == 'best' else step
    self._newest = None if config else self._newest_whole(self._steps())

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *error: object) -> None:
    self._manager.close()  # waits until pending writes are finished

  def latest(self) -> int | None:
    """Returns the step of the newest undamaged checkpoint, or None."""
    return self._manager.latest_step() if self._config else self._newest

  def keep_best(self) -> None:
    """Keeps the best checkpoint too from now on; every host must call it."""
    # Hosts that see different folders would take different decisions.
    best = None
    while multihost.is_first() and (best := self._find_best()):
      folder = self._step_folder(best.step)
      # An evaluation must not be compared with a checkpoint that is lost.
      if not (damage := _damage(folder, ('params', 'run'))):
        break
      _rename_damaged(folder, damage, 'the best of the others takes its place')
      self._manager.reload()
    shared = multihost.share(best)
    self.best = Best(*shared) if shared else None
    self._manager.reload()  # lists the folder again, on every host

  def is_best(self, loss: float) -> bool:
    """Returns whether a held-out loss is finite, and below the lowest."""
    return math.isfinite(loss) and (not self.best or loss < self.best.loss)

  def _policy(self) -> checkpoint_managers.PreservationPolicy | None:
    """Returns which checkpoints to keep; None for a reader, which keeps all."""
    if not self._config:
      return None
    policies = checkpoint_managers.LatestN(self._config.keep_last), _Best(self)
    # Steps that are multiples of `keep_every` are kept for good.
    every = self._config.keep_every
    return checkpoint_managers.AnyPreservationPolicy(
      [*policies, *([checkpoint_managers.EveryNSteps(every)] if every else [])]
    )

  def _best_step(self) -> int:
    best = self._find_best()
    if best is None:
      raise ValueError(
        f'{self._folder} has no best checkpoint, because none was saved with a '
        'held-out loss; train with --config.keep_best, or name another step'
      )
    return best.step

  def _find_best(self) -> Best | None:
    """Returns the best checkpoint, the first of equal ones; None without any.

    Damaged checkpoints are left out if their sizes or held-out losses show it.
    """
    found = []
    for step in sorted(self._manager.all_steps()):
      folder = self._step_folder(step)
      if damage := _damage(folder, ('run',)):
        multihost.tell(f'{damage}; it is not taken for the best checkpoint')
      elif (loss := _heldout_loss(folder)) is not None:
        found.append(Best(step, loss))
    return min(found, key=lambda best: best.loss, default=None)

  def _steps(self) -> list[int]:
    """Returns the steps to read from, the newest first."""
    steps = sorted(self._manager.all_steps(), reverse=True)
    if self._wanted is None:
      return steps
    if self._wanted not in steps:
      listed = ', '.join(map(str, reversed(steps))) or 'none'
      raise ValueError(
        f'{self._folder} has no checkpoint of step {self._wanted}; it has '
        f'{listed}'
      )
    return [self._wanted]

  def _newest_whole(
    self, steps: Sequence[int], items: Collection[str] = ()
  ) -> int | None:
    # The newest first: the search usually ends at once.
    for step in steps:
      damage = _damage(self._step_folder(step), items)
      if damage and self._wanted is not None:
        raise ValueError(f'{damage}; name another step')
      if damage:
        multihost.tell(f'{damage}; reading an older checkpoint instead')
      else:
        return step
    return None

  def save(
    self,
    step: int,
    state: TrainState,
    data: dict[str, Any],
    fingerprint: str,
    records: Mapping[str, Any] | None = None,
    base: Mapping[str, str] | None = None,
    heldout_loss: float | None = None,
    metrics: Mapping[str, Any] | None = None,
  ) -> None:
    """Starts to save; returns once the arrays are copied from the devices.

    Args:
      step: number of steps done. If it is saved already, nothing happens.
      state: state after that step.
      data: state of the data iterator, as JSON values.
      fingerprint: fingerprint of the records.
      records: what else identifies the records, as JSON values.
      base: what identifies the frozen base of adapters, as JSON values.
      heldout_loss: loss of this state on the held-out records, in nats, to find
        the best checkpoint by; None if it was not measured.
      metrics: sums over the metrics of all steps, as JSON values.
    """
    assert self._config is not None
    if step == self.latest():
      return
    # JSON has no numbers that are not finite.
    if heldout_loss is not None and not math.isfinite(heldout_loss):
      heldout_loss = None
    # The best one before is deleted when this one is complete.
    if heldout_loss is not None and self.is_best(heldout_loss):
      self.best = Best(step, heldout_loss)
    # Orbax would wait too. `_finish` reads `_saving`, so the write of the
    # previous checkpoint must end before this line changes it.
    self.wait()
    self._saving = step
    self._manager.save(
      step,
      # Separate items, so that a reader of the parameters does not read the
      # moments.
      args=ocp.args.Composite(
        params=ocp.args.StandardSave(state.params),
        opt_state=ocp.args.StandardSave(state.opt_state),
        data=ocp.args.JsonSave(data),
        run=ocp.args.JsonSave(
          {
            'config': dataclasses.asdict(self._config),
            'fingerprint': fingerprint,
            **({'records': dict(records)} if records else {}),
            **({'base': dict(base)} if base else {}),
            **({_LOSS: heldout_loss} if heldout_loss is not None else {}),
            **({'metrics': dict(metrics)} if metrics else {}),
          }
        ),
      ),
    )

  def wait(self) -> None:
    """Waits until the last save is complete and has its final name."""
    self._manager.wait_until_finished()

  def newest_folder(self) -> str:
    """Returns the folder of the newest undamaged checkpoint."""
    return str(self._step_folder(self.latest()))

  def digest(self) -> str:
    """Returns the SHA-256 of the newest checkpoint's list of parameter files.

    Raises:
      ValueError: it is of an old version, which kept no checksums.
    """
    step = self.latest()
    folder = self._step_folder(step) if step is not None else self._folder
    if step is None or not _has_checksums(folder):
      raise ValueError(
        f'{folder} has no checksums of its files: a run of this version writes '
        'them; export it, and start from that folder'
      )
    manifest = json.loads((folder / _MANIFEST).read_text())
    sums = {n: manifest[n] for n in sorted(manifest) if n.startswith('params/')}
    return hashlib.sha256(json.dumps(sums).encode()).hexdigest()

  def restore(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """Returns the newest checkpoint, without frozen parameters.

    Args:
      abstract: the state as ShapeDtypeStructs with shardings. The mesh may
        differ from that of the run that saved.

    Returns:
      (state, state of the data iterator).

    Raises:
      ValueError: the checkpoint cannot be read.
    """
    # Orbax reads each array directly into the shards of the abstract state.
    restored = self._read(
      params=ocp.args.StandardRestore(abstract.params),
      opt_state=ocp.args.StandardRestore(abstract.opt_state),
      data=ocp.args.JsonRestore(),
    )
    state = abstract._replace(
      frozen=(),
      # The step is the checkpoint's number, and is not stored in it.
      step=jax.device_put(
        jax.numpy.asarray(self.latest(), abstract.step.dtype),
        abstract.step.sharding,
      ),
      params=restored['params'],
      opt_state=restored['opt_state'],
    )
    return state, restored['data']

  def restore_run(self) -> dict[str, Any]:
    """Returns the config of the run, and what identifies its records."""
    run = self._read(run=ocp.args.JsonRestore())['run']
    # Old versions wrote old names of fields.
    return run | {'config': with_new_names(run['config'])}

  def restore_params(self, abstract_params: PyTree) -> tuple[PyTree, str]:
    """Returns (params, fingerprint of the records of their training)."""
    restored = self._read(
      params=ocp.args.StandardRestore(abstract_params),
      run=ocp.args.JsonRestore(),
    )
    return restored['params'], restored['run']['fingerprint']

  def _read(self, **items: ocp.args.CheckpointArgs) -> dict[str, Any]:
    """Returns items of the newest checkpoint that can be read.

    A checkpoint with checksums is known to be undamaged before it is read. One
    of an old version may have to be read to know that.
    """
    newest = self.latest()
    steps = [step for step in self._steps() if step <= (newest or 0)]
    # A run that writes has compared all checksums already.
    if not self._config:
      newest = self._newest_whole(steps, items)
      if newest is None:
        raise ValueError(f'{self._folder}: every checkpoint there is damaged')
      self._newest = newest
      steps = [step for step in steps if step <= newest]

    # Older ones are tried only for the damage that is found by reading.
    errors: list[tuple[int, ValueError]] = []
    for step in steps:
      try:
        restored = self._read_step(step, items)
      except ValueError as error:
        errors.append((step, error))
        # Undamaged, so that the others cannot be read either. Several hosts
        # cannot agree on another step after an error of one of them.
        if _has_checksums(self._step_folder(step)) or jax.process_count() > 1:
          break
      else:
        self._leave_out(errors)
        return restored
    # Nothing is renamed, because the reason may be another than a damage.
    raise errors[0][1]

  def _read_step(
    self, step: int, items: Mapping[str, ocp.args.CheckpointArgs]
  ) -> dict[str, Any]:
    # Orbax and tensorstore raise many types of errors for damaged files.
    try:
      return self._manager.restore(step, args=ocp.args.Composite(**items))
    except Exception as error:
      if 'RESOURCE_EXHAUSTED' in str(error):
        raise  # out of memory; the checkpoint is not damaged
      reason = (str(error) or type(error).__name__).splitlines()[0]
      raise ValueError(
        f'{self._step_folder(step)} cannot be read ({reason}): move it away to '
        'use the checkpoint before it'
      ) from error

  def _leave_out(self, errors: Sequence[tuple[int, ValueError]]) -> None:
    """Continues with the checkpoint before those that could not be read."""
    for step, error in errors:
      words = str(error).rpartition(': move it away')[0]
      if self._config:
        _rename_damaged(self._step_folder(step), words)
      else:
        multihost.tell(f'{words}; reading an older checkpoint instead')
    if not errors:
      return
    if self._config:
      self._manager.reload()  # it lists the folder again
    else:
      oldest = errors[-1][0]
      self._newest = max(step for step in self._steps() if step < oldest)

  def _step_folder(self, step: int | None) -> epath.Path:
    return self._folder / f'{_STEP}_{step}'

  def _finish(self) -> None:
    # Orbax calls this on the first host when all files are written. On a disk
    # the folder still has its temporary name. In a bucket, which cannot rename,
    # it already has its final one.
    folder = self._step_folder(self._saving)
    temporary = [*self._folder.glob(f'{folder.name}.orbax-checkpoint-tmp*')]
    _write_manifest(temporary[0] if temporary else folder)

  def _put_aside(self) -> None:
    """Renames damaged checkpoints that are newer than the newest good one."""
    # Step -> folder. Unfinished and renamed folders have other names.
    folders = {
      int(number): folder
      for folder in self._folder.glob(f'{_STEP}_*')
      if (number := folder.name.removeprefix(f'{_STEP}_')).isdecimal()
    }
    for _, folder in sorted(folders.items(), reverse=True):
      # The run reads all items.
      if damage := _damage(folder, ('params', 'opt_state', 'data', 'run')):
        _rename_damaged(folder, damage)
      elif (folder / _MANIFEST).exists():
        return  # the run resumes here, and does not read older ones


class _Best(checkpoint_managers.PreservationPolicy):
  """Keeps the best checkpoint."""

  def __init__(self, checkpoints: Checkpoints) -> None:
    self._checkpoints = checkpoints

  def should_preserve(
    self,
    checkpoints: Sequence[checkpoint_managers.PolicyCheckpointInfo],
    *,
    context: checkpoint_managers.PreservationContext,
  ) -> Sequence[bool]:
    best = self._checkpoints.best
    return [best is not None and each.step == best.step for each in checkpoints]


def _heldout_loss(folder: epath.Path) -> float | None:
  """Returns the held-out loss that an undamaged checkpoint has, or None."""
  # Orbax would read it on all hosts together.
  try:
    loss = json.loads(folder.joinpath(*_RUN_FILE).read_text()).get(_LOSS)
  except (OSError, ValueError, AttributeError):
    return None
  is_number = isinstance(loss, int | float) and not isinstance(loss, bool)
  return float(loss) if is_number and math.isfinite(loss) else None


def _rename_damaged(
  folder: epath.Path,
  damage: str,
  effect: str = 'the run resumes from an older checkpoint, or from the start',
) -> None:
  aside = folder.with_name(f'damaged_{folder.name}')
  if aside.is_dir():  # from an earlier damage of the same step
    aside.rmtree()
  folder.rename(aside)
  multihost.tell(f'{damage}; {effect}; the rest of this one is in {aside}')


def _write_manifest(folder: epath.Path) -> None:
  """Writes size and checksum of all files of a finished checkpoint."""
  sizes = _sizes(folder)
  manifest = {
    name: {'bytes': sizes[name], 'sha256': sha256}
    for name, sha256 in _checksums(folder, sizes)
  }
  (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1) + '\n')


def _has_checksums(folder: epath.Path) -> bool:
  try:
    manifest = json.loads((folder / _MANIFEST).read_text())
  except (OSError, ValueError):
    return False
  return any(isinstance(entry, dict) for entry in manifest.values())


def _damage(folder: epath.Path, items: Collection[str] = ()) -> str:
  """Returns the first missing, cut or changed file of a checkpoint, or ''.

  Args:
    folder: folder of the checkpoint. Without a manifest, only absent items are
      noticed; old versions wrote a manifest without checksums.
    items: items whose contents are read and compared with their checksums. Of
      the others, only the sizes are compared.

  Returns:
    The damage in words.
  """
  path = folder / _MANIFEST
  if not path.exists():
    return _absence(folder, ('params', 'run', *items))
  try:
    manifest = json.loads(path.read_text())
    expected = {name: _sums(entry) for name, entry in sorted(manifest.items())}
  except (ValueError, TypeError, KeyError, AttributeError):
    return f'{path} is damaged'
  # Sizes first, which takes no time. Old versions allowed files to grow.
  sizes = _sizes(folder)
  for name, (size, sha256) in expected.items():
    if name not in sizes:
      return f'{folder / name} is missing'
    if sizes[name] < size or (sha256 and sizes[name] != size):
      return f'{folder / name} has {sizes[name]:,} of {size:,} bytes'
  # Checksums of the items to read.
  names = [
    name
    for name, (_, sha256) in expected.items()
    if sha256 and name.partition('/')[0] in items
  ]
  try:
    for name, sha256 in _checksums(folder, names):
      if sha256 != expected[name][1]:
        return f'{folder / name} has changed since it was written'
  except OSError as error:
    return f'{folder} cannot be read ({error})'
  return ''


def _absence(folder: epath.Path, items: Iterable[str]) -> str:
  """Returns the first item of a checkpoint without any file, or ''."""
  if not folder.is_dir():
    return f'{folder} is no folder'
  if not any(folder.iterdir()):
    return f'{folder} is empty'
  for item in items:
    if not (folder / item).is_dir() or not any((folder / item).iterdir()):
      return f'{folder / item} is missing or empty'
  return ''


def _sums(entry: Any) -> tuple[int, str]:
  """Returns (bytes, SHA-256 or '') of an entry of a manifest."""
  if isinstance(entry, dict):
    return int(entry['bytes']), str(entry['sha256'])
  return int(entry), ''


def _checksums(
  folder: epath.Path, names: Iterable[str]
) -> Iterator[tuple[str, str]]:
  """Yields (name, SHA-256) of files, in order."""
  names = list(names)
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    paths = [folder / name for name in names]
    yield from zip(names, pool.map(files.sha256, paths), strict=True)


def _sizes(folder: epath.Path) -> dict[str, int]:
  """Returns the size of each file in the folders of a checkpoint's items."""
  # Only the folders of items count. Beside them are the manifest itself, and
  # files of Orbax.
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
