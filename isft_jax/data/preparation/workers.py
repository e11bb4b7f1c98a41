"""Many rows at once: processes on one machine, outcomes in the rows' order.

    rows --chunks--> worker, worker, ... --in order--> outcomes and their tally

A worker gets rows and gives bytes: what is written does not depend on how many
there are, nor on which is the faster.
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

_CHUNK = 16  # rows that travel together
_AHEAD = 2  # chunks that wait for each worker, so that none runs dry

# What becomes of a chunk of rows.
Done = tuple[list[Outcome], Tally]

_preparer: Preparer  # of a worker: made once, when it starts


def outcomes(
  preparer: Preparer, tasks: Iterable[Task], num_workers: int
) -> Iterator[Done]:
  """Yields what becomes of rows, a few at a time, in their order.

  num_workers: processes. 1: this one.

  Raises ValueError if a worker dies.
  """
  if num_workers == 1:
    for task in tasks:
      tally = Tally()
      yield [preparer(task, tally)], tally
    return
  with concurrent.futures.ProcessPoolExecutor(
    num_workers,
    multiprocessing.get_context('spawn'),  # threads survive no fork
    _start,
    (preparer,),
  ) as pool:
    waiting: collections.deque[concurrent.futures.Future[Done]]
    waiting = collections.deque()
    try:
      tasks = iter(tasks)
      while chunk := tuple(itertools.islice(tasks, _CHUNK)):
        waiting.append(pool.submit(_prepare, chunk))
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
      for future in waiting:
        future.cancel()


def _start(preparer: Preparer) -> None:
  global _preparer
  _preparer = preparer
  # An interrupt is the main process's to tell of, once.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
  parent = multiprocessing.parent_process()
  assert parent is not None  # a worker runs this
  parent.join()
  os._exit(1)


def _prepare(chunk: tuple[Task, ...]) -> Done:
  tally = Tally()
  return [_preparer(task, tally) for task in chunk], tally
