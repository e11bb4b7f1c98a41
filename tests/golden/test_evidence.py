"""The published figures of the evidence: whole, and what the page shows."""

import dataclasses
import json
import pathlib
import re
from typing import NamedTuple

import pytest

from configs import evidence_tiny, flywheel_smollm2, mask_price_tiny
from isft_jax.config import with_new_names
from isft_jax.experiments.config import EvidenceConfig
from isft_jax.experiments.evidence import grid
from isft_jax.report.evidence import page as report
from isft_jax.statistics import interval

HERE = pathlib.Path(__file__).parent
# The names of arms in our tables.
ARMS = {
  'observational': 'observational',
  'interventional': '**interventional**',
  'truth_only': 'truth only (told which answers are right)',
  'agent_only': 'agent only',
}


class Golden(NamedTuple):
  """A published run."""

  path: pathlib.Path
  config: EvidenceConfig
  parts: tuple[str, ...]
  titles: tuple[str, ...]  # of the page
  results: dict


def golden(name, config, parts, titles):
  path = HERE / name / 'results.json'
  results = json.loads(path.read_text())
  return Golden(path, config, parts, titles, results)


TINY = golden(
  'evidence_tiny',
  evidence_tiny.get_config(),
  ('flywheel', 'arms', 'worlds'),
  (
    'Own mistakes: the flywheel',
    'Arms: whose tokens are scored',
    'Facts that no dialogue mentions',
    'Worlds: other corrections, other users',
    'Costs of the mask',
  ),
)
PRICE = golden(
  'mask_price_tiny',
  mask_price_tiny.get_config(),
  ('flywheel', 'arms'),
  (
    'Own mistakes: the flywheel',
    'Arms: whose tokens are scored',
    'Costs of the mask',
  ),
)
REAL = golden(
  'flywheel_smollm2',
  flywheel_smollm2.get_config(),
  ('flywheel',),
  ('Own mistakes: the flywheel',),
)


@pytest.fixture(params=[TINY, PRICE, REAL], ids=['tiny', 'price', 'real'])
def run(request):
  return request.param


def test_the_page_is_made_again_and_shows_every_part(run, tmp_path):
  page = report.rebuild(str(run.path), str(tmp_path)).read_text()
  words = re.sub(r'\s+', ' ', re.sub(r'<[^>]+>', ' ', page.split('<main>')[1]))
  assert report.answer(run.results) in words
  for title in run.titles:
    assert title in words
  for arm in {*run.results.get('arms', {}), *run.results.get('flywheel', {})}:
    assert arm in words
  if 'flywheel' in run.parts:
    assert (tmp_path / 'flywheel.png').read_bytes().startswith(b'\x89PNG')
  if 'costs' in run.results:
    assert (tmp_path / 'price.png').read_bytes().startswith(b'\x89PNG')
  assert run.path.stat().st_size < 3_000_000


def test_the_settings_are_those_of_the_config(run):
  """A field that was added since stands at its default, which is no change."""
  config, stored = run.config, with_new_names(run.results['config'])
  if config.model.init_from:  # the run has read its shape there
    model = dataclasses.replace(
      config.model,
      **{
        name: stored['model'][name]
        for name in ('vocab_size', 'width', 'layers', 'heads', 'kv_heads')
        + ('head_size', 'mlp_width', 'rope_theta', 'norm_eps', 'qkv_bias')
      },
    )
    config = dataclasses.replace(config, model=model)
  now = json.loads(
    json.dumps(dataclasses.asdict(dataclasses.replace(config, only='')))
  )
  assert differing(stored, now) == []


def differing(old, new, path=''):
  if isinstance(old, dict):
    return [
      name
      for key in old
      for name in differing(old[key], new.get(key), f'{path}.{key}')
    ]
  return [] if old == new else [path]


def test_every_run_of_every_part_is_there(run):
  found = run.results
  assert found['seeds'] == list(range(run.config.seeds))
  for part in run.parts:
    runs = [(each['seed'], each['name']) for each in found['runs'][part]]
    wanted = [(u.seed, u.name) for u in grid.units(run.config, part)]
    assert sorted(runs) == sorted(wanted)


def test_every_arm_of_every_part_is_there():
  results, config = TINY.results, TINY.config
  assert list(results['arms']) == ['base', *config.arms]
  assert list(results['costs']) == ['base', *config.arms]
  assert list(results['heldout']) == ['base', *config.heldout_arms]
  assert len(results['worlds']) == 27


def test_the_intervals_are_those_of_the_seeds(run):
  found = list(intervals(run.results))
  of_curves = [each for each in found if 'per_seed' not in each]
  # Told and held-out facts, and newer runs the costs of the mask; the curves
  # keep their seeds together.
  rounds = run.config.flywheel.rounds + 1
  curves = [
    name
    for arm in run.results['flywheel'].values()
    for name in ('accuracy', 'heldout', 'user_like', 'ended')
    if name in arm
  ]
  assert len(of_curves) == rounds * len(curves)
  for each in found:
    if 'per_seed' in each:
      ends = {name: each[name] for name in ('mean', 'lo', 'hi')}
      # Sums of a few numbers, on another machine.
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


@pytest.mark.parametrize(
  'run', [TINY, PRICE, REAL], ids=['tiny', 'price', 'real']
)
def test_the_curves_of_the_flywheel_are_those_of_the_seeds(run):
  wheel = run.results['flywheel']
  theirs = list(zip(*wheel['observational']['per_seed'], strict=True))
  for found in wheel.values():
    ours = list(zip(*found['per_seed'], strict=True))
    for step, mean in enumerate(found['accuracy']):
      assert mean == pytest.approx(interval(ours[step]), abs=1e-12)
      against = found['against_observational'][step]['per_seed']
      pairs = zip(ours[step], theirs[step], strict=True)
      assert against == pytest.approx([a - b for a, b in pairs])


def test_the_base_is_right_on_half_to_seven_tenths():
  """As the experiment wants it: mistakes to learn from, and something known."""
  wheel = TINY.results['flywheel']
  assert 0.5 < wheel['observational']['accuracy'][0]['mean'] < 0.7


def test_a_real_model_learns_most_where_its_answers_are_masked():
  wheel = REAL.results['flywheel']
  last = wheel['interventional']['against_observational'][-1]
  assert last['positive'] == 3
  assert last['lo'] > 0
  assert wheel['agent_only']['against_observational'][-1]['positive'] == 0


def price_rows(results):
  """Yields the rows of the table of the mask's price in the documentation."""
  do = results['arms']['interventional']['told']['mean_margin']['mean']
  for arm, cost in results['costs'].items():
    margin = results['arms'][arm]['told']['mean_margin']
    low, high = (100 * cost['user_like'][end] for end in ('lo', 'hi'))
    yield [
      f'`{arm}`',
      f'{margin["mean"]:+.3f}',
      f'{100 * margin["mean"] / do:.0f} %',
      f'{100 * cost["user_like"]["mean"]:.1f} % [{low:.1f}, {high:.1f}]',
      f'{100 * cost["ended"]["mean"]:.1f} %',
      f'{100 * cost["contradicts"]["mean"]:.1f} %',
      f'{cost["good_nll"]["mean"]:.3f}',
      f'{cost["elsewhere"]["mean"]:.2f}',
    ]


def test_the_price_of_the_mask_is_that_of_the_run():
  path = HERE.parents[1] / 'docs' / 'evidence.md'
  lines = [cells(line) for line in path.read_text().splitlines()]
  for row in price_rows(PRICE.results):
    assert row in lines
  for row in wheel_rows(PRICE.results['flywheel']):
    assert row in lines


def wheel_rows(wheel):
  """Yields the rows of its flywheel: per cent, and points."""
  for arm, found in wheel.items():
    right = [f'{100 * each["mean"]:.1f}' for each in found['accuracy']]
    last = found['against_observational'][-1]
    against = (
      f'{100 * last["mean"]:+.1f} [{100 * last["lo"]:+.1f}, '
      f'{100 * last["hi"]:+.1f}], {last["positive"]} of 5'
    )
    yield [
      f'`{arm}`',
      *(right[0], right[1], right[-1]),
      '' if arm == 'observational' else against,
      f'{found["margin"]["mean"]:+.3f}',
      f'{100 * found["user_like"][-1]["mean"]:.1f} %',
    ]


def test_single_tokens_of_turns_on_a_real_model():
  """The rows of the documentation, by seed and arm."""
  folder = HERE / 'lying_agent_smollm2'
  path = HERE.parents[1] / 'docs' / 'evidence.md'
  lines = [cells(line.strip()) for line in path.read_text().splitlines()]
  names = 'observational', 'interventional'
  found = [(f'seed-{seed}', seed, names) for seed in range(3)]
  found += [
    (file.stem, int(file.stem[-1]), ['weighted_first(0.3)'])
    for file in sorted(folder.glob('weighted_first-*.json'))
  ]
  assert len(found) == 6
  found.append(('weighted_ends', 0, ['weighted_ends(0.3)']))
  for file, seed, names in found:
    arms = json.loads((folder / f'{file}.json').read_text())['arms']
    for name in names:
      arm = arms[name]
      row = [
        *(str(seed), f'`{name}`', f'{arm["mean_margin"]:+.3f}'),
        f'{arm["talks_like_user"]} / 66',
        f'{arm["contradicts"]} / 33',
        *(f'{arm[f"{kind}_probe"]["truth"]} / 33' for kind in ('truth', 'lie')),
      ]
      assert row in lines


def test_the_first_token_of_turns_costs_no_margin_and_keeps_the_role():
  arms, costs = PRICE.results['arms'], PRICE.results['costs']
  do, first = (
    arms[arm]['told']['mean_margin']['mean']
    for arm in ('interventional', 'weighted_first(0.3)')
  )
  assert first >= 0.95 * do
  like_user = {arm: cost['user_like']['mean'] for arm, cost in costs.items()}
  assert like_user['weighted_first(0.3)'] < like_user['interventional'] / 4
  assert costs['weighted_first(0.3)']['ended']['mean'] >= 0.99


def test_in_the_flywheel_only_the_last_tokens_of_turns_do_harm():
  wheel = PRICE.results['flywheel']
  first, ends, do = (
    wheel[arm]
    for arm in ('weighted_first(0.3)', 'weighted_ends(0.3)')
    + ('interventional',)
  )
  assert first['against_observational'][-1]['lo'] > 0
  assert ends['against_observational'][-1]['lo'] < 0
  like_user = [each['user_like'][-1]['mean'] for each in (first, do)]
  assert like_user[0] < 0.7 * like_user[1]


def rows_of(wheel):
  """Yields the rows of the table in READMEs: percent, and points."""
  for arm, name in ARMS.items():
    right = [f'{100 * each["mean"]:.1f}' for each in wheel[arm]['accuracy']]
    last = wheel[arm]['against_observational'][-1]
    ends = ', '.join(f'{100 * last[end]:+.1f}' for end in ('lo', 'hi'))
    seeds = f'{last["positive"]} of {len(last["per_seed"])}'
    against = f'{100 * last["mean"]:+.1f} [{ends}], {seeds} seeds'
    if arm == 'observational':
      against = ''
    yield [name, *right, against]


def cells(line):
  """Returns the cells of a row, its last two without their bold."""
  found = [each.strip() for each in line.strip('|\n').split('|')]
  return found[:1] + [each.replace('**', '') for each in found[1:]]


@pytest.mark.parametrize(
  'readme', ['docs/evidence.md', 'tests/golden/{}/README.md']
)
def test_the_tables_of_the_readmes_are_the_runs(readme):
  path = HERE.parents[1] / readme.format('flywheel_smollm2')
  lines = [cells(line) for line in path.read_text().splitlines()]
  for row in rows_of(REAL.results['flywheel']):
    assert row in lines
