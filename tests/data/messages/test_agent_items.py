"""Items of an agent become turns; annotations and authors are kept."""

import pytest

from isft_jax.data.messages.agent_items import Items, json_text
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.messages.conversation import Chat, Malformed
from isft_jax.types import Provenance

HARNESS = Provenance.HARNESS


def turns(joined, *items):
  """Adds (method, arguments ...) of each item."""
  collected = Items(joined)
  for name, *arguments in items:
    getattr(collected, name)(*arguments)
  return collected.turns()


@pytest.mark.parametrize(
  ('items', 'joined', 'apart'),
  [
    # (content, thought) of each turn, if texts are pieces, and if they are not.
    ('a', [('a', None)], [('a', None)]),
    ('ab', [('ab', None)], [('a', None), ('b', None)]),
    ('Ta', [('a', 'T')], [('a', 'T')]),
    ('TUa', [('a', 'TU')], [('a', 'T\n\nU')]),
    ('aT', [('a', None), ('', 'T')], [('a', None), ('', 'T')]),
    ('Ta-b', [('a', 'T'), ('b', None)], [('a', 'T'), ('b', None)]),
  ],
)
def test_items_become_turns(items, joined, apart):
  """Small letters are texts, capitals are thoughts, - ends the turn."""
  calls = [
    ('end_turn',)
    if item == '-'
    else ('thought' if item.isupper() else 'text', item, {})
    for item in items
  ]
  for is_joined, expected in ((True, joined), (False, apart)):
    messages = [turn.message for turn in turns(is_joined, *calls)]
    assert expected == [
      (message['content'], message.get('reasoning_content'))
      for message in messages
    ]


def test_calls_and_their_ids():
  [turn] = turns(
    True, ('call', 'x', 'f', '{"n": 1}', {}), ('call', None, 'f', {}, {})
  )
  assert turn.message['tool_calls'] == [
    {
      'id': 'x',
      'type': 'function',
      'function': {'name': 'f', 'arguments': {'n': 1}},
    },
    {'type': 'function', 'function': {'name': 'f', 'arguments': {}}},
  ]


def authors(found):
  segments = Rules.default().trajectory('x', Chat(found, None, {})).segments
  return [(s.text, s.provenance.name, s.verdict.name) for s in segments]


def test_annotations_of_items():
  """Items with different annotations are not one turn."""
  found = turns(
    True,
    ('text', 'a', {'author': 'demonstration'}),
    ('text', 'b', {'author': 'demonstration'}),
    ('text', 'c', {'author': 'agent', 'verdict': 'wrong'}),
    ('message', {'role': 'user', 'content': 'd'}, {'author': 'harness'}),
    ('text', 'e', {}, HARNESS),
    ('text', 'f', {}),
    ('text', 'g', {'weight': 0}),
  )
  assert authors(found) == [
    ('ab', 'DEMONSTRATION', 'UNKNOWN'),
    ('c', 'AGENT', 'WRONG'),
    ('d', 'HARNESS', 'UNKNOWN'),
    ('e', 'HARNESS', 'UNKNOWN'),
    ('f', 'AGENT', 'UNKNOWN'),
    ('g', 'AGENT', 'WRONG'),
  ]
  # Templates do not get them.
  assert all('author' not in turn.message for turn in found)


@pytest.mark.parametrize(
  ('pieces', 'author', 'spans'),
  [
    ([('a', None), ('b', None)], None, None),
    ([('a', HARNESS), ('b', HARNESS)], HARNESS, None),
    ([('a', HARNESS), ('', None)], HARNESS, None),
    ([('ab', HARNESS), ('c', None)], None, [[0, 2, 'HARNESS']]),
    ([('ab', None), ('c', HARNESS)], None, [[2, 3, 'HARNESS']]),
    ([], None, None),
  ],
)
def test_authors_of_pieces(pieces, author, spans):
  [turn] = turns(True, ('pieces', 'user', pieces, {}))
  assert turn.message['content'] == ''.join(text for text, _ in pieces)
  assert (turn.author, turn.raw.get('spans')) == (author, spans)


def test_spans_of_one_text_only():
  spans = {'spans': [[0, 1, 'tool']]}
  [turn] = turns(True, ('thought', 'h', {}), ('text', 'a', spans))
  assert turn.raw['spans'] == spans['spans']
  with pytest.raises(Malformed, match=r'^turn 0: spans count characters of on'):
    turns(True, ('text', 'a', spans), ('text', 'b', {}))
  # Two turns from one message.
  with pytest.raises(Malformed, match=r'^turn 1: spans count characters of on'):
    turns(
      True,
      ('message', {'role': 'user', 'content': 'a'}, spans),
      ('result', 'x', None, 'b', {**spans}),
    )


@pytest.mark.parametrize(
  ('value', 'text'),
  [('a', 'a'), ({'n': 'é'}, '{"n": "é"}'), ([1], '[1]'), (None, 'null')],
)
def test_results_are_text(value, text):
  assert json_text(value) == text


@pytest.mark.parametrize('value', [float('nan'), [object()]])
def test_results_that_json_does_not_have_are_malformed(value):
  with pytest.raises(
    Malformed, match=r'^a result holds a value that JSON does'
  ):
    json_text(value)


@pytest.mark.parametrize('name', ['text', 'thought'])
def test_words_that_are_not_text_are_malformed(name):
  with pytest.raises(Malformed, match=rf'^turn 0: a {name} is a number, expec'):
    turns(True, (name, 7, {}))
