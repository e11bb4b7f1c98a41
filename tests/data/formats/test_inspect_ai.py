"""Samples of Inspect."""

import pytest

from isft_jax.data.formats import inspect_ai, registry
from isft_jax.data.messages.conversation import Malformed
from tests.data.formats.chats import fields, segments
from tests.data.formats.log_rows import INSPECT, SCHEMA, text


def sample(*messages, **row):
  return {'id': 1, 'epoch': 1, 'input': 'u', 'messages': [*messages], **row}


def said(*parts, **more):
  return {'role': 'assistant', 'content': [*parts], **more}


THOUGHT = {'type': 'reasoning', 'reasoning': 'Hm.'}


def test_a_sample():
  assert segments(INSPECT) == [
    ('system', 'Be brief.', 'CONTEXT'),
    ('user', '2 + 2?', 'USER'),
    ('assistant', 'Let me see.', 'AGENT'),
    ('tool', '4', 'TOOL'),
    ('assistant', '4', 'AGENT'),
  ]
  call = {
    'id': 'c',
    'type': 'function',
    'function': {'name': 'f', 'arguments': {'x': 2}},
  }
  assert fields(INSPECT) == [
    {'reasoning_content': 'Hm.', 'tool_calls': [call]},
    {'tool_call_id': 'c', 'name': 'f'},
  ]


@pytest.mark.parametrize(
  'messages',
  [
    [{'role': 'user', 'content': 'u', 'source': 'input'}],
    [said(tool_calls=[{'id': 'c', 'function': 'f', 'arguments': {}}])],
  ],
)
def test_messages_alone_are_recognized(messages):
  assert registry.matching(messages) == ['inspect']
  assert registry.matching({'messages': messages}) == ['inspect']


def test_a_tool_of_the_provider_is_three_turns():
  search = {
    'type': 'tool_use',
    'tool_type': 'web_search',
    'id': 'w',
    'name': 'search',
    'arguments': '{"q": "a"}',
    'result': 'r',
  }
  row = sample(said(THOUGHT, text('a'), search, text('b')))
  assert registry.matching(row) == ['inspect']
  assert segments(row) == [
    ('assistant', 'a', 'AGENT'),
    ('tool', 'r', 'TOOL'),
    ('assistant', 'b', 'AGENT'),
  ]
  assert fields(row)[0]['tool_calls'][0]['function'] == {
    'name': 'search',
    'arguments': {'q': 'a'},
  }
  # Nothing follows it.
  assert segments(sample(said(text('a'), search))) == [
    ('assistant', 'a', 'AGENT'),
    ('tool', 'r', 'TOOL'),
  ]


def test_an_assistant_of_the_input_is_a_demonstration():
  row = sample(said(text('a'), source='input'), said(text('b')))
  assert segments(row) == [
    ('assistant', 'a', 'DEMONSTRATION'),
    ('assistant', 'b', 'AGENT'),
  ]


def test_an_error_takes_the_place_of_the_result():
  error = {'type': 'timeout', 'message': 'too slow'}
  row = sample({'role': 'tool', 'content': '', 'error': error})
  assert segments(row) == [('tool', 'Error: too slow', 'TOOL')]


def test_attachments_are_texts():
  user = {'role': 'user', 'content': 'attachment://0a'}
  row = sample(user, attachments={'0a': 'long'})
  assert segments(row) == [('user', 'long', 'USER')]


def test_tools_of_the_models_events():
  tool = {**SCHEMA, 'options': None}
  event = {'event': 'model', 'tools': [tool]}
  user = {'role': 'user', 'content': 'u'}
  found = inspect_ai.read(
    sample(user, events=[{'event': 'info'}, event, event])
  )
  assert found.tools == [{'type': 'function', 'function': SCHEMA}]
  other = {'event': 'model', 'tools': [{**tool, 'name': 'g'}]}
  assert inspect_ai.read(sample(user, events=[event, other])).tools is None


@pytest.mark.parametrize(
  ('part', 'expected'),
  [
    (THOUGHT, 'Hm.'),
    ({'type': 'reasoning', 'reasoning': '', 'summary': 's'}, 's'),
    # Encrypted, with a summary in words.
    (
      {'type': 'reasoning', 'reasoning': 'x', 'redacted': True, 'summary': 's'},
      's',
    ),
  ],
)
def test_reasoning(part, expected):
  row = sample(said(part, text('a')))
  assert fields(row) == [{'reasoning_content': expected}]


@pytest.mark.parametrize(
  ('message', 'error'),
  [
    (
      said({'type': 'reasoning', 'reasoning': 'x', 'redacted': True}),
      'turn 0: part 0 is redacted: the words of the agent are not in the row',
    ),
    (
      said(text('a'), THOUGHT),
      'turn 0: part 1 is reasoning after text; chat templates show it first',
    ),
    (
      said({'type': 'image', 'image': 'data:'}),
      "turn 0: part 0 is of type 'image', which has no text",
    ),
    (
      said(tool_calls=[{'function': 'f', 'arguments': {}, 'parse_error': 'x'}]),
      'turn 0: tool call 0: parse_error: the words of the agent are not in the '
      'row',
    ),
    (
      {'role': 'user', 'content': 'attachment://0b'},
      "turn 0: part 0: 'attachment://0b' is not among the attachments",
    ),
  ],
)
def test_malformed_messages(message, error):
  with pytest.raises(Malformed) as raised:
    segments(sample(message))
  assert str(raised.value) == error
