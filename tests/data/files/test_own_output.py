"""A folder of agent runs that also has our own runs and records."""

import dataclasses
import json

import pytest

from configs import evidence_tiny, lying_agent_tiny, train_tiny
from isft_jax.data.files import rows


def write(folder, **files):
  folder.mkdir(parents=True, exist_ok=True)
  for name, content in files.items():
    (folder / name.replace('_', '.')).write_text(content)


def found(places, folder):
  return [place.removeprefix(f'{folder}/') for place in places]


@pytest.mark.parametrize('made', [train_tiny, lying_agent_tiny, evidence_tiny])
def test_a_workdir_among_agent_runs_is_not_read(made, tmp_path):
  write(tmp_path, a_jsonl='{}')
  settings = json.dumps(dataclasses.asdict(made.get_config()))
  write(tmp_path / 'run', config_json=settings, metrics_jsonl='{"step": 1}')
  write(tmp_path / 'run' / 'base' / 'deep', results_json='{}')
  assert found(rows.files(tmp_path), tmp_path) == ['a.jsonl']
  # Nothing is ignored in silence: a preparation counts these files.
  assert found(rows.unread(tmp_path), tmp_path) == [
    'run/base/deep/results.json',
    'run/config.json',
    'run/metrics.jsonl',
  ]


def test_records_among_agent_runs_are_not_read(tmp_path):
  write(tmp_path, a_jsonl='{}')
  write(tmp_path / 'records', rejected_jsonl='{}')
  (tmp_path / 'records' / 'prepare_report.json').write_text('{}')
  assert found(rows.files(tmp_path), tmp_path) == ['a.jsonl']


def test_a_file_of_a_workdir_that_is_named_is_read(tmp_path):
  write(
    tmp_path, config_json=json.dumps(dict.fromkeys(('seed', 'model', 'mesh')))
  )
  write(tmp_path, samples_jsonl='{}')
  named = tmp_path / 'samples.jsonl'
  assert rows.files(named) == rows.files(f'{tmp_path}/s*.jsonl') == [str(named)]
  with pytest.raises(ValueError, match='no trajectories in'):
    rows.files(tmp_path)


@pytest.mark.parametrize(
  'content',
  ['{"seed": 1, "model": "gpt"}', '[]', '{', '{"architectures": []}'],
)
def test_a_config_of_others_hides_nothing(content, tmp_path):
  write(tmp_path, config_json=content, metrics_jsonl='{}')
  assert found(rows.files(tmp_path), tmp_path) == [
    'config.json',
    'metrics.jsonl',
  ]


def test_records_that_are_not_complete_are_not_read(tmp_path):
  """They are those that an interrupted preparation left in its input."""
  write(tmp_path, a_jsonl='{}')
  write(tmp_path / 'out.part', rejected_jsonl='{}')
  write(tmp_path / 'out.part' / '1.0.0', features_json='{}')
  write(tmp_path / 'part', rejected_jsonl='{}')  # of somebody else
  assert found(rows.files(tmp_path), tmp_path) == [
    'a.jsonl',
    'part/rejected.jsonl',
  ]
  assert found(rows.unread(tmp_path), tmp_path) == [
    'out.part/1.0.0/features.json',
    'out.part/rejected.jsonl',
  ]
