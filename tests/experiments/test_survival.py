"""Whatever happens to a run, and wherever it runs, its results are the same."""

import json
import signal

import pytest

from tests.benchmarks import kills


def test_killed_three_times_the_results_are_the_same(smoke, tmp_path):
  assert kills.survives(tmp_path, 3, smoke.workdir, 0.5 * smoke.seconds)


def test_ctrl_c_ends_cleanly_and_says_how_to_go_on(smoke, tmp_path):
  process = kills.reproduce(tmp_path / 'run')
  for line in process.stdout:  # until it trains
    if 'step' in line:
      break
  process.send_signal(signal.SIGINT)
  _, err = process.communicate()
  assert process.returncode == 130
  assert f'the same command goes on from what is in {tmp_path}/run' in err
  assert 'Traceback' not in err

  kills.reproduce(tmp_path / 'run').communicate()
  assert kills.results(tmp_path / 'run') == kills.results(smoke.workdir)


def test_a_run_that_is_done_returns_at_once(smoke):
  before = {p: p.stat().st_mtime_ns for p in smoke.workdir.rglob('*.json*')}
  out, _ = kills.reproduce(smoke.workdir).communicate()
  assert out == (
    f'everything is done: open {smoke.workdir}/report.html, or read '
    f'{smoke.workdir}/results.json\n'
  )
  after = {p: p.stat().st_mtime_ns for p in before}
  assert after == before


@pytest.mark.parametrize('flag', ['--config.mesh.fsdp=8'])
def test_the_experiment_runs_unchanged_on_eight_devices(smoke, tmp_path, flag):
  process = kills.reproduce(tmp_path / 'run', flag, devices=8)
  out, err = process.communicate()
  assert process.returncode == 0, out + err
  one, eight = kills.results(smoke.workdir), kills.results(tmp_path / 'run')
  assert eight['config']['mesh']['fsdp'] == 8
  for name, arm in one['arms'].items():
    other = eight['arms'][name]
    margins = [[f['margin'] for f in a['facts']] for a in (arm, other)]
    # float32 sums in another order, through 16 steps of Adam
    assert margins[0] == pytest.approx(margins[1], abs=2e-3)
    train = [a.get('train', {}).get('scored_tokens') for a in (arm, other)]
    assert train[0] == train[1]
  assert json.dumps(one) != json.dumps(eight)  # another mesh, other rounding
