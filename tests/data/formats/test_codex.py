"""Rollouts of Codex: lines that are items, and lines that are not."""

import pytest

from isft_jax.data.formats import codex
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.messages.conversation import Malformed

AGENTS = '# AGENTS.md instructions for /x\n\n<INSTRUCTIONS>\nb\n</INSTRUCTIONS>'
PLACE = '<environment_context>\n<cwd>/x</cwd>\n</environment_context>'


def item(**payload):
  return {'timestamp': 't', 'type': 'response_item', 'payload': payload}


def event(type, **payload):
  return {'type': 'event_msg', 'payload': {'type': type, **payload}}


def user(*texts):
  parts = [{'type': 'input_text', 'text': text} for text in texts]
  return item(type='message', role='user', content=parts)


def agent(text):
  parts = [{'type': 'output_text', 'text': text}]
  return item(type='message', role='assistant', content=parts)


def meta(**payload):
  return {'type': 'session_meta', 'payload': {'id': 's', **payload}}


def segments(*lines):
  chat = codex.read([*lines])
  found = Rules.default().trajectory('x', chat).segments
  return [(s.role, s.text, s.provenance.name) for s in found]


@pytest.mark.parametrize(
  ('lines', 'expected'),
  [
    (
      [meta(base_instructions={'text': 's'}), user('a'), agent('b')],
      [
        ('system', 's', 'CONTEXT'),
        ('user', 'a', 'USER'),
        ('assistant', 'b', 'AGENT'),
      ],
    ),
    # Texts that Codex inserts.
    ([user(AGENTS)], [('user', AGENTS, 'CONTEXT')]),
    ([user(AGENTS, PLACE)], [('user', AGENTS + PLACE, 'CONTEXT')]),
    (
      [user('<turn_aborted>\na\n</turn_aborted>')],
      [('user', '<turn_aborted>\na\n</turn_aborted>', 'HARNESS')],
    ),
    (
      [item(type='message', role='developer', content='a')],
      [('developer', 'a', 'CONTEXT')],
    ),
    # A summary of earlier turns.
    (
      [agent('b'), {'type': 'compacted', 'payload': {'message': 'c'}}],
      [('assistant', 'b', 'AGENT'), ('user', 'c', 'CONTEXT')],
    ),
    # The oldest rollouts have bare items.
    (
      [
        {'id': 's', 'timestamp': 't', 'instructions': None},
        {'record_type': 'state'},
        user('a')['payload'],
        agent('b')['payload'],
      ],
      [('user', 'a', 'USER'), ('assistant', 'b', 'AGENT')],
    ),
  ],
)
def test_who_wrote_a_turn(lines, expected):
  assert segments(*lines) == expected


def test_a_text_of_the_user_beside_inserted_texts():
  chat = codex.read([user(PLACE, 'Fix it.')])
  [segment] = Rules.default().trajectory('x', chat).segments
  assert segment.provenance.name == 'USER'
  [part] = segment.parts
  assert segment.text[part.start : part.stop] == PLACE
  assert part.provenance.name == 'CONTEXT'


def test_lines_that_repeat_items_are_counted():
  lines = [
    meta(cwd='/x', base_instructions={'text': 's'}),
    {'type': 'turn_context', 'payload': {'model': 'm'}},
    user('a'),
    event('user_message', message='a'),
    agent('b'),
    event('agent_message', message='b'),
    event('token_count'),
    meta(cwd='/y'),
  ]
  chat = codex.read(lines)
  assert len(chat.turns) == 3
  assert chat.left_out == {'turn_context': 1, 'event_msg': 3, 'session_meta': 1}
  # Author rules can test it.
  assert chat.metadata == {'id': 's', 'cwd': '/x'}


@pytest.mark.parametrize(
  ('number', 'texts', 'removed'),
  [
    (1, [PLACE, 'a', 'b'], 2),
    (2, [PLACE], 4),
    (3, [PLACE], 4),
  ],
)
def test_turns_that_the_user_rolled_back(number, texts, removed):
  lines = [user(PLACE), user('a'), agent('b'), user('c'), agent('d')]
  lines += [event('thread_rolled_back', num_turns=number), agent('e')]
  chat = codex.read(lines)
  assert [turn.message['content'] for turn in chat.turns] == [*texts, 'e']
  assert chat.left_out == {'rolled back': removed}


@pytest.mark.parametrize(
  ('line', 'error'),
  [
    (
      item(type='reasoning', summary=[], encrypted_content='gA'),
      "item 1: 'reasoning' has no text: the words of the agent are not in",
    ),
    ('a', 'line 1 is a string, expected an object'),
    ({'type': None, 'payload': {}}, 'line 1: type is null, expected a name'),
    ({'type': 'event_msg', 'payload': 7}, 'line 1: payload is a number'),
    (event('thread_rolled_back'), 'num_turns is null, expected a number'),
  ],
)
def test_malformed_lines(line, error):
  with pytest.raises(Malformed) as raised:
    codex.read([user('a'), line])
  assert str(raised.value).startswith(error)


@pytest.mark.parametrize(
  'row',
  [
    None,
    [],
    user('a'),
    [event('user_message', message='a')],
    [user('a')['payload']],
  ],
)
def test_rows_of_no_such_format(row):
  assert not codex.matches(row)
