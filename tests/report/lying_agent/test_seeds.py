"""Summary over seeds, and pages that are made again from results.json."""

import copy
import json

import pytest

from isft_jax.report import rebuild
from isft_jax.report.lying_agent import seeds


@pytest.fixture
def runs(given_results):
  """Two seeds: on the second, L_do has one more contradiction and no lead."""
  second = copy.deepcopy(given_results) | {'seed': 1}
  do = second['arms']['interventional']
  do |= {'mean_margin': -0.25, 'contradicts': 2}
  do['facts'][0]['margin'] = -0.75
  return {'a.json': given_results, 'b.json': second}


def test_mean_and_range_over_seeds(runs):
  header, rows = seeds.summary(runs)
  column = header.index('ours: interventional')
  cells = {row[0]: row[column] for row in rows}
  assert cells['mean margin, nats per token'] == '+0.2500 (-0.2500 to +0.7500)'
  assert cells['facts where L_do beats L_obs'] == '1.5 / 2 (1 to 2)'
  label = 'truth probe: replies that contradict the user, who is right'
  assert cells[label] == '1.5 / 2 (1 to 2)'
  # One value where the seeds agree.
  assert cells['lie probe: the agent corrects the user'] == '2 / 2'


def test_the_answer_counts_seeds_and_gives_the_interval(runs):
  """Margins of 0.75 against 0 by hand, and -0.25 against 0: see the fixture."""
  arms = [run['arms'] for run in runs.values()]
  margins = [
    each['interventional']['mean_margin'] - each['observational']['mean_margin']
    for each in arms
  ]
  # Two values: t(0.975, 1) = 12.7062, and s / sqrt(2) is half their distance.
  mean = sum(margins) / 2
  half = 12.7062 * abs(margins[0] - margins[1]) / 2
  assert seeds.answer(arms) == (
    'The interventional arm ends above the observational one in mean margin on '
    '1 of 2 seeds. It is the higher of the two on 1 to 2 of 2 facts. Its mean '
    f'margin is {mean:+.3f} nats per token higher; the 95 % confidence '
    'interval of this difference, paired by seed, is '
    f'{mean - half:+.3f} to {mean + half:+.3f}.'
  )


def test_one_seed_has_no_interval(runs):
  assert 'interval' not in seeds.answer([runs['a.json']['arms']])


def change_seed(run):
  run['seed'] = 0


def change_setting(run):
  run['config']['finetune']['epochs'] = 4


def change_base(run):
  run['base']['name'] = 'another'


def change_arms(run):
  del run['arms']['base']


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (change_seed, 'a.json and b.json are both of seed 0'),
    (change_setting, 'config: finetune: epochs is 4 and 1'),
    (change_base, 'base model is another, 134.5 M'),
    (change_arms, 'arms is observational, interventional and base'),
  ],
)
def test_a_summary_is_over_seeds_alone(runs, change, message):
  change(runs['b.json'])
  with pytest.raises(ValueError, match=message):
    seeds.summary(runs)


def test_devices_and_names_may_differ(runs):
  runs['b.json']['config'] |= {'mesh': {'data': 8}, 'name': 'b', 'new': 1}
  assert len(seeds.summary(runs)[1]) == 10


def test_old_and_new_names_of_fields_are_one_setting(runs):
  runs['a.json']['config']['finetune']['rows'] = 8
  runs['b.json']['config']['finetune']['batch_size'] = 8
  assert len(seeds.summary(runs)[1]) == 10
  runs['b.json']['config']['finetune']['batch_size'] = 4
  message = 'config: finetune: batch_size is 4 and 8'
  with pytest.raises(ValueError, match=message):
    seeds.summary(runs)


def saved(folder, results):
  folder.mkdir()
  path = folder / 'results.json'
  path.write_text(json.dumps(results))
  return str(path)


def test_several_files_are_summarised(tmp_path, runs):
  paths = [saved(tmp_path / name, run) for name, run in runs.items()]
  page, table = rebuild.rebuild(paths, str(tmp_path / 'out'))
  assert (page.name, table.name) == ('seeds.html', 'seeds.md')
  text = page.read_text()
  assert 'Seeds 0, 1. Base model: SmolLM2-135M-Instruct, 134.5 M' in text
  assert '<td>1.5 / 2<br><small>(1 to 2)</small></td>' in text
  assert '| +0.2500 (-0.2500 to +0.7500) |' in table.read_text()


def test_what_a_run_wrote_cannot_become_markup(runs):
  for run in runs.values():
    run['base']['name'] = '<script>'
    run['environment'] = {'<script>': '<script>'}
    run['arms']['<script>'] = run['arms']['base']
  text = seeds.page(runs).decode()
  assert text.count('<script>') == 1  # the viewer's own
  assert text.count('&lt;script&gt;') >= 4


def test_the_page_of_one_run_is_made_without_its_metrics(
  tmp_path, given_results
):
  path = saved(tmp_path / 'run', given_results)
  (page,) = rebuild.rebuild([path])
  text = page.read_text()
  assert page == tmp_path / 'run' / 'report.html'
  assert 'No arm was trained' not in text and 'loss_curves' not in text
  assert not (tmp_path / 'run' / 'loss_curves.png').exists()
  rebuild.rebuild([path])  # its own page may be replaced
  page.write_text('<section class="viewer">')
  with pytest.raises(ValueError, match='shows dialogues'):
    rebuild.rebuild([path])


@pytest.mark.parametrize(
  ('contents', 'message'),
  [
    (['{"arms": {}}'], 'not the results of isft-reproduce'),
    (['[]'], 'not the results of isft-reproduce'),
    (['{'], 'not JSON'),
    (['{"experiment": "evidence"}'] * 2, 'name only this file'),
    ([], '--from is empty'),
  ],
)
def test_other_files_are_refused(tmp_path, contents, message):
  paths = []
  for i, content in enumerate(contents):
    paths.append(str(tmp_path / f'{i}.json'))
    (tmp_path / f'{i}.json').write_text(content)
  with pytest.raises(ValueError, match=message):
    rebuild.rebuild(paths)


def test_a_file_named_twice_is_refused(tmp_path, given_results):
  path = saved(tmp_path / 'run', given_results)
  with pytest.raises(ValueError, match='named twice'):
    rebuild.rebuild([path, path])
