"""Logs scalars of a run to TensorBoard and, optionally, Weights & Biases.

Each logger writes in a thread of its own. If it cannot write, because a disk is
full or a network is down, it is dropped with one warning, and the run
continues.
"""

import contextlib
import dataclasses
import queue
import socket
import threading
import time
import types
import typing
import uuid
from collections.abc import Callable

from etils import epath
from tensorboardX import summary
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import RecordWriter, directory_check

from isft_jax.config import RunConfig

if typing.TYPE_CHECKING:
  import wandb

_PATIENCE = 120.0  # seconds to wait for a logger at the end of a run
_WAITING = 100_000  # steps that may wait for a slow logger, of about 1 kB each
_UPLOAD_EVERY = 120.0  # seconds; each upload to a bucket is the whole file


class Loggers:
  """Logs scalars by step. A resumed run appends to its own curves."""

  def __init__(
    self,
    folder: epath.Path,
    config: RunConfig,
    done: int,
    wandb: str = '',
    is_finished: bool = False,
  ) -> None:
    """Opens TensorBoard in a folder, and Weights & Biases if it is named.

    Args:
      folder: folder of the run.
      config: config of the run, for Weights & Biases.
      done: steps done. Points of later steps are deleted.
      wandb: project of Weights & Biases; '' for none.
      is_finished: whether no step is left to log. Nothing is opened then: each
        opening adds a file.

    Raises:
      ValueError: Weights & Biases is not installed.
    """
    self._loggers: list[_Background] = []
    if is_finished:
      return
    if wandb:
      _imported()  # a missing package is a mistake of the command
      self._loggers.append(
        _Background(
          'Weights & Biases', lambda: _Wandb(_open_wandb(folder, config, wandb))
        )
      )
    self._loggers.append(
      _Background('TensorBoard', lambda: _TensorBoard(folder, done))
    )

  def add(self, step: int, scalars: dict[str, float]) -> None:
    """Logs the scalars of a step. It neither waits nor fails."""
    for logger in self._loggers:
      logger.add(step, scalars)

  def close(self) -> None:
    """Writes buffered points, and closes all loggers."""
    for logger in self._loggers:
      logger.close()


class _Logger(typing.Protocol):
  """A logger whose methods may raise any exception, or hang."""

  def add(self, step: int, scalars: dict[str, float]) -> None: ...

  def flush(self) -> None: ...

  def close(self) -> None: ...


class _Background:
  """Calls a logger in a thread, and drops it at its first error."""

  def __init__(self, name: str, open_logger: Callable[[], _Logger]) -> None:
    self._name = name
    self._is_dropped = False
    self._lock = threading.Lock()  # of the line that may have two reasons
    # Unbounded, so that `put` never waits. None is the end.
    self._queue: queue.SimpleQueue[tuple[int, dict[str, float]] | None]
    self._queue = queue.SimpleQueue()
    self._thread: threading.Thread | None = None
    try:
      logger = open_logger()
    except Exception as error:
      self._drop(error)
      return
    # A daemon does not keep the process from its end.
    self._thread = threading.Thread(
      target=self._run, args=(logger,), daemon=True
    )
    self._thread.start()

  def add(self, step: int, scalars: dict[str, float]) -> None:
    if self._is_dropped:
      return
    self._queue.put((step, scalars))
    if self._queue.qsize() > _WAITING:
      self._drop(f'{_WAITING:,} steps wait to be written')

  def close(self) -> None:
    if self._is_dropped or not self._thread:
      return
    self._queue.put(None)
    self._thread.join(_PATIENCE)
    if self._thread.is_alive():
      self._drop(f'it did not end within {_PATIENCE:.0f} s')

  def _run(self, logger: _Logger) -> None:
    try:
      while (row := self._queue.get()) is not None:
        if self._is_dropped:
          return
        logger.add(*row)
        if self._queue.empty():
          logger.flush()
      logger.close()
    except Exception as error:
      self._drop(error)
      with contextlib.suppress(Exception):
        logger.close()

  def _drop(self, reason: Exception | str) -> None:
    with self._lock:
      if self._is_dropped:
        return
      self._is_dropped = True
    words = (str(reason) or type(reason).__name__).splitlines()[0]
    print(
      f'warning: {self._name} gets no more points of this run ({words}); '
      'metrics.jsonl has them all',
      flush=True,
    )


class _TensorBoard:
  """Writes an event file without TensorFlow, on a disk or in a bucket.

  tensorboardX's own SummaryWriter waits forever if its thread has died of a
  write error, also at the end of the process.
  """

  def __init__(self, folder: epath.Path, done: int) -> None:
    path = str(folder / 'tensorboard')
    directory_check(path)
    # TensorBoard reads the files of a folder in the order of their names.
    now, host = int(time.time()), socket.gethostname()
    name = f'events.out.tfevents.{now}.{host}'
    self._writer = RecordWriter(f'{path}/{name}')
    self._upload_every = _UPLOAD_EVERY if '://' in path else 0.0
    self._next_flush = 0.0
    # TensorBoard wants the version first. The start of a session hides points
    # of steps that a resumed run repeats.
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    self._write(0, file_version='brain.Event:2')
    self._write(done + 1, session_log=start)

  def add(self, step: int, scalars: dict[str, float]) -> None:
    for name, value in scalars.items():
      self._write(step, summary=summary.scalar(name, value))

  def flush(self) -> None:
    if time.monotonic() >= self._next_flush:
      self._writer.flush()
      self._next_flush = time.monotonic() + self._upload_every

  def close(self) -> None:
    # Closed even if it cannot be flushed: the interpreter would try again.
    try:
      self._writer.flush()
    finally:
      self._writer.close()

  def _write(self, step: int, **content: object) -> None:
    event = event_pb2.Event(step=step, wall_time=time.time(), **content)
    self._writer.write(event.SerializeToString())


class _Wandb:
  """A run of Weights & Biases, which writes in a process of its own."""

  def __init__(self, run: 'wandb.Run') -> None:
    self._run = run

  def add(self, step: int, scalars: dict[str, float]) -> None:
    self._run.log(scalars, step=step)

  def flush(self) -> None:
    pass

  def close(self) -> None:
    self._run.finish()


def _open_wandb(
  folder: epath.Path, config: RunConfig, project: str
) -> 'wandb.Run':
  wandb = _imported()
  # The id is kept in the workdir, so a resumed run continues its W&B run.
  path = folder / 'wandb_id'
  # A random id, because W&B ids must be unique within a project.
  if not path.exists():
    path.write_text(uuid.uuid4().hex)
  # resume='allow' continues the run with this id, or starts it.
  return wandb.init(
    project=project,
    id=path.read_text(),
    name=config.name,
    # The whole config is stored with the run, to filter runs by it.
    config=dataclasses.asdict(config),
    resume='allow',
  )


def _imported() -> types.ModuleType:
  try:
    import wandb  # optional, and slow to import
  except ImportError:
    raise ValueError(
      '--wandb needs Weights & Biases: pip install wandb'
    ) from None
  return wandb
