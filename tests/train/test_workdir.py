"""A run does not write among records or trajectories."""

import pytest

from isft_jax.train import workdir as workdir_lib


@pytest.mark.parametrize(
  ('workdir', 'message'),
  [
    ('run', None),
    ('', None),
    ('records', 'records is the folder of the records'),
    ('records/1.0.0', '1.0.0 lies in the folder of the records'),
    ('records/runs/a', 'a lies in the folder of the records'),
    ('records2', None),
    ('link/run', 'run lies in the folder of the records'),
    ('more', 'more is the folder of the records'),
    ('trajectories', 'trajectories has files .* such as a.jsonl; name another'),
    ('trajectories/run', None),  # isft-prepare leaves it out and counts it
    ('deep', r'deep has files .* such as a/b.parquet; name another'),
    ('logs', None),
    ('failed', None),
    ('gs://bucket/records', None),
  ],
)
def test_a_run_does_not_write_among_records_or_trajectories(
  workdir, message, tmp_path
):
  for name in (
    *('records/prepare_report.json', 'records/1.0.0/features.json'),
    *('more/prepare_report.json', 'trajectories/a.jsonl', 'deep/a/b.parquet'),
    *('logs/train.log', 'failed/plans.json', 'failed/tokenizer/vocab.json'),
    'failed/rendering.json',
  ):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text('{}')
  (tmp_path / 'link').symlink_to('records')
  if not workdir:
    (tmp_path / 'config.json').write_text('{}')  # a run is there already
  place = workdir if '://' in workdir else str(tmp_path / workdir)
  folders = [str(tmp_path / 'records'), str(tmp_path / 'more')]
  if message is None:
    workdir_lib.check(place, folders)
    return
  with pytest.raises(ValueError, match=message):
    workdir_lib.check(place, folders)
