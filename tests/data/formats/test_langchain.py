"""LangChain's messages, in each form in which they are stored."""

import pytest

from isft_jax.data.formats import langchain
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.messages.conversation import Malformed

CLASSES = {
  'system': 'SystemMessage',
  'human': 'HumanMessage',
  'ai': 'AIMessage',
  'tool': 'ToolMessage',
}


def message(type, content, **more):
  return {'type': type, 'content': content, **more}


def ai(content, **more):
  return message('ai', content, id='run-1', usage_metadata=None, **more)


def as_dict(message):
  """A message as `messages_to_dict` stores it."""
  return {'type': message['type'], 'data': message}


def as_constructor(message):
  """A message as `dumpd` stores it."""
  name = ['langchain', 'schema', 'messages', CLASSES[message['type']]]
  return {'lc': 1, 'type': 'constructor', 'id': name, 'kwargs': message}


def as_chunk(message):
  """A message that was streamed, as `model_dump` stores it."""
  return {**message, 'type': CLASSES[message['type']] + 'Chunk'}


def use(id, **args):
  return {'name': 'f', 'args': args, 'id': id, 'type': 'tool_call'}


def call(id=None, arguments=None):
  function = {'name': 'f', 'arguments': arguments or {}}
  call = {'type': 'function', 'function': function}
  return call if id is None else {'id': id, **call}


def said(role, content, **more):
  return {'role': role, 'content': content, **more}


def read(*messages):
  # A row has this format if it has a human's or a model's message.
  chat = langchain.read({'messages': [message('human', 'q'), *messages]})
  return [turn.message for turn in chat.turns][1:]


RUN = [
  message('system', 's', additional_kwargs={}),
  message('human', [{'type': 'text', 'text': 'a'}], example=False),
  ai('', tool_calls=[use('x', n=1)], invalid_tool_calls=[]),
  message('tool', '4', tool_call_id='x', name='f', status='success'),
  ai('b', tool_calls=[]),
]


@pytest.mark.parametrize(
  'dump', [dict, as_dict, as_constructor, as_chunk], ids=lambda f: f.__name__
)
@pytest.mark.parametrize(
  'row',
  [
    lambda run: run,
    lambda run: {'messages': run},
    lambda run: {'values': {'messages': run}},
    lambda run: {'channel_values': {'messages': run}},
    lambda run: {
      'lc': 1,
      'type': 'constructor',
      'id': ['langchain', 'prompts', 'chat', 'ChatPromptValue'],
      'kwargs': {'messages': run},
    },
  ],
)
def test_dumps_and_places_of_messages(dump, row):
  chat = langchain.read(row([*map(dump, RUN)]))
  segments = Rules.default().trajectory('x', chat).segments
  assert [(s.provenance.name, s.message()) for s in segments] == [
    ('CONTEXT', said('system', 's')),
    ('USER', said('user', 'a')),
    ('AGENT', said('assistant', '', tool_calls=[call('x', {'n': 1})])),
    ('TOOL', said('tool', '4', tool_call_id='x', name='f')),
    ('AGENT', said('assistant', 'b')),
  ]


FAILED = {'name': 'f', 'args': '{"n":', 'id': 'y', 'error': None}
ORIGINAL = [
  {'id': 'x', 'type': 'function', 'function': {'name': 'f', 'arguments': '{}'}},
  {
    'id': 'y',
    'type': 'function',
    'function': {'name': 'f', 'arguments': '{"n":'},
  },
]


@pytest.mark.parametrize(
  ('fields', 'turn'),
  [
    ({'content': 'a'}, said('assistant', 'a')),
    ({'content': None}, said('assistant', '')),
    (
      {'content': ['a', {'type': 'text', 'text': 'b'}]},
      said('assistant', 'ab'),
    ),
    # Thoughts.
    (
      {'content': 'a', 'additional_kwargs': {'reasoning_content': 'h'}},
      said('assistant', 'a', reasoning_content='h'),
    ),
    (
      {
        'content': 'a',
        'additional_kwargs': {
          'reasoning': {
            'type': 'reasoning',
            'summary': [{'type': 'summary_text', 'text': 'h'}],
          }
        },
      },
      said('assistant', 'a', reasoning_content='h'),
    ),
    # Blocks of Anthropic's API; the call stands in tool_calls too.
    (
      {
        'content': [
          {'type': 'thinking', 'thinking': 'h', 'signature': 'E'},
          {'type': 'text', 'text': 'a'},
          {'type': 'tool_use', 'id': 'x', 'name': 'f', 'input': {}},
        ],
        'tool_calls': [use('x')],
      },
      said('assistant', 'a', reasoning_content='h', tool_calls=[call('x')]),
    ),
    # Blocks of LangChain 1.0, and of Bedrock.
    (
      {
        'content': [
          {'type': 'reasoning', 'reasoning': 'g'},
          {'type': 'reasoning_content', 'reasoning_content': {'text': 'h'}},
          {'type': 'non_standard', 'value': {'type': 'text', 'text': 'a'}},
        ]
      },
      said('assistant', 'a', reasoning_content='gh'),
    ),
    # The text of calls before LangChain parsed them.
    (
      {'content': '', 'additional_kwargs': {'tool_calls': ORIGINAL[:1]}},
      said('assistant', '', tool_calls=[call('x')]),
    ),
    (
      {
        'content': '',
        'tool_calls': [use('x')],
        'invalid_tool_calls': [FAILED],
        'additional_kwargs': {'tool_calls': ORIGINAL},
      },
      said(
        'assistant', '', tool_calls=[call('x'), call('y', arguments='{"n":')]
      ),
    ),
    (
      {'content': '', 'invalid_tool_calls': [FAILED]},
      said('assistant', '', tool_calls=[call('y', arguments='{"n":')]),
    ),
    (
      {
        'content': '',
        'additional_kwargs': {
          'function_call': {'name': 'f', 'arguments': '{}'}
        },
      },
      said('assistant', '', tool_calls=[call()]),
    ),
    (
      {'content': '', 'additional_kwargs': {'refusal': 'No.'}},
      said('assistant', 'No.'),
    ),
  ],
)
def test_messages_of_the_agent(fields, turn):
  assert read({'type': 'ai', **fields}) == [turn]


@pytest.mark.parametrize(
  ('raw', 'turn'),
  [
    (message('developer', 'a'), said('developer', 'a')),
    (
      message('function', 'a', name='f'),
      said('tool', 'a', name='f'),
    ),
    (message('chat', 'a', role='user'), said('user', 'a')),
    (
      message('tool', [{'type': 'text', 'text': 'a'}], tool_call_id='x'),
      said('tool', 'a', tool_call_id='x'),
    ),
  ],
)
def test_other_messages(raw, turn):
  assert read(raw) == [turn]


def test_instructions_to_the_state_are_counted():
  row = [message('human', 'a'), message('remove', '', id='run-1')]
  chat = langchain.read(row)
  assert len(chat.turns) == 1
  assert chat.left_out == {'remove': 1}


def test_what_is_not_used_is_metadata():
  tools = [{'type': 'function', 'function': {'name': 'f'}}]
  row = {'values': {'messages': [message('human', 'a')], 'n': 1}, 'next': []}
  chat = langchain.read(row)
  assert (chat.tools, chat.metadata) == (None, {'n': 1, 'next': []})
  row = {'messages': [message('human', 'a')], 'tools': tools, 'n': 1}
  chat = langchain.read(row)
  assert (chat.tools, chat.metadata) == (tools, {'n': 1})


NO_TEXT = 'has no text form, and no chat template can show it'
HIDDEN = 'has no text: the words of the agent are not in the row'


def test_a_system_is_the_first_turn():
  row = {'system': 's', 'messages': [message('human', 'a')]}
  chat = langchain.read(row)
  assert [turn.message for turn in chat.turns] == [
    said('system', 's'),
    said('user', 'a'),
  ]
  assert chat.metadata == {}


@pytest.mark.parametrize(
  ('raw', 'error'),
  [
    (
      message('human', [{'type': 'image_url', 'image_url': {}}]),
      f"message 1: 'image_url' {NO_TEXT}",
    ),
    (
      message('tool', [{'type': 'image', 'base64': ''}]),
      f"message 1: 'image' {NO_TEXT}",
    ),
    (
      ai([{'type': 'redacted_thinking', 'data': 'x'}]),
      f"message 1: 'redacted_thinking' {HIDDEN}",
    ),
    (
      ai([{'type': 'reasoning', 'encrypted_content': 'gA', 'summary': []}]),
      f"message 1: 'reasoning' {HIDDEN}",
    ),
    (
      ai([{'type': 'server_tool_use'}]),
      f"message 1: 'server_tool_use' {NO_TEXT}",
    ),
    (
      ai([{'type': 'tool_use', 'id': 'x'}]),
      'message 1: has blocks of calls, expected tool_calls',
    ),
    (
      ai('', tool_calls=[use('x')], invalid_tool_calls=[FAILED]),
      'message 1: the order of tool_calls and invalid_tool_calls is unknown',
    ),
    (ai('', tool_calls=7), 'message 1: tool_calls is a number, expected a'),
    (ai(7), 'message 1: content is a number, expected text'),
    (message('robot', 'a'), "message 1: type is 'robot', expected system,"),
    ({'content': 'a'}, 'message 1: type is null, expected system, developer'),
    ('a', 'turn 1: is a string, expected an object'),
  ],
)
def test_malformed_messages(raw, error):
  with pytest.raises(Malformed) as raised:
    read(raw)
  assert str(raised.value).startswith(error)


@pytest.mark.parametrize(
  'row',
  [
    None,
    {'messages': []},
    {'messages': [{'role': 'human', 'content': 'a'}]},
    {'messages': [message('system', 'a')]},
    {'messages': [message('human', 'a', role='user')]},
    {'lc': 1, 'kwargs': {'content': 'a'}},
  ],
)
def test_rows_of_no_such_format(row):
  assert not langchain.matches(row)
