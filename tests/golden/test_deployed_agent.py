"""The run of a served agent that learns: its table in the documentation."""

import json
import pathlib

HERE = pathlib.Path(__file__).parent
RESULTS = json.loads((HERE / 'deployed_agent/results.json').read_text())
PAGE = (HERE.parents[1] / 'docs/evidence.md').read_text()


def share(marks):
  together = ''.join(marks)
  return f'{100 * together.count("1") / len(together):.1f}'


def test_the_table_of_the_documentation_is_the_run():
  found = RESULTS['evaluations']
  assert list(found) == ['0', '10', '20', 'joint']
  assert all(len(marks) == 120 for marks in found.values())
  assert {len(mark) for marks in found.values() for mark in marks} == {2}
  for name, part in (
    ('facts of increments 1 to 10', slice(60)),
    ('facts of increments 11 to 20', slice(60, 120)),
    ('all 120', slice(120)),
  ):
    row = [name, *(share(marks[part]) for marks in found.values())]
    assert f'| {" | ".join(row)} |\n' in PAGE


def test_the_row_of_another_objective_is_its_run():
  path = HERE / 'deployed_agent/weighted_first.json'
  found = json.loads(path.read_text())['evaluations']
  start = RESULTS['evaluations']['0']
  assert found.pop('0') == start  # the same facts and the same model
  row = [
    '`weighted_first(0.3)`',
    '5e-5',
    '1',
    '0.75',
    *map(share, found.values()),
  ]
  assert f'| {" | ".join(row)} |\n' in PAGE


def test_every_fact_was_asked_once_and_every_increment_accepted():
  assert RESULTS['ends'] == ['accepted'] * 20
  assert [len(kinds) for kinds in RESULTS['kinds']] == [6] * 20
