"""Replies as text: cut exactly, shown as they grow."""

import itertools

import numpy as np
import pytest

from isft_jax.inference import replies

TEXT = 'Gold is Au.\n\u00dcber €5 \U0001f600\nUser: and silver?'
BYTES = np.frombuffer(TEXT.encode(), np.uint8).astype(np.int32)


def decode(index, ids):
  """Tokens are bytes: every longer character straddles several."""
  del index
  return bytes(ids.tolist()).decode(errors='replace')


@pytest.fixture
def says(monkeypatch):
  """A model that says TEXT, in blocks of some size, then token 0."""

  def fake(graphdef, params, prompts, max_new_tokens, *, watch, block):
    found = []
    for index in range(len(prompts)):
      for end in [*range(1, len(BYTES), block), len(BYTES)]:
        size = min(end, max_new_tokens)
        if size == max_new_tokens or watch(index, BYTES[:size]):
          break
      found.append(BYTES[:size])
    return found

  monkeypatch.setattr(replies, 'generate', fake)


def reply(block=1, new=1000, **settings):
  (found,) = replies.reply(
    None, {}, ['x'], new, decode, block=block, **settings
  )
  return found


@pytest.mark.parametrize('block', [1, 2, 3, 7, 16])
@pytest.mark.parametrize(
  ('stops', 'expected', 'ended_by'),
  [
    ([], TEXT, 'stop token'),
    (['never'], TEXT, 'stop token'),
    (['\n'], 'Gold is Au.', 'stop text'),
    (['\nUser:'], TEXT.partition('\nUser')[0], 'stop text'),
    (['User:', '\u00dc', 'er €'], 'Gold is Au.\n', 'stop text'),
    (['Gold'], '', 'stop text'),
    (['silver?'], TEXT.removesuffix('silver?'), 'stop text'),
  ],
)
def test_a_reply_is_cut_before_its_first_stop_text(
  says, stops, expected, ended_by, block
):
  found = reply(block, stop_texts=stops)
  assert (found.text, found.ended_by) == (expected, ended_by)


def test_a_reply_may_be_too_long(says):
  assert reply(new=4) == ('Gold', 4, 'length')
  assert reply(new=4, stop_texts=['d']) == ('Gol', 4, 'stop text')
  assert reply(new=12, stop_texts=['\nUser:']).text == 'Gold is Au.\n'


@pytest.mark.parametrize('block', [1, 2, 3, 7, 16])
def test_what_is_shown_only_grows_into_the_reply(says, block):
  shown = []
  found = reply(
    block,
    stop_texts=['\nUser:'],
    show=lambda index, text: shown.append(text),
  )
  assert shown[-1] == found.text
  for early, late in itertools.pairwise(shown):
    assert late.startswith(early)
  assert len(set(shown)) > 2 or block == 16


def test_whoever_is_shown_a_reply_may_end_it(says):
  found = reply(block=4, show=lambda index, text: len(text) >= 6)
  assert found == ('Gold is A', 9, 'interrupt')  # 1 token, then blocks of 4
  # What also ends it comes first.
  found = reply(block=4, new=9, show=lambda index, text: len(text) >= 6)
  assert found.ended_by == 'length'


@pytest.mark.parametrize(
  ('text', 'stops', 'expected'),
  [
    ('abc', [], 'abc'),
    ('abc', ['x'], 'abc'),
    ('abc', ['cd'], 'ab'),
    ('abc', ['bcd', 'cx'], 'a'),
    ('abab', ['aba!', 'b!'], 'ab'),
    ('aba', ['aba!', 'ba!'], ''),
    ('5 \ufffd', [], '5 '),
    ('5 \ufffd\ufffd', [' €'], '5'),
  ],
)
def test_what_may_still_change_is_held_back(text, stops, expected):
  assert replies.settled(text, stops) == expected


def test_an_empty_stop_text_is_refused():
  with pytest.raises(ValueError, match='a stop text is empty'):
    reply(stop_texts=['.', ''])
