"""Searches for the settings with the fastest step that fits a TPU slice.

  for trial in Search(config, 'v5e:2x2', minutes=10).run(): ...

The candidates are compiled in processes, the fastest by estimate first, until
no other one can be faster, or the time is up. Half of the traffic between chips
counts as not hidden behind arithmetic. Otherwise meshes would win that send as
long as they compute.
"""

import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from isft_jax import chips as chips_lib
from isft_jax.config import RunConfig
from isft_jax.models import remat
from isft_jax.tpu.candidates import Candidate, apply, list_candidates
from isft_jax.tpu.compile import compile_run, count_targets
from isft_jax.tpu.roofline import Roofline

# A candidate must be faster by this share to count as faster: estimates of
# traffic between chips are not exact.
_MARGIN = 0.01
# Candidates that are expected to need too much memory are tried last, and only
# up to this multiple of the limit.
_DOUBT = 1.1


class Trial(NamedTuple):
  """A candidate that was compiled.

  Attributes:
    candidate: its settings, and what was expected.
    report: result of `compile.compile_run`; empty if the compiler failed.
    failure: why the compiler failed; empty if it did not.
  """

  candidate: Candidate
  report: Mapping[str, Any]
  failure: str = ''

  @property
  def gib(self) -> float:
    """Memory per chip in GiB; a lower bound if the program does not fit."""
    return self.report.get('hbm_gib_per_chip', 0.0)

  @property
  def cautious_seconds(self) -> float:
    """`Roofline.cautious_seconds` of a step; infinite without a program."""
    if not self.report.get('fits'):
      return math.inf
    return Roofline(**self.report['seconds_by_resource']).cautious_seconds


# Compiles a config: (config, topology, slices) -> report of `compile_run`.
Compile = Callable[[RunConfig, str, int], Mapping[str, Any]]


class Search:
  """A search for the fastest step.

  Attributes:
    trials: what was compiled, in the order in which it was finished.
    candidates: all candidates; the first is the config itself.
    hopeless: number of candidates that were left out, because one that keeps
      less does not fit.
    unfinished: number of compilations that were stopped.
    limit_gib: memory per chip that a step may take.
  """

  def __init__(
    self,
    config: RunConfig,
    topology: str,
    slices: int = 1,
    minutes: float = 10,
    headroom: float = 0.1,
    processes: int | None = None,
    compile_step: Compile | None = None,
  ) -> None:
    """Lists the candidates; compiles nothing.

    Args:
      config: config of the run; see `compile.compile_run`.
      topology: generation, and chips along each axis; see `chips.describe`.
      slices: number of slices.
      minutes: time after which compilations are stopped.
      headroom: share of a chip's memory that a step must leave free.
      processes: number of compilations at the same time; None: as many as the
        process may use cores.
      compile_step: compiles a step in another process, which imports it.

    Raises:
      ValueError: as by `compile.compile_run`.
    """
    self.targets = count_targets(config)
    devices = chips_lib.describe(topology, slices)
    self._chip = chips_lib.CHIPS[devices[0].device_kind]
    self.limit_gib = self._chip.hbm / chips_lib.GIB * (1 - headroom)
    self.config, self.topology, self.slices = config, topology, slices
    self.candidates = list_candidates(config, devices, self.targets)
    self._minutes = minutes
    self._processes = processes or len(os.sched_getaffinity(0))
    self._compile = compile_step or compile_without_probes
    self._waiting = [*self.candidates]
    self._running: dict[Connection, tuple[Any, Candidate]] = {}
    self.trials: list[Trial] = []
    self.hopeless = self.unfinished = 0

  @property
  def best(self) -> Trial | None:
    """The fastest trial that fits, and the simplest of equally fast ones."""
    fitting = [trial for trial in self.trials if self.fits(trial)]
    least = min((trial.cautious_seconds for trial in fitting), default=0.0)
    near = [t for t in fitting if t.cautious_seconds <= least * (1 + _MARGIN)]
    return min(near, key=lambda t: _simplicity(t.candidate), default=None)

  def fits(self, trial: Trial) -> bool:
    """Returns whether a step fits, and leaves the memory that it must."""
    return bool(trial.report.get('fits')) and trial.gib <= self.limit_gib

  @property
  def own_report(self) -> Mapping[str, Any] | None:
    """Report of the config itself; None if it was not found to fit."""
    for trial in self.trials:
      if not trial.candidate.changes and trial.report.get('fits'):
        return trial.report
    return None

  def result(self, trial: Trial) -> dict[str, Any]:
    """Returns the verdict on a trial, as JSON values.

    `seconds_per_target` is None without a program.
    """
    fits, failed = self.fits(trial), bool(trial.failure)
    targets = self.config.batch_size * self.targets
    return {
      'verdict': 'fits' if fits else 'failed' if failed else 'too large',
      'gib': trial.gib,
      'seconds_per_target': (
        trial.report['estimated_step_seconds'] / targets
        if trial.report.get('fits')
        else None
      ),
      'failure': trial.failure,
    }

  def summary(self) -> dict[str, Any]:
    """Returns the shape of the batches, and the number of candidates."""
    verdicts = [self.result(trial)['verdict'] for trial in self.trials]
    return {
      'config': self.config.name,
      'topology': self.topology,
      'batch': self.config.batch_size,
      'length': self.config.seq_len,
      'targets': self.targets,
      'limit_gib': self.limit_gib,
      'candidates': len(self.candidates),
      'compiled': len(self.trials),
      'fit': verdicts.count('fits'),
      'too_large': verdicts.count('too large'),
      'failed': verdicts.count('failed'),
      'stopped': self.unfinished,
      'hopeless': self.hopeless,
      'not_tried': len(self._waiting),
    }

  def run(self) -> Iterator[Trial]:
    """Compiles candidates, and yields each when it is finished.

    If the iterator is closed or interrupted, the processes are ended.
    """
    until = time.monotonic() + 60 * self._minutes
    try:
      while True:
        while len(self._running) < self._processes:
          candidate = self._next()
          if candidate is None:
            break
          self._start(candidate)
        if not self._running:
          return
        left = until - time.monotonic()
        ready = wait([*self._running], timeout=max(0.0, left))
        if not ready:
          return
        for connection in ready:
          trial = self._finish(connection)
          self.trials.append(trial)
          self._drop_hopeless(trial)
          yield trial
    finally:
      self.unfinished += len(self._running)
      for process, _ in self._running.values():
        process.kill()
        process.join()
      self._running.clear()

  def _start(self, candidate: Candidate) -> None:
    # Spawned, because a fork of a process with jax's threads may hang.
    context = multiprocessing.get_context('spawn')
    receiver, sender = context.Pipe(duplex=False)
    config = apply(self.config, candidate.settings)
    process = context.Process(
      target=_compile_in_process,
      args=(sender, self._compile, config, self.topology, self.slices),
      daemon=True,
    )
    # Ctrl-C reaches all processes of a terminal. The child inherits that it is
    # ignored, and the search ends the child.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    process.start()
    signal.signal(signal.SIGINT, handler)
    sender.close()  # so that the end of the process closes the pipe
    self._running[receiver] = process, candidate

  def _finish(self, connection: Any) -> Trial:
    process, candidate = self._running.pop(connection)
    try:
      report, failure = connection.recv()
    except EOFError:
      process.join()
      report = {}
      failure = f'the compiler ended its process (exit code {process.exitcode})'
    process.join()
    connection.close()
    return Trial(candidate, report, failure)

  def _next(self) -> Candidate | None:
    """Takes the most promising candidate; None if no other can be better."""
    # The config itself is first: all others are compared with it.
    if self._waiting and self._waiting[0].changes == 0:
      return self._waiting.pop(0)
    best = self.best
    most = (1 - _MARGIN) * (best.cautious_seconds if best else math.inf)
    faster = [e for e in self._waiting if e.least.cautious_seconds < most]
    expected = {id(each): self._expect_gib(each) for each in faster}
    for limit in (self.limit_gib, self.limit_gib * _DOUBT):
      near = [each for each in faster if expected[id(each)] <= limit]
      if near:
        most = min(each.least.cautious_seconds for each in near) * (1 + _MARGIN)
        chosen = min(
          (each for each in near if each.least.cautious_seconds <= most),
          key=_simplicity,
        )
        self._waiting = [e for e in self._waiting if e is not chosen]
        return chosen
    return None

  def _expect_gib(self, candidate: Candidate) -> float:
    """Returns the expected memory per chip in GiB.

    The estimate, plus the error of the estimate of the most similar trial.
    """

    def convert(size: float) -> float:
      return size * self._chip.devices / chips_lib.GIB

    def count_equal(trial: Trial) -> int:
      return sum(
        trial.candidate.settings[name] == value
        for name, value in candidate.settings.items()
      )

    known = [trial for trial in self.trials if trial.gib]
    nearest = max(known, key=count_equal, default=None)
    error = nearest.gib - convert(nearest.candidate.memory) if nearest else 0.0
    return convert(candidate.memory) + error

  def _drop_hopeless(self, trial: Trial) -> None:
    """Drops candidates that keep more than one that does not fit."""
    if trial.failure or self.fits(trial):
      return
    kept = remat.kept(trial.candidate.settings['model.remat'])

    def is_hopeless(candidate: Candidate) -> bool:
      settings = candidate.settings
      return kept <= remat.kept(settings['model.remat']) and all(
        settings[name] == value
        for name, value in trial.candidate.settings.items()
        if name != 'model.remat'
      )

    hopeful = [each for each in self._waiting if not is_hopeless(each)]
    self.hopeless += len(self._waiting) - len(hopeful)
    self._waiting = hopeful


def _simplicity(candidate: Candidate) -> tuple[int, float]:
  """Returns the order of candidates with equal times: the simplest first."""
  return candidate.changes, sum(candidate.least)


def compile_without_probes(
  config: RunConfig, topology: str, slices: int
) -> Mapping[str, Any]:
  """Returns the report of `compile_run` on the step only."""
  return compile_run(config, topology, slices, has_probes=False)


def _end_with_parent() -> None:
  """Ends this process if its parent was killed: nobody would end it."""
  parent = multiprocessing.parent_process()
  if parent is not None:
    parent.join()
    os._exit(1)


def _compile_in_process(
  sender: Connection,
  compile_step: Compile,
  config: RunConfig,
  topology: str,
  slices: int,
) -> None:
  """Sends (report, failure) of a compilation; runs in its own process."""
  threading.Thread(target=_end_with_parent, daemon=True).start()
  try:
    sender.send((compile_step(config, topology, slices), ''))
  except Exception as error:  # the compiler may raise anything
    lines = str(error).splitlines() or [type(error).__name__]
    sender.send(({}, lines[0]))
