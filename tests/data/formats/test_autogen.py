"""AutoGen's messages: typed ones, and chat histories with roles to swap."""

import pytest

from isft_jax.data.formats import autogen
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.messages.conversation import Malformed


def typed(type, source, content, **more):
  return {'type': type, 'source': source, 'content': content, **more}


def text(source, content):
  return typed('TextMessage', source, content, models_usage=None, metadata={})


def reply(role, name, content, **more):
  """A message of version 0.2."""
  return {'role': role, 'name': name, 'content': content, **more}


CALL = {
  'id': 'x',
  'type': 'function',
  'function': {'name': 'f', 'arguments': '{}'},
}
PARSED = {
  'id': 'x',
  'type': 'function',
  'function': {'name': 'f', 'arguments': {}},
}
USE = {'id': 'x', 'name': 'f', 'arguments': '{}'}
RESULT = {'call_id': 'x', 'name': 'f', 'content': '4', 'is_error': False}


def segments(row):
  chat = autogen.read(row)
  found = Rules.default().trajectory('x', chat).segments
  return [(s.provenance.name, s.message()) for s in found]


def said(role, content, **more):
  return {'role': role, 'content': content, **more}


@pytest.mark.parametrize(
  ('messages', 'expected'),
  [
    ([text('user', 'a')], [('USER', said('user', 'a'))]),
    ([text('solver', 'a')], [('AGENT', said('assistant', 'a'))]),
    # One turn of the agent.
    (
      [
        typed('ThoughtEvent', 'solver', 'h'),
        typed('ToolCallRequestEvent', 'solver', [USE]),
        typed('ToolCallExecutionEvent', 'solver', [RESULT]),
        text('solver', 'a'),
      ],
      [
        (
          'AGENT',
          said('assistant', '', reasoning_content='h', tool_calls=[PARSED]),
        ),
        ('TOOL', said('tool', '4', tool_call_id='x', name='f')),
        ('AGENT', said('assistant', 'a')),
      ],
    ),
    # Each text is a turn.
    (
      [text('solver', 'a'), text('critic', 'b')],
      [('AGENT', said('assistant', 'a')), ('AGENT', said('assistant', 'b'))],
    ),
    # A source that was asked for input is a user.
    (
      [text('ann', 'a'), typed('UserInputRequestedEvent', 'ann', '')],
      [('USER', said('user', 'a'))],
    ),
    (
      [typed('HandoffMessage', 'solver', 'Transferred.', target='critic')],
      [('HARNESS', said('user', 'Transferred.'))],
    ),
    (
      [typed('StructuredMessage[Answer]', 'solver', {'n': 4})],
      [('AGENT', said('assistant', '{"n": 4}'))],
    ),
    (
      [typed('MemoryQueryEvent', 'solver', [{'content': 'm'}])],
      [('CONTEXT', said('system', 'm'))],
    ),
    # Code that the agent wrote, and its output.
    (
      [
        typed('CodeGenerationEvent', 'coder', '```2+2```', code_blocks=[{}]),
        {
          'type': 'CodeExecutionEvent',
          'source': 'coder',
          'result': {'exit_code': 0, 'output': '4'},
        },
      ],
      [
        ('AGENT', said('assistant', '```2+2```')),
        ('TOOL', said('tool', '4')),
      ],
    ),
    # The context of a model.
    (
      [
        {'type': 'SystemMessage', 'content': 's'},
        typed('UserMessage', 'user', ['a', 'b']),
        typed('AssistantMessage', 'solver', [USE], thought='h'),
        {'type': 'FunctionExecutionResultMessage', 'content': [RESULT]},
        typed('AssistantMessage', 'solver', 'c', thought=None),
      ],
      [
        ('CONTEXT', said('system', 's')),
        ('USER', said('user', 'ab')),
        (
          'AGENT',
          said('assistant', '', reasoning_content='h', tool_calls=[PARSED]),
        ),
        ('TOOL', said('tool', '4', tool_call_id='x', name='f')),
        ('AGENT', said('assistant', 'c')),
      ],
    ),
  ],
)
def test_typed_messages(messages, expected):
  assert segments({'messages': messages, 'stop_reason': None}) == expected
  assert segments(messages) == expected


def test_events_that_repeat_or_steer_are_counted():
  messages = [
    text('user', 'a'),
    typed('SelectSpeakerEvent', 'manager', ['solver']),
    typed('ModelClientStreamingChunkEvent', 'solver', 'b'),
    typed('ModelClientStreamingChunkEvent', 'solver', 'c'),
    text('solver', 'bc'),
    typed('ToolCallSummaryMessage', 'solver', '4'),
    typed('StopMessage', 'MaxMessageTermination', 'Stop.'),
  ]
  chat = autogen.read(messages)
  assert [turn.message['content'] for turn in chat.turns] == ['a', 'bc']
  assert chat.left_out == {
    'SelectSpeakerEvent': 1,
    'ModelClientStreamingChunkEvent': 2,
    'ToolCallSummaryMessage': 1,
    'StopMessage': 1,
  }


RESPONSES = [{'tool_call_id': 'x', 'role': 'tool', 'content': '4'}]
RAN = 'exitcode: 0 (execution succeeded)\nCode output: 4'


@pytest.mark.parametrize(
  ('history', 'expected'),
  [
    # The user's proxy began, so that its own messages have the role assistant.
    (
      [
        reply('assistant', 'user_proxy', 'a'),
        reply('assistant', 'solver', None, tool_calls=[CALL]),
        reply('tool', 'user_proxy', '4', tool_responses=RESPONSES),
        reply('user', 'solver', 'b'),
        reply('assistant', 'user_proxy', 'c'),
        reply('user', 'solver', 'd'),
      ],
      [
        ('USER', said('user', 'a')),
        ('AGENT', said('assistant', '', tool_calls=[PARSED])),
        ('TOOL', said('tool', '4', tool_call_id='x')),
        ('AGENT', said('assistant', 'b')),
        ('USER', said('user', 'c')),
        ('AGENT', said('assistant', 'd')),
      ],
    ),
    # The proxy ran the agent's code.
    (
      [
        reply('assistant', 'user_proxy', 'a'),
        reply('user', 'solver', '```2+2```'),
        reply('assistant', 'user_proxy', RAN),
      ],
      [
        ('USER', said('user', 'a')),
        ('AGENT', said('assistant', '```2+2```')),
        ('TOOL', said('user', RAN)),
      ],
    ),
    # Functions, before there were tools.
    (
      [
        reply('assistant', 'user_proxy', 'a'),
        reply('assistant', 'solver', '', function_call=CALL['function']),
        reply('function', 'f', '4'),
      ],
      [
        ('USER', said('user', 'a')),
        (
          'AGENT',
          said(
            'assistant',
            '',
            tool_calls=[
              {
                'type': 'function',
                'function': {'name': 'f', 'arguments': {}},
              }
            ],
          ),
        ),
        ('TOOL', said('tool', '4', name='f')),
      ],
    ),
    # The agent's own view.
    (
      [
        reply('user', 'user_proxy', 'a'),
        reply('assistant', 'solver', '', tool_calls=[CALL]),
        reply('tool', 'user_proxy', '4', tool_responses=RESPONSES),
      ],
      [
        ('USER', said('user', 'a')),
        ('AGENT', said('assistant', '', tool_calls=[PARSED])),
        ('TOOL', said('tool', '4', tool_call_id='x')),
      ],
    ),
    # An agent began.
    (
      [
        reply('assistant', 'solver', 'Hello.'),
        reply('user', 'user_proxy', 'a'),
      ],
      [('AGENT', said('assistant', 'Hello.')), ('USER', said('user', 'a'))],
    ),
  ],
)
def test_chat_histories(history, expected):
  row = {'chat_history': history, 'summary': 's', 'cost': {}}
  assert autogen.matches(row)
  assert segments(row) == expected


def test_several_results_of_one_message():
  responses = [{'tool_call_id': id, 'content': id} for id in 'xy']
  history = [
    reply('user', 'user', 'a'),
    reply('tool', 'user', 'x\n\ny', tool_responses=responses),
  ]
  assert segments(history)[1:] == [
    ('TOOL', said('tool', 'x', tool_call_id='x')),
    ('TOOL', said('tool', 'y', tool_call_id='y')),
  ]


IMAGE = {'data': 'x'}


@pytest.mark.parametrize(
  ('message', 'error'),
  [
    (
      typed('MultiModalMessage', 'user', ['a', IMAGE]),
      "message 1: 'MultiModalMessage' has no text form, and no chat template",
    ),
    (
      typed('UserMessage', 'user', ['a', IMAGE]),
      "message 1: 'image' has no text form, and no chat template can show it",
    ),
    (
      typed('OfTomorrow', 'user', 'a'),
      "message 1: 'OfTomorrow' has no text form, and no chat template can",
    ),
    (text(None, 'a'), 'message 1: source is null, expected a name'),
    (text('solver', None), 'turn 1: a text is null, expected text'),
    (
      typed('ToolCallRequestEvent', 'solver', 'f'),
      'message 1: content is a string, expected objects',
    ),
    (
      typed('CodeExecutionEvent', 'solver', '', result=None),
      'message 1: output of result is null',
    ),
    ('a', 'turn 1: is a string, expected an object'),
  ],
)
def test_malformed_messages(message, error):
  with pytest.raises(Malformed) as raised:
    autogen.read([text('user', 'q'), message])
  assert str(raised.value).startswith(error)


@pytest.mark.parametrize('name', ['joe', None])
def test_roles_that_are_unknown_are_malformed(name):
  history = [reply('assistant', name, 'a'), reply('user', 'cathy', 'b')]
  row = {'chat_history': history, 'summary': 's', 'cost': {}}
  assert autogen.matches(row)
  with pytest.raises(
    Malformed, match=r'^message 0: its speaker, .* may be a u'
  ):
    autogen.read(row)


@pytest.mark.parametrize(
  'row',
  [
    None,
    [],
    {'messages': [{'role': 'user', 'name': 'user', 'content': 'a'}]},
    {'messages': [{'role': 'assistant', 'name': 'bot', 'content': 'a'}]},
    {'chat_history': [{'role': 'user', 'content': 'a'}]},
    {'messages': [{'source': 'user', 'content': 'a'}]},
  ],
)
def test_rows_of_no_such_format(row):
  assert not autogen.matches(row)
