"""The published figures of the evidence: whole, and what the page shows."""

import dataclasses
import json
import pathlib
import re

import pytest

from configs import evidence_tiny
from isft_jax.experiments import evidence
from isft_jax.experiments.evidence_statistics import interval
from isft_jax.report import evidence as report

PATH = pathlib.Path(__file__).parent / 'evidence_tiny' / 'results.json'
CONFIG = evidence_tiny.get_config()


@pytest.fixture(scope='module')
def results():
  return json.loads(PATH.read_text())


def test_the_page_is_made_again_and_shows_every_part(results, tmp_path):
  page = report.rebuild(str(PATH), str(tmp_path)).read_text()
  words = re.sub(r'\s+', ' ', re.sub(r'<[^>]+>', ' ', page.split('<main>')[1]))
  assert report.answer(results) in words
  for title in (
    'Own mistakes: the flywheel',
    'Arms: who may be learned from',
    'Facts that no dialogue mentions',
    'Worlds: other corrections, other users',
    'Costs: what the mask loses',
  ):
    assert title in words
  for arm in {*CONFIG.arms, *CONFIG.flywheel.arms}:
    assert arm in words
  assert (tmp_path / 'flywheel.png').read_bytes().startswith(b'\x89PNG')
  assert PATH.stat().st_size < 3_000_000


def test_the_settings_are_those_of_the_config(results):
  """A field that was added since stands at its default, which is no change."""
  now = json.loads(json.dumps(dataclasses.asdict(CONFIG)))
  assert differing(results['config'], now) == []


def differing(old, new, path=''):
  if isinstance(old, dict):
    return [
      name
      for key in old
      for name in differing(old[key], new.get(key), f'{path}.{key}')
    ]
  return [] if old == new else [path]


def test_every_run_of_every_part_is_there(results):
  assert results['seeds'] == [0, 1, 2, 3, 4]
  for part in ('flywheel', 'arms', 'worlds'):
    runs = [(run['seed'], run['name']) for run in results['runs'][part]]
    wanted = [(unit.seed, unit.name) for unit in evidence.units(CONFIG, part)]
    assert sorted(runs) == sorted(wanted)
  assert list(results['arms']) == ['base', *CONFIG.arms]
  assert list(results['costs']) == ['base', *CONFIG.arms]
  assert list(results['heldout']) == ['base', *CONFIG.heldout_arms]
  assert len(results['worlds']) == 27


def test_the_intervals_are_those_of_the_seeds(results):
  found = list(intervals(results))
  of_curves = [each for each in found if 'per_seed' not in each]
  # Told and held-out facts; the curves keep their seeds together.
  rounds = CONFIG.flywheel.rounds + 1
  assert len(of_curves) == 2 * rounds * len(CONFIG.flywheel.arms)
  for each in found:
    if 'per_seed' in each:
      ends = {name: each[name] for name in ('mean', 'lo', 'hi')}
      # Sums of five numbers, on another machine.
      assert ends == pytest.approx(interval(each['per_seed']), abs=1e-12)


def intervals(tree):
  """Yields every node that is an interval."""
  if isinstance(tree, dict):
    if 'mean' in tree:
      yield tree
    tree = list(tree.values())
  if isinstance(tree, list):
    for each in tree:
      yield from intervals(each)


def test_the_curves_of_the_flywheel_are_those_of_the_seeds(results):
  wheel = results['flywheel']
  theirs = list(zip(*wheel['observational']['per_seed'], strict=True))
  for found in wheel.values():
    ours = list(zip(*found['per_seed'], strict=True))
    for step, mean in enumerate(found['accuracy']):
      assert mean == pytest.approx(interval(ours[step]), abs=1e-12)
      against = found['against_observational'][step]['per_seed']
      pairs = zip(ours[step], theirs[step], strict=True)
      assert against == pytest.approx([a - b for a, b in pairs])


def test_the_base_is_right_on_half_to_seven_tenths(results):
  """As the experiment wants it: mistakes to learn from, and something known."""
  assert 0.5 < results['flywheel']['observational']['accuracy'][0]['mean'] < 0.7
