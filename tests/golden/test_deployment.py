"""The published figures of the deployments: whole, and what the pages show."""

import dataclasses
import functools
import json
import pathlib
import re

import pytest

from configs import deployment_smollm2, deployment_tiny
from isft_jax.experiments.deployment import results as results_lib
from isft_jax.experiments.deployment import run
from isft_jax.report.deployment import page, sections
from isft_jax.statistics import interval, paired, wilson

HERE = pathlib.Path(__file__).parent
CONFIGS = {
  'deployment_tiny': deployment_tiny.get_config(),
  'deployment_smollm2': deployment_smollm2.get_config(),
}
PATHS = {name: HERE / name / 'results.json' for name in CONFIGS}
RESULTS = {name: json.loads(path.read_text()) for name, path in PATHS.items()}

of_every_run = pytest.mark.parametrize('name', CONFIGS)


@of_every_run
def test_the_page_is_made_again_and_shows_every_arm(name, tmp_path):
  results = RESULTS[name]
  text = page.rebuild(str(PATHS[name]), str(tmp_path)).read_text()
  words = re.sub(r'\s+', ' ', re.sub(r'<[^>]+>', ' ', text.split('<main>')[1]))
  assert sections.plain_statement(results['arms'])[:60] in words
  for arm in (*results['arms'], *results.get('continual', ())):
    assert arm in words
  assert PATHS[name].stat().st_size < 1_000_000


@of_every_run
def test_the_settings_are_those_of_the_config(name):
  now = dataclasses.asdict(dataclasses.replace(CONFIGS[name], only=''))
  assert RESULTS[name]['config'] == json.loads(json.dumps(now))


@pytest.mark.parametrize(
  ('name', 'part'),
  [
    ('deployment_tiny', 'arms'),
    ('deployment_tiny', 'continual'),
    ('deployment_smollm2', 'arms'),
  ],
)
def test_every_run_is_there(name, part):
  found = [(each['seed'], each['name']) for each in RESULTS[name]['runs'][part]]
  assert sorted(found) == sorted(
    (unit.seed, unit.name) for unit in run.units(CONFIGS[name], part)
  )


@of_every_run
def test_the_intervals_are_those_of_the_seeds_and_of_all_problems(name):
  for arm in RESULTS[name]['arms'].values():
    for figure_name in results_lib.FIGURES:
      figure = arm[figure_name]
      ends = {key: figure[key] for key in ('mean', 'lo', 'hi')}
      # Sums of a few numbers, on another machine.
      assert ends == pytest.approx(interval(figure['per_seed']), abs=1e-12)
      pooled = wilson(figure['right'], figure['number'])
      assert figure['wilson'] == pytest.approx(pooled, abs=1e-12)
    config = CONFIGS[name]
    assert arm['first']['number'] == config.seeds * config.tests


@of_every_run
def test_differences_are_paired_by_seed(name):
  arms = RESULTS[name]['arms']
  for mine in arms.values():
    for other, figures in mine['against'].items():
      for figure, difference in figures.items():
        again = paired(
          mine[figure]['per_seed'], arms[other][figure]['per_seed']
        )
        assert again.keys() == difference.keys()
        for key, value in difference.items():
          assert value == pytest.approx(again[key], abs=1e-12)


@of_every_run
def test_arms_of_one_deployment_have_its_corrections(name):
  """The share of wrong corrections is exact, to the rounding of each seed."""
  arms = RESULTS[name]['arms']
  corrections = arms['oracle']['corrections']
  for arm, figures in arms.items():
    assert figures['corrections'] == corrections
    share = 0.1 if '_wrong10' in arm else 0.3 if '_wrong30' in arm else 0
    assert figures['wrong_corrections'] == pytest.approx(
      share * corrections, abs=CONFIGS[name].seeds / 2
    )


def percent(value):
  return f'{100 * value["mean"]:.1f}'


def points(value):
  lo, mean, hi = (100 * value[key] for key in ('lo', 'mean', 'hi'))
  return f'{mean:+.1f} [{lo:+.1f}, {hi:+.1f}]'


def arm_rows(name):
  """Yields the rows of the table of a run's arms in the docs."""
  for arm, figures in RESULTS[name]['arms'].items():
    against = figures['against'].get('sft')
    lo, hi = (
      100 * figures['repaired_second']['wilson'][e] for e in ('lo', 'hi')
    )
    yield [
      arm,
      percent(figures['first']),
      points(against['first']) if against else '',
      percent(figures['asked_again']),
      f'{percent(figures["repaired_second"])} [{lo:.1f}, {hi:.1f}]',
      percent(figures['repaired_after_sft']),
      percent(figures['second']),
      percent(figures['again']),
    ]


def increment_rows():
  """Yields the rows of the table of increments in the docs."""
  for arm, figures in RESULTS['deployment_tiny']['continual'].items():
    new = figures.get('new')
    forgotten = figures['forgetting']
    against = figures['against'].get('observational', {})
    yield [
      arm,
      percent(figures['all'][0]),
      f'{100 * sum(v["mean"] for v in new) / len(new):.1f}' if new else '',
      percent(figures['final']),
      points(against['final']) if 'final' in against else '',
      percent(forgotten) if forgotten else '',
    ]


def cells(line):
  return [each.strip().strip('*') for each in line.strip('|\n').split('|')]


@pytest.mark.parametrize(
  'rows',
  [*(functools.partial(arm_rows, name) for name in CONFIGS), increment_rows],
)
def test_the_tables_of_the_docs_are_the_run(rows):
  text = HERE.parents[1].joinpath('docs', 'evidence.md').read_text()
  lines = [cells(line) for line in text.splitlines() if '|' in line]
  for row in rows():
    assert row in lines
