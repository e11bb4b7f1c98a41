"""Contents of LLaMA-Factory v1: values with a type."""

import json

import pytest

from isft_jax.data.formats import llama_factory
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.messages.conversation import Malformed


def part(type, value):
  return {'type': type, 'value': value}


def message(role, *content, **more):
  return {'role': role, 'content': [*content], **more}


def text(words):
  return part('text', words)


USE = '{"name": "f", "arguments": {"n": 1}}'
CALL = {'type': 'function', 'function': {'name': 'f', 'arguments': {'n': 1}}}


def said(role, content, **more):
  return {'role': role, 'content': content, **more}


def read(*messages, **row):
  chat = llama_factory.read({'messages': [*messages], **row})
  return [turn.message for turn in chat.turns]


@pytest.mark.parametrize(
  ('raw', 'turns'),
  [
    (message('user', text('a'), text('b')), [said('user', 'ab')]),
    (message('tool', text('a')), [said('tool', 'a')]),
    (message('assistant'), [said('assistant', '')]),
    (
      message(
        'assistant',
        part('reasoning', 'h'),
        text('a'),
        part('tool_call', USE),
        part('tool_call', USE),
      ),
      [said('assistant', 'a', reasoning_content='h', tool_calls=[CALL, CALL])],
    ),
    (
      message('assistant', part('tool_calls', f'[{USE}, {USE}]')),
      [said('assistant', '', tool_calls=[CALL, CALL])],
    ),
    # A text after a call begins a turn: no word is moved.
    (
      message('assistant', part('tool_call', USE), text('a')),
      [said('assistant', '', tool_calls=[CALL]), said('assistant', 'a')],
    ),
    (said('user', 'a'), [said('user', 'a')]),
  ],
)
def test_messages(raw, turns):
  assert read(message('user', text('q')), raw)[1:] == turns


TOOL = {'type': 'function', 'function': {'name': 'f'}}


@pytest.mark.parametrize(
  ('system', 'row'),
  [
    (text('s'), {'tools': json.dumps([TOOL])}),
    (part('tools', json.dumps([TOOL])), {}),
    (part('tools', '[{"name": "f"}]'), {}),
  ],
)
def test_tools(system, row):
  row['messages'] = [message('system', system), message('user', text('a'))]
  assert llama_factory.read(row).tools == [TOOL]


def test_tools_of_the_row_are_not_changed():
  row = {
    'messages': [
      message('system', part('tools', '[{"name": "f"}]')),
      message('user', text('a')),
    ],
    'tools': [{'name': 'g'}],
  }
  assert len(llama_factory.read(row).tools) == 2
  assert row['tools'] == [{'name': 'g'}]


def test_authors_and_metadata():
  row = {
    'messages': [
      message('user', text('a'), loss_weight=0.0),
      message('assistant', part('tool_call', USE), loss_weight=1.0),
      message('tool', text('4'), loss_weight=0.0),
      message('assistant', text('b'), loss_weight=0.0),
    ],
    '_dataset_name': 'd',
  }
  chat = llama_factory.read(row)
  segments = Rules.default().trajectory('x', chat).segments
  # A weight of 0 says that the agent's turn is not to be imitated.
  assert [(s.provenance.name, s.verdict.name) for s in segments] == [
    ('USER', 'UNKNOWN'),
    ('AGENT', 'UNKNOWN'),
    ('TOOL', 'UNKNOWN'),
    ('AGENT', 'WRONG'),
  ]
  assert chat.metadata == {'_dataset_name': 'd'}


def test_a_system_is_the_first_turn():
  row = {'system': 's', 'messages': [message('user', text('a'))]}
  chat = llama_factory.read(row)
  assert [turn.message for turn in chat.turns] == [
    said('system', 's'),
    said('user', 'a'),
  ]
  assert chat.metadata == {}


@pytest.mark.parametrize(
  ('raw', 'error'),
  [
    (
      message('user', part('image_url', 'u')),
      "message 1: 'image_url' has no text form, and no chat template can show",
    ),
    (
      message('user', part('reasoning', 'a')),
      "message 1: 'reasoning' has no text form, and no chat template can show",
    ),
    (
      message('assistant', part('tool_call', 'f()')),
      "message 1: tool_call is 'f()', expected JSON objects",
    ),
    (
      message('assistant', text(7)),
      'turn 1: a text is a number, expected text',
    ),
    (said('user', 7), 'message 1: content is a number, expected a list'),
    ('a', 'turn 1: is a string, expected an object'),
  ],
)
def test_malformed_messages(raw, error):
  with pytest.raises(Malformed) as raised:
    read(message('user', text('q')), raw)
  assert str(raised.value).startswith(error)


@pytest.mark.parametrize(
  'row',
  [
    None,
    {'messages': [said('user', 'a')]},
    {'messages': [message('user', {'type': 'text', 'text': 'a'})]},
    {'conversations': [{'from': 'human', 'value': 'a'}]},
  ],
)
def test_rows_of_no_such_format(row):
  assert not llama_factory.matches(row)
