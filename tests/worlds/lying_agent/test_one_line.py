"""Replies end with their line, and keep its full stop."""

import itertools

import numpy as np
import pytest

from isft_jax.inference import replies as replies_lib
from isft_jax.worlds.lying_agent import one_line
from isft_jax.worlds.lying_agent.one_line import one_line_replies

NEW = 8


@pytest.fixture
def scripted(monkeypatch):
  """Lets a model write given ids; returns where the batches are noted."""
  batches = []

  def script(texts):
    def generate(graphdef, params, prompts, new, *, watch, stop_ids, rows, **_):
      batches.append((len(prompts), max(map(len, prompts)), [*rows]))
      found = []
      for b, row in enumerate(rows):
        ids = list(texts[row % len(texts)])[:new]
        ids = list(itertools.takewhile(lambda id: id not in stop_ids, ids))
        watch(b, np.asarray(ids, np.int32))
        found.append(np.asarray(ids, np.int32))
      return found

    monkeypatch.setattr(replies_lib, 'generate', generate)
    return batches

  return script


@pytest.mark.parametrize(
  ('reply', 'expected', 'ended_by'),
  [
    (' Jupiter is large.\nUser: Hi.\n', 'Jupiter is large.', 'stop text'),
    (' Jupiter is large.', 'Jupiter is large.', 'stop token'),
    (' Mars<|im_end|> is', 'Mars', 'stop token'),
    (' Mars<|endoftext|>', 'Mars', 'stop token'),
    ('\nUser: Hi.', '', 'stop text'),
    (' Mars is Mars is Mars is Mars is', 'Mars is' + ' Mars is' * 3, 'length'),
  ],
)
def test_a_reply_is_its_first_line(
  merging, scripted, reply, expected, ended_by
):
  ids = merging(reply)['input_ids']
  scripted([ids])
  (found,) = one_line_replies(None, None, [np.array([1])], NEW, merging)
  assert (found.text, found.ended_by) == (expected, ended_by)


def test_a_full_stop_and_a_line_break_are_one_token(merging, separate):
  for tokenizer, tokens in ((merging, ['.\n']), (separate, ['.', '\n'])):
    ids = tokenizer('Mars.\n')['input_ids'][-len(tokens) :]
    assert [tokenizer.decode([id]) for id in ids] == tokens


def test_batches_have_one_shape_and_replies_their_order(
  merging, scripted, monkeypatch
):
  monkeypatch.setattr(one_line, '_BATCH_SIZE', 4)
  words = [merging(f' {word}')['input_ids'] for word in ('Mars', 'is', 'Hi')]
  batches = scripted(words)
  prompts = [np.zeros(1 + n % 7, int) for n in range(10)]
  found = one_line_replies(None, None, prompts, NEW, merging)
  texts = [reply.text for reply in found]
  assert texts == [['Mars', 'is', 'Hi'][n % 3] for n in range(10)]
  # Three batches of four prompts or less, and one that fills them up.
  assert [(size, length) for size, length, _ in batches] == [(5, 7)] * 3
  assert [rows[0] for *_, rows in batches] == [0, 4, 8]


def test_no_prompt_no_reply(merging):
  assert one_line_replies(None, None, [], NEW, merging) == []
