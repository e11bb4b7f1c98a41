"""Queues on disk: what is put in comes out in its order, and is gone."""

import random

import pytest

from isft_jax.data.records import shard_buffer


@pytest.mark.parametrize('held', [0, 100, 1 << 20])
def test_records_come_out_as_they_went_in(held, tmp_path, monkeypatch):
  monkeypatch.setattr(shard_buffer, '_BUFFER', held)
  dice = random.Random(held)
  queues = [('train', 10), ('train', 9), ('heldout', 9)]
  expected = {queue: [] for queue in queues}
  waiting = shard_buffer.Spool(tmp_path)
  for _ in range(200):
    queue, record = dice.choice(queues), dice.randbytes(dice.randrange(99))
    waiting.add(queue, record)
    expected[queue].append(record)
  assert [*waiting] == sorted(queues)
  assert {queue: [*waiting.take(queue)] for queue in waiting} == expected
  assert [*waiting] == []
  assert [*tmp_path.iterdir()] == []


def test_memory_holds_little_of_a_queue(tmp_path):
  waiting = shard_buffer.Spool(tmp_path)
  for _ in range(100):
    waiting.add(('train', 0), bytes(10_000))
  (file,) = tmp_path.iterdir()
  assert file.stat().st_size > 900_000
