"""Bedrock's blocks: each an author's, in the turns that templates know."""

import pytest

from isft_jax.data.formats import bedrock
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.messages.conversation import Malformed


def user(*content):
  return {'role': 'user', 'content': [*content]}


def agent(*content):
  return {'role': 'assistant', 'content': [*content]}


def text(words):
  return {'text': words}


def thought(words):
  return {'reasoningContent': {'reasoningText': {'text': words}}}


def use(id, **input):
  return {'toolUse': {'toolUseId': id, 'name': 'f', 'input': input}}


def result(id, *content, **more):
  return {'toolResult': {'toolUseId': id, 'content': [*content], **more}}


def call(id, **arguments):
  function = {'name': 'f', 'arguments': arguments}
  return {'id': id, 'type': 'function', 'function': function}


def said(role, content, **more):
  return {'role': role, 'content': content, **more}


# Marks a row as Bedrock's.
CONFIG = {'tools': [{'toolSpec': {'name': 'f', 'inputSchema': {'json': {}}}}]}
CACHE = {'cachePoint': {'type': 'default'}}


def read(*messages, **row):
  chat = bedrock.read({'messages': [*messages], 'toolConfig': CONFIG, **row})
  return [turn.message for turn in chat.turns]


@pytest.mark.parametrize(
  ('message', 'turns'),
  [
    (user(text('a'), text('b'), CACHE), [said('user', 'ab')]),
    (user(), [said('user', '')]),
    (said('user', 'a'), [said('user', 'a')]),
    (
      user({'guardContent': {'text': {'text': 'a'}}}),
      [said('user', 'a')],
    ),
    (
      agent(thought('g'), thought('h'), text('a'), use('x', n=1), use('y')),
      [
        said(
          'assistant',
          'a',
          reasoning_content='gh',
          tool_calls=[call('x', n=1), call('y')],
        )
      ],
    ),
    (
      agent({'citationsContent': {'content': [text('a')], 'citations': [1]}}),
      [said('assistant', 'a')],
    ),
    (agent(), [said('assistant', '')]),
    # A text after a call begins a turn: no word is moved.
    (
      agent(use('x'), text('a')),
      [said('assistant', '', tool_calls=[call('x')]), said('assistant', 'a')],
    ),
    # Results are turns of the tool.
    (
      user(
        text('a'),
        result('x', text('1'), text('2'), status='error'),
        result('y', {'json': {'n': 'é'}}),
        text('b'),
      ),
      [
        said('user', 'a'),
        said('tool', '12', tool_call_id='x'),
        said('tool', '{"n": "é"}', tool_call_id='y'),
        said('user', 'b'),
      ],
    ),
    # Tables store absent keys as null.
    (
      user({'text': 'a', 'toolResult': None, 'image': None}),
      [said('user', 'a')],
    ),
  ],
)
def test_messages(message, turns):
  assert read(message) == turns


@pytest.mark.parametrize('system', ['s', [text('s')], [text('s'), CACHE]])
def test_a_system_is_the_first_turn(system):
  expected = [said('system', 's'), said('user', 'a')]
  assert read(user(text('a')), system=system) == expected


def test_tools_are_schemas_as_templates_take_them():
  spec = {
    'name': 'f',
    'description': 'Adds.',
    'inputSchema': {'json': {'a': 1}},
  }
  config = {'tools': [{'toolSpec': spec}, CACHE], 'toolChoice': {'auto': {}}}
  chat = bedrock.read(
    {'messages': [user(text('a'))], 'toolConfig': config, 'modelId': 'm'}
  )
  function = {'name': 'f', 'description': 'Adds.', 'parameters': {'a': 1}}
  assert chat.tools == [{'type': 'function', 'function': function}]
  assert chat.metadata == {'modelId': 'm'}


@pytest.mark.parametrize(
  ('row', 'metadata'),
  [
    (
      {
        'messages': [user(text('a'))],
        'system': [text('s')],
        'output': {'message': agent(text('b'))},
        'usage': {'totalTokens': 7},
      },
      {'usage': {'totalTokens': 7}},
    ),
    # Bedrock's logs of invocations.
    (
      {
        'operation': 'Converse',
        'input': {
          'inputBodyJson': {
            'messages': [user(text('a'))],
            'system': [text('s')],
            'inferenceConfig': {'maxTokens': 7},
          }
        },
        'output': {'outputBodyJson': {'output': {'message': agent(text('b'))}}},
      },
      {
        'operation': 'Converse',
        'request': {'inferenceConfig': {'maxTokens': 7}},
      },
    ),
  ],
)
def test_a_response_is_the_last_turn(row, metadata):
  assert bedrock.matches(row)
  chat = bedrock.read(row)
  assert [turn.message for turn in chat.turns] == [
    said('system', 's'),
    said('user', 'a'),
    said('assistant', 'b'),
  ]
  assert chat.metadata == metadata


def test_rules_see_the_status_of_a_result(tmp_path):
  (tmp_path / 'rules.json').write_text(
    '{"rules": [{"when": {"role": "tool", "status": "error"},'
    ' "author": "HARNESS"}]}'
  )
  rules = Rules.load(tmp_path / 'rules.json')
  row = [
    user(text('q')),
    agent(use('x'), use('y')),
    user(result('x', text('1'), status='error'), result('y', text('2'))),
  ]
  segments = rules.trajectory('x', bedrock.read(row)).segments
  assert [(s.text, s.provenance.name) for s in segments] == [
    ('q', 'USER'),
    ('', 'AGENT'),
    ('1', 'HARNESS'),
    ('2', 'TOOL'),
  ]


HIDDEN = "'reasoningContent' has no text: the words of the agent are not in"
NO_TEXT = 'has no text form, and no chat template can show it'


@pytest.mark.parametrize(
  ('message', 'error'),
  [
    (user({'image': {'format': 'png'}}), f"message 1: 'image' {NO_TEXT}"),
    (user({'document': {}}), f"message 1: 'document' {NO_TEXT}"),
    (user(result('x', {'image': {}})), f"message 1: 'image' {NO_TEXT}"),
    (agent({'video': {}}), f"message 1: 'video' {NO_TEXT}"),
    (user(use('x')), f"message 1: 'toolUse' {NO_TEXT}"),
    (agent(result('x')), f"message 1: 'toolResult' {NO_TEXT}"),
    (
      agent({'reasoningContent': {'redactedContent': 'x'}}),
      f'message 1: {HIDDEN}',
    ),
    (agent(thought('')), f'message 1: {HIDDEN}'),
    (user('a'), 'message 1: a block is a string, expected an object'),
    (
      user({'text': 'a', 'image': {}}),
      "message 1: a block has 'text' (a string), 'image' (an object), expected "
      'one key',
    ),
    (said('user', 7), 'message 1: content is a number, expected blocks'),
    (agent({'toolUse': 7}), 'message 1: toolUse is a number, expected an obj'),
    (user(text(7)), 'message 1: text is a number, expected text'),
  ],
)
def test_malformed_messages(message, error):
  with pytest.raises(Malformed) as raised:
    read(user(text('q')), message)
  assert str(raised.value).startswith(error)


def test_a_tool_without_a_schema_is_malformed():
  config = {'tools': [{'systemTool': {'name': 'nova_grounding'}}]}
  with pytest.raises(Malformed, match=r"^tool 'systemTool' of toolConfig has"):
    read(user(text('a')), toolConfig=config)


@pytest.mark.parametrize(
  'row',
  [
    None,
    {'messages': []},
    {'messages': [said('user', 'a')]},
    {'messages': [user(text('a'))]},  # Qwen-Agent's parts
    {'messages': [user(text('a'))], 'system': 's'},
    {
      'messages': [said('user', 'a')],
      'system': [{'type': 'text', 'text': 's'}],
    },
    {'toolConfig': CONFIG},
  ],
)
def test_rows_of_no_such_format(row):
  assert not bedrock.matches(row)
