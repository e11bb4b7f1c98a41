"""How far an experiment is: by hand, from measured seconds per unit."""

import pytest

from isft_jax.experiments.progress import Progress, duration

COSTS = {'step': 1.0, 'probes': 20.0}


@pytest.fixture
def progress(tmp_path):
  """Probes of a base, then two arms of 100 steps and a round of probes each."""
  found = Progress(tmp_path / 'progress.json', COSTS)
  found.plan('base probes', 'probes', 1)
  for arm in 'ab':
    found.plan(arm, 'step', 100)
    found.plan(f'{arm} probes', 'probes', 1)
  return found


def test_before_anything_is_measured_the_time_is_unknown(progress):
  assert progress.describe() == '0% done, time left unknown'


def test_a_kind_that_is_not_measured_is_estimated_by_its_cost(progress):
  """Probes took 40 s, so a step should take 2 s: 440 s + 80 s are left."""
  progress.update('base probes', 1, seconds=40)
  assert progress.seconds_left() == 2 * 100 * 2 + 2 * 40
  assert progress.describe() == '8% done, 8 min left'  # 40 of 520 s


def test_measured_steps_replace_the_estimate(progress):
  """Half of the first arm at 3 s a step: 150 + 300 s of steps, 80 of probes."""
  progress.update('base probes', 1, seconds=40)
  progress.update('a', 50, seconds=3)
  assert progress.seconds_left() == 150 + 300 + 80
  assert progress.fraction() == pytest.approx((40 + 150) / (120 + 600))


def test_a_resumed_run_counts_what_is_done_and_knows_the_times(
  progress, tmp_path
):
  progress.update('base probes', 1, seconds=40)
  progress.update('a', 50, seconds=3)
  resumed = Progress(tmp_path / 'progress.json', COSTS)
  resumed.plan('base probes', 'probes', 1, done=1)
  resumed.plan('a', 'step', 100, done=50)
  resumed.plan('a probes', 'probes', 1)
  resumed.plan('b', 'step', 100)
  resumed.plan('b probes', 'probes', 1)
  assert resumed.describe() == progress.describe()


def test_all_done(progress):
  for name, units in (('a', 100), ('b', 100)):
    progress.update(name, units, seconds=1)
    progress.update(f'{name} probes', 1, seconds=1)
  progress.update('base probes', 1)
  assert progress.describe() == '100% done, 0 s left'


@pytest.mark.parametrize('text', ['', 'half a fi', '[]'])
def test_a_file_that_was_cut_is_no_measurement(tmp_path, text):
  path = tmp_path / 'progress.json'
  path.write_text(text)
  found = Progress(path, COSTS)
  found.plan('a', 'step', 100)
  assert found.seconds_left() is None


@pytest.mark.parametrize(
  ('seconds', 'text'),
  [
    (0.2, '0 s'),
    (59.4, '59 s'),
    (61, '1 min'),
    (59.4 * 60, '59 min'),
    (7500, '2 h 5 min'),
  ],
)
def test_durations(seconds, text):
  assert duration(seconds) == text
