"""Gemini's contents: parts of the user, of the model and of functions."""

import pytest

from isft_jax.data.formats import gemini
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.messages.conversation import Malformed


def user(*parts):
  return {'role': 'user', 'parts': [*parts]}


def model(*parts):
  return {'role': 'model', 'parts': [*parts]}


def text(words, **more):
  return {'text': words, **more}


def thought(words, **more):
  return {'text': words, 'thought': True, **more}


def use(id=None, **args):
  call = {'name': 'f', 'args': args}
  return {'functionCall': call if id is None else {'id': id, **call}}


def response(value, id=None):
  answer = {'name': 'f', 'response': value}
  return {'functionResponse': answer if id is None else {'id': id, **answer}}


def call(id=None, **arguments):
  function = {'name': 'f', 'arguments': arguments}
  call = {'type': 'function', 'function': function}
  return call if id is None else {'id': id, **call}


def said(role, content, **more):
  return {'role': role, 'content': content, **more}


def read(*contents, **row):
  chat = gemini.read({'contents': [*contents], **row})
  return [turn.message for turn in chat.turns]


@pytest.mark.parametrize(
  ('content', 'turns'),
  [
    (user(text('a'), text('b')), [said('user', 'ab')]),
    ({'parts': [text('a')]}, [said('user', 'a')]),  # a single prompt
    (model(text('a')), [said('assistant', 'a')]),
    (
      model(thought('g'), thought('h'), text('a'), text('b'), use(n=1), use()),
      [
        said(
          'assistant',
          'ab',
          reasoning_content='gh',
          tool_calls=[call(n=1), call()],
        )
      ],
    ),
    (model(use('x')), [said('assistant', '', tool_calls=[call('x')])]),
    # A text after a call begins a turn: no word is moved.
    (
      model(use(), text('a')),
      [said('assistant', '', tool_calls=[call()]), said('assistant', 'a')],
    ),
    # Results of functions are turns of the tool.
    (
      user(response({'output': 'a'}, 'x'), text('b'), response({'n': 1})),
      [
        said('tool', 'a', tool_call_id='x', name='f'),
        said('user', 'b'),
        said('tool', '{"n": 1}', name='f'),
      ],
    ),
    (
      {'role': 'function', 'parts': [response({'result': 'a'})]},
      [said('tool', 'a', name='f')],
    ),
    (
      user(response({'error': 'a'})),
      [said('tool', '{"error": "a"}', name='f')],
    ),
    # A tool that Gemini's servers run.
    (
      model(
        {'executableCode': {'language': 'PYTHON', 'code': '2 + 2'}},
        {'codeExecutionResult': {'outcome': 'OUTCOME_OK', 'output': '4'}},
        text('a'),
      ),
      [
        said(
          'assistant',
          '',
          tool_calls=[
            {
              'type': 'function',
              'function': {
                'name': 'code_execution',
                'arguments': {'language': 'PYTHON', 'code': '2 + 2'},
              },
            }
          ],
        ),
        said('tool', '4', name='code_execution'),
        said('assistant', 'a'),
      ],
    ),
    # Signatures beside a thought are not words.
    (
      model(thought('h'), use() | {'thoughtSignature': 'E'}),
      [said('assistant', '', reasoning_content='h', tool_calls=[call()])],
    ),
  ],
)
def test_contents(content, turns):
  assert read(content) == turns


def test_keys_in_snake_case():
  contents = [
    user(text('a')),
    model(
      thought('h', thought_signature=None, function_call=None),
      {'function_call': {'name': 'f', 'args': {}}, 'thought_signature': 'E'},
    ),
    user({'function_response': {'name': 'f', 'response': {'output': 'b'}}}),
  ]
  tools = [{'function_declarations': [{'name': 'f'}], 'google_search': None}]
  chat = gemini.read(
    {'contents': contents, 'system_instruction': 's', 'tools': tools}
  )
  assert [turn.message for turn in chat.turns] == [
    said('system', 's'),
    said('user', 'a'),
    said('assistant', '', reasoning_content='h', tool_calls=[call()]),
    said('tool', 'b', name='f'),
  ]
  assert chat.tools == [{'type': 'function', 'function': {'name': 'f'}}]


@pytest.mark.parametrize(
  'system',
  [
    's',
    {'parts': [{'text': 's'}]},
    {'role': 'system', 'parts': [{'text': 's'}]},
    {'parts': {'text': 's'}},
    {'text': 's'},
    ['s'],
  ],
)
def test_a_system_instruction_is_the_first_turn(system):
  expected = [said('system', 's'), said('user', 'a')]
  assert read(user(text('a')), systemInstruction=system) == expected
  config = {'system_instruction': system}
  assert read(user(text('a')), config=config) == expected


def test_types_of_schemas_are_those_of_json_schema():
  city = {'type': 'STRING', 'enum': ['STRING']}
  parameters = {'type': 'OBJECT', 'properties': {'type': city}}
  tools = [{'functionDeclarations': [{'name': 'f', 'parameters': parameters}]}]
  chat = gemini.read({'contents': [user(text('a'))], 'tools': tools})
  [tool] = chat.tools
  assert tool['function']['parameters'] == {
    'type': 'object',
    'properties': {'type': {'type': 'string', 'enum': ['STRING']}},
  }


def test_a_response_is_the_last_turn():
  row = {
    'id': 7,
    'request': {'contents': [user(text('a'))], 'generationConfig': {'a': 1}},
    'response': {
      'candidates': [{'content': model(text('b')), 'finishReason': 'STOP'}]
    },
  }
  chat = gemini.read(row)
  assert [turn.message for turn in chat.turns] == [
    said('user', 'a'),
    said('assistant', 'b'),
  ]
  assert chat.metadata == {
    'id': 7,
    'request': {'generationConfig': {'a': 1}},
    'response': {'candidates': [{'finishReason': 'STOP'}]},
  }


def test_the_author_of_each_turn():
  row = [user(text('a')), model(use()), user(response({'output': 'b'}))]
  segments = Rules.default().trajectory('x', gemini.read(row)).segments
  assert [s.provenance.name for s in segments] == ['USER', 'AGENT', 'TOOL']


NO_TEXT = 'has no text form, and no chat template can show it'


@pytest.mark.parametrize(
  ('content', 'error'),
  [
    (
      user({'inlineData': {'mimeType': 'image/png', 'data': ''}}),
      f"content 1: 'inline_data' {NO_TEXT}",
    ),
    (
      user({'fileData': {'fileUri': 'u'}, 'text': 'a'}),
      f"content 1: 'file_data' {NO_TEXT}",
    ),
    (model({'inlineData': {}}), f"content 1: 'inline_data' {NO_TEXT}"),
    (
      user({'functionResponse': {'name': 'f', 'response': {}, 'parts': [1]}}),
      f"content 1: 'parts of functionResponse' {NO_TEXT}",
    ),
    (
      model(use() | {'thoughtSignature': 'E'}),
      "content 1: 'thoughtSignature' has no text: the words of the agent are "
      'not in the row',
    ),
    ('a', 'content 1 is a string, expected an object'),
    (
      {'role': 'assistant', 'parts': [text('a')]},
      "content 1: role is 'assistant', expected user, model, function, tool, "
      'system',
    ),
    ({'parts': [text('a')]}, 'content 1: role is null, expected user, model'),
    (user(7), 'content 1: a part is a number, expected an object'),
    ({'role': 'user', 'parts': 7}, 'content 1: parts is a number, expected a'),
    (
      user({'functionResponse': {'name': 'f'}}),
      'content 1: functionResponse has no response',
    ),
    (
      model({'functionCall': {'args': {}}}),
      'turn 1: tool call 0: name is null, expected a name',
    ),
  ],
)
def test_malformed_contents(content, error):
  with pytest.raises(Malformed) as raised:
    read(user(text('q')), content)
  assert str(raised.value).startswith(error)


@pytest.mark.parametrize(
  ('row', 'error'),
  [
    (
      {'tools': [{'googleSearch': {}}]},
      "tool 'google_search' has no schema, so that no chat template can show",
    ),
    (
      {'candidates': [{'content': {}}, {'content': {}}]},
      'candidates has 2 answers, expected one',
    ),
  ],
)
def test_malformed_rows(row, error):
  with pytest.raises(Malformed) as raised:
    read(user(text('a')), **row)
  assert str(raised.value).startswith(error)


@pytest.mark.parametrize(
  'row',
  [
    None,
    {'contents': []},
    {'contents': ['a']},
    {'contents': [{'role': 'user', 'content': 'a'}]},
    # Messages of other APIs with parts.
    {'messages': [user({'type': 'text', 'text': 'a'})]},
    {'messages': [{'role': 'agent', 'parts': [text('a')]}]},
    {'messages': [user(text('a') | {'kind': 'text'})]},
  ],
)
def test_rows_of_no_such_format(row):
  assert not gemini.matches(row)
