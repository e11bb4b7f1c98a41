"""A sample of earlier records."""

from isft_jax.data.records.dataset import Records
from isft_jax.following import replay
from tests.dialogues import dialogues, write_records


def ids(folder):
  records = Records(str(folder))
  return [records[n].id for n in range(len(records))]


def test_a_sample_without_replacement(tmp_path):
  pool = [
    write_records(tmp_path / 'a', dialogues()[:5]),
    write_records(tmp_path / 'b', dialogues()[5:9]),
  ]
  assert replay.write(str(tmp_path / 'all'), pool, 10**9, [0, 1])
  everything = ids(tmp_path / 'all')
  expected = [d.id for d in dialogues()[:9]]
  assert sorted(everything) == expected and everything != expected
  # As many as it takes to reach the tokens: the first of the same order.
  records = Records(str(tmp_path / 'all'))
  lengths = [len(records[n].tokens_T) for n in range(9)]
  for number, tokens in ((3, sum(lengths[:3])), (4, sum(lengths[:3]) + 1)):
    folder = tmp_path / str(number)
    assert replay.write(str(folder), pool, tokens, [0, 1])
    assert ids(folder) == everything[:number]
  # Another increment has another sample.
  replay.write(str(tmp_path / 'next'), pool, 10**9, [0, 2])
  assert ids(tmp_path / 'next') != everything


def test_nothing_to_repeat(tmp_path):
  assert not replay.write(str(tmp_path / 'none'), [], 10, [0, 1])
  assert not (tmp_path / 'none').exists()
