"""Prepares rows in several processes and returns outcomes in the rows' order.

    rows --chunks--> worker, worker, ... --in order--> outcomes and their tally

Workers receive rows and return the bytes of records. The written files do not
depend on the number of workers or on their speed.
"""

import collections
import concurrent.futures
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator

from isft_jax.data.preparation.counters import Tally
from isft_jax.data.preparation.outcomes import Outcome, Preparer, Task

_CHUNK = 16  # rows per message between processes
_AHEAD = 2  # chunks that wait for each worker, so that no worker is idle

# Result of a chunk of rows.
Done = tuple[list[Outcome], Tally]

_preparer: Preparer  # of a worker process, set once when it starts


def outcomes(
  preparer: Preparer, tasks: Iterable[Task], num_workers: int
) -> Iterator[Done]:
  """Prepares rows and yields their outcomes in order, a few at a time.

  Args:
    preparer: prepares a row.
    tasks: the rows.
    num_workers: number of worker processes; 1 uses this process.

  Yields:
    The outcomes of some rows, and their counts.

  Raises:
    ValueError: a worker process died.
  """
  # A single worker needs no other process.
  if num_workers == 1:
    for task in tasks:
      tally = Tally()
      yield [preparer(task, tally)], tally
    return
  with concurrent.futures.ProcessPoolExecutor(
    num_workers,
    multiprocessing.get_context('spawn'),  # a fork would lose the threads
    _start,
    (preparer,),
  ) as pool:
    waiting: collections.deque[concurrent.futures.Future[Done]]
    waiting = collections.deque()
    try:
      # A bounded queue of chunks: memory does not grow with the input.
      tasks = iter(tasks)
      while chunk := tuple(itertools.islice(tasks, _CHUNK)):
        waiting.append(pool.submit(_prepare, chunk))
        # The oldest chunk comes first, which keeps the order of the rows.
        if len(waiting) > _AHEAD * num_workers:
          yield waiting.popleft().result()
      while waiting:
        yield waiting.popleft().result()
    except concurrent.futures.process.BrokenProcessPool as error:
      raise ValueError(
        'a worker process ended before its rows were done, as happens when '
        'memory runs out; run the same command with fewer --num_workers'
      ) from error
    finally:
      # After an error or an early end, chunks that wait are not prepared.
      for future in waiting:
        future.cancel()


def _start(preparer: Preparer) -> None:
  """Initialises a worker process."""
  global _preparer
  _preparer = preparer
  # Only the main process reports an interrupt.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
  """Ends this worker when the main process ends, even if it was killed."""
  parent = multiprocessing.parent_process()
  assert parent is not None  # only workers call this
  parent.join()
  os._exit(1)


def _prepare(chunk: tuple[Task, ...]) -> Done:
  tally = Tally()
  return [_preparer(task, tally) for task in chunk], tally
