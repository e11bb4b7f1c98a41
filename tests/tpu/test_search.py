"""A search: it finds the fastest that fits, and outlives all that fails."""

import dataclasses
import multiprocessing
import os
import pathlib
import time

import pytest

from isft_jax.config import MeshConfig, RunConfig
from isft_jax.models import remat
from isft_jax.tpu.search import Search
from tests.fixtures import needs
from tests.tpu.test_candidates import MODEL

pytestmark = needs('libtpu')

RUN = RunConfig(
  batch_size=8, seq_len=1_024, model=MODEL, mesh=MeshConfig(data=1, fsdp=4)
)
GIB = 2**30


class Ended:
  """A process that has ended."""

  exitcode = 0

  def join(self):
    pass

  def kill(self):
    pass


class Instant(Search):
  """A search whose compiler is a function, at once and in this process."""

  def __init__(self, gib, limit=1.0, failing=lambda settings: False, **options):
    super().__init__(RUN, 'v5e:2x2', processes=1, **options)
    self.limit_gib = limit
    self.gib, self.failing = gib, failing

  def _start(self, candidate):
    receiver, sender = multiprocessing.Pipe(duplex=False)
    fits = (gib := self.gib(candidate)) <= 1.1 * self.limit_gib
    report = {'fits': fits, 'hbm_gib_per_chip': gib}
    if fits:
      report['estimated_step_seconds'] = candidate.least.seconds
      report['seconds_by_resource'] = candidate.least._asdict()
    if self.failing(candidate.settings):
      sender.send(({}, 'INTERNAL: why'))
    else:
      sender.send((report, ''))
    self._running[receiver] = Ended(), candidate


def fastest(search) -> float:
  """Seconds of the fastest candidate that fits, by trying all of them."""
  return min(
    each.least.cautious_seconds
    for each in search.candidates
    if search.gib(each) <= search.limit_gib
    and not search.failing(each.settings)
  )


# What a program needs, from the estimate in GiB.
NEEDS = {
  'the estimate': lambda each: each.memory / GIB,
  'more': lambda each: each.memory / GIB + 0.1,
  'less': lambda each: 0.9 * each.memory / GIB,
  'more for what is kept': lambda each: (
    each.memory / GIB + 0.01 * len(remat.kept(each.settings['model.remat']))
  ),
}


@pytest.mark.parametrize('limit', [0.22, 0.3, 0.5])
@pytest.mark.parametrize('needed', NEEDS)
def test_the_fastest_that_fits_is_found_by_few_trials(needed, limit):
  search = Instant(NEEDS[needed], limit)
  trials = list(search.run())
  # Within the margin below which two times count as equal.
  assert search.best.cautious_seconds <= 1.01 * fastest(search)
  assert search.fits(search.best)
  assert not trials[0].candidate.changes
  assert len(trials) <= 20 < len(search.candidates) / 10
  assert search.summary()['compiled'] == len(trials)


def test_memory_that_must_stay_free_is_free():
  search = Instant(NEEDS['the estimate'], headroom=0.25)
  assert search.summary()['limit_gib'] == 1.0
  plain = Search(RUN, 'v5e:2x2', headroom=0.25)
  assert plain.summary()['limit_gib'] == 0.75 * 15.75


def test_a_candidate_that_fails_is_counted_and_the_search_continues():
  def failing(settings):
    return settings['model.head_chunk'] == 0

  search = Instant(NEEDS['the estimate'], 0.5, failing)
  list(search.run())
  assert search.best.cautious_seconds <= 1.01 * fastest(search)
  summary = search.summary()
  assert summary['failed'] > 0
  failed = [t for t in search.trials if t.failure]
  assert {search.result(t)['verdict'] for t in failed} == {'failed'}
  assert {search.result(t)['failure'] for t in failed} == {'INTERNAL: why'}
  assert summary['compiled'] == len(search.trials)
  assert summary['fit'] + summary['too_large'] + summary['failed'] == len(
    search.trials
  )


def test_what_keeps_more_than_one_that_does_not_fit_is_skipped():
  search = Instant(lambda each: 2.0)
  list(search.run())
  assert search.best is None
  own = search.candidates[0].settings
  more = [
    each
    for each in search.candidates[1:]
    if {**each.settings, 'model.remat': 'full'} == own
  ]
  assert more and search.summary()['hopeless'] >= len(more)


def test_all_candidates_are_counted():
  search = Instant(NEEDS['more'], 0.5)
  list(search.run())
  summary = search.summary()
  assert summary['candidates'] == sum(
    summary[name] for name in ('compiled', 'hopeless', 'not_tried', 'stopped')
  )


def test_of_equally_fast_settings_the_fewest_are_changed():
  search = Instant(NEEDS['the estimate'], 10.0)
  list(search.run())
  near = [
    t
    for t in search.trials
    if search.fits(t)
    and t.cautious_seconds <= 1.01 * search.best.cautious_seconds
  ]
  changes = [t.candidate.changes for t in near]
  assert search.best.candidate.changes == min(changes)


# ---------------------------------------------------------------- the processes


def report_or_fail(config, topology, slices):
  """Stands for a compiler that fails in all ways."""
  del topology, slices
  if config.model.remat != 'full':
    os._exit(7)  # as a failed check in C++ does
  if config.optim.accumulate > 1:
    raise RuntimeError('INTERNAL: first line\nsecond line')
  return {'fits': False, 'hbm_gib_per_chip': 3.0}


def sleep(config, topology, slices):
  del config, topology, slices
  time.sleep(60)


def test_a_process_reports_fails_or_dies():
  search = Search(RUN, 'v5e:2x2', processes=3, compile_step=report_or_fail)
  own, *others = search.candidates

  def find(test):
    return next(each for each in others if test(each.settings))

  search._waiting = [
    own,
    find(lambda s: s['model.remat'] != 'full'),
    find(lambda s: s['model.remat'] == 'full' and s['optim.accumulate'] > 1),
  ]
  trials = sorted(search.run(), key=lambda trial: trial.failure)
  assert [(trial.gib, trial.failure) for trial in trials] == [
    (3.0, ''),
    (0.0, 'INTERNAL: first line'),
    (0.0, 'the compiler ended its process (exit code 7)'),
  ]


def test_compilations_are_stopped_when_time_is_up():
  search = Search(
    *(RUN, 'v5e:2x2'), minutes=0.01, processes=2, compile_step=sleep
  )
  since = time.monotonic()
  assert list(search.run()) == []
  assert time.monotonic() - since < 30
  assert search.summary()['stopped'] == 2
  assert not multiprocessing.active_children()


def search_alone(pid_file):
  """Starts a compilation, and writes its process id to a file."""
  search = Search(RUN, 'v5e:2x2', processes=1, compile_step=sleep)
  search._start(search.candidates[0])
  ((process, _),) = search._running.values()
  pathlib.Path(pid_file).write_text(str(process.pid))
  time.sleep(60)


def test_compilations_end_with_a_search_that_is_killed(tmp_path):
  path = tmp_path / 'pid'
  parent = multiprocessing.get_context('spawn').Process(
    target=search_alone, args=(path,)
  )
  parent.start()
  while not (path.exists() and path.read_text()):
    time.sleep(0.1)
  pid = int(path.read_text())
  time.sleep(15)  # until it has started, and sleeps
  os.kill(pid, 0)
  parent.kill()
  parent.join()
  until = time.monotonic() + 40  # less than its sleep
  while time.monotonic() < until and is_running(pid):
    time.sleep(0.1)
  assert not is_running(pid)


def is_running(pid):
  try:
    state = pathlib.Path(f'/proc/{pid}/stat').read_text().split(') ')[1]
  except FileNotFoundError:
    return False
  return not state.startswith('Z')


def test_an_interrupt_stops_the_processes_and_keeps_the_trials():
  search = Search(RUN, 'v5e:2x2', processes=1, compile_step=sleep)
  trials = search.run()

  def interrupt(*_):
    raise KeyboardInterrupt

  search._finish = interrupt
  search._start(search.candidates[0])
  (connection,) = search._running
  os.kill(search._running[connection][0].pid, 9)
  with pytest.raises(KeyboardInterrupt):
    next(trials)
  assert search.trials == [] and search.best is None
  assert not multiprocessing.active_children()


def test_the_compiler_itself():
  """The config and the fastest candidate, on one chip.

  Of a smaller model: the compiler takes six times as long for MODEL.
  """
  model = dataclasses.replace(
    MODEL, vocab_size=512, width=128, heads=1, kv_heads=1, mlp_width=256
  )
  run = dataclasses.replace(
    RUN, model=model, mesh=MeshConfig(1, 1, 1), seq_len=256
  )
  search = Search(run, 'v5e:1x1')
  kept = 'q,k,v,attention,o,gate,up'
  search._waiting = [
    each
    for each in search.candidates
    if each.settings == search.candidates[0].settings | {'model.remat': kept}
    or not each.changes
  ]
  trials = list(search.run())
  assert len(trials) == 2
  own = search.own_report
  assert (own['remat'], own['length']) == (run.model.remat, 256)
  assert search.best.report['remat'] == kept
  least = search.best.report['estimated_step_seconds']
  assert least < own['estimated_step_seconds']
  assert all(trial.report['fits'] for trial in trials)
