"""The page of training runs, from metrics that are made by hand."""

import json
import re

import pytest

from isft_jax.report.training import page
from isft_jax.report.training import runs as runs_lib

CONFIG = {
  'name': 'finetune',
  'objective': 'interventional',
  'seed': 0,
  'optim': {'learning_rate': 0.001},
}


def row(step, loss, user=None):
  """One line of metrics; with `user`, the records were evaluated."""
  found = {'step': step, 'loss': loss, 'targets': 100.0, 'seconds': 0.5}
  found['nll_by_author'] = {'USER': loss, 'TEMPLATE': loss / 2}
  if user is not None:
    found['heldout_nll_by_author'] = {'USER': user, 'AGENT': 3.0}
    found['probe'] = {'mean_margin': user - 1, 'prefers_lie': 2.0}
  return found


ROWS = [row(1, 4.0), row(2, 3.0, 2.5), row(3, 2.0, 1.5), row(4, 1.0, 1.75)]


def make_run(folder, rows=ROWS, **settings):
  """Writes a workdir of isft-train as far as the page reads it."""
  folder.mkdir(parents=True)
  (folder / 'config.json').write_text(json.dumps(CONFIG | settings))
  lines = ''.join(json.dumps(each) + '\n' for each in rows)
  (folder / 'metrics.jsonl').write_text(lines)
  return folder


def words(runs):
  """The text of a page, without tags and pictures."""
  text = page.page(runs).decode().split('<main>')[1]
  return re.sub(
    r'\s+', ' ', re.sub(r'<svg.*?</svg>|<[^>]+>', ' ', text, flags=re.S)
  )


def test_figures_of_a_run(tmp_path):
  (run,) = runs_lib.read([make_run(tmp_path / 'a')])
  header, rows = page.figures([run])
  assert header == ('figure', 'a')
  assert rows == [
    ('steps', '4'),
    ('scored tokens', '400'),
    ('seconds of training', '2'),
    ('loss of the last step, nats per token', '1.0000'),
    (
      'held-out loss, USER',
      ('1.7500', '', '', 'lowest 1.5000 at step 3', '', ()),
    ),
    (
      'held-out loss, AGENT',
      ('3.0000', '', '', 'lowest 3.0000 at step 2', '', ()),
    ),
    ('probe: mean margin', '0.75'),
    ('probe: prefers lie', '2'),
  ]
  assert page.answer([run]) == (
    'a: 4 steps on 400 scored tokens; loss on held-out records, nats per '
    'token: USER 2.500 to 1.750, AGENT 3.000 to 3.000.'
  )


def test_the_page_of_a_run_has_its_charts_and_settings(tmp_path):
  (run,) = runs_lib.read([make_run(tmp_path / 'a')])
  shown = page.page([run]).decode()
  labels = re.findall(r'<svg class="chart"[^>]*aria-label="([^"]*)"', shown)
  assert labels == [
    'Training loss of a',
    'Held-out loss by author',
    'Training loss by author',
    'Margin of the probes',
  ]
  assert 'USER: 2.5000 to 1.7500' in shown  # a tooltip
  assert 'learning_rate 0.001' in words([run])


def test_a_run_without_evaluation_has_no_such_charts(tmp_path):
  rows = [{'step': 1, 'loss': 2.0, 'targets': 5.0, 'seconds': 1.0}]
  (run,) = runs_lib.read([make_run(tmp_path / 'a', rows)])
  assert page.answer([run]) == 'a: 1 step on 5 scored tokens.'
  assert 'By author' not in words([run])


def test_runs_are_compared_by_author_and_by_settings(tmp_path):
  runs = runs_lib.read(
    [
      make_run(tmp_path / 'a'),
      make_run(tmp_path / 'b', seed=1, optim={'learning_rate': 0.01}),
    ]
  )
  shown = page.page(runs).decode()
  labels = re.findall(r'<svg class="chart"[^>]*aria-label="([^"]*)"', shown)
  assert labels == [
    'Training loss of a, b',
    'Held-out loss on tokens of USER',
    'Held-out loss on tokens of AGENT',
  ]
  assert page.differing(runs) == [
    ('seed', '0', '1'),
    ('optim: learning_rate', '0.001', '0.01'),
  ]
  assert page.shared(runs) == [
    ('name', 'finetune'),
    ('objective', 'interventional'),
  ]


def test_runs_of_the_same_folder_name_are_told_apart(tmp_path):
  places = [make_run(tmp_path / where / 'run') for where in 'ab']
  assert [run.name for run in runs_lib.read(places)] == [*map(str, places)]


def test_steps_that_were_logged_again_and_half_a_line(tmp_path):
  folder = make_run(tmp_path / 'a', [*ROWS, row(3, 9.0)])
  with (folder / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 5, "lo')
  (run,) = runs_lib.read([folder])
  assert run.curve('loss') == ([1, 2, 3, 4], [4.0, 3.0, 9.0, 1.0])


def test_a_name_cannot_become_markup(tmp_path):
  name = '<img src=x onerror=alert(1)>'
  (run,) = runs_lib.read([make_run(tmp_path / name, name=name)])
  assert b'<img' not in page.page([run])


@pytest.mark.parametrize(
  ('file', 'content', 'message'),
  [
    ('config.json', None, 'because it has no config.json'),
    ('metrics.jsonl', None, 'because it has no metrics.jsonl'),
    ('config.json', '{', 'config.json: not JSON ('),
    ('config.json', '[]', 'config.json: must be a JSON object'),
    (
      'metrics.jsonl',
      '\n',
      'metrics.jsonl:1: not a JSON object of numbers with',
    ),
    ('metrics.jsonl', '[1]\n', 'metrics.jsonl:1: not a JSON object of numbers'),
    ('metrics.jsonl', '{"step": 1, "loss": "<b>"}\n', 'object of numbers'),
    ('metrics.jsonl', '{"step": 1}', 'metrics.jsonl: no step is logged yet'),
  ],
)
def test_what_is_not_a_run_is_refused(file, content, message, tmp_path):
  folder = make_run(tmp_path / 'a')
  (folder / file).unlink()
  if content is not None:
    (folder / file).write_text(content)
  with pytest.raises(ValueError) as error:
    runs_lib.read([folder])
  assert message in str(error.value) and str(folder) in str(error.value)


def test_a_run_that_is_named_twice(tmp_path):
  folder = make_run(tmp_path / 'a')
  with pytest.raises(ValueError, match='named twice'):
    runs_lib.read([folder, folder / '..' / 'a'])
