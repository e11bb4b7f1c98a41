"""A message as templates get it: text, objects, and nothing that is null."""

import copy

import pytest

from isft_jax.data.messages.conversation import Malformed
from isft_jax.data.messages.normalize import find, normalised, take

ARGUMENTS = {'x': [1, 2]}
CALL = {'type': 'function', 'function': {'name': 'f', 'arguments': ARGUMENTS}}


def of_user(content):
  return {'role': 'user', 'content': content}


def of_agent(**fields):
  return {'role': 'assistant', 'content': '', **fields}


def call(arguments, **fields):
  return {**fields, 'function': {'name': 'f', 'arguments': arguments}}


@pytest.mark.parametrize(
  ('found', 'message'),
  [
    # Content.
    (of_user('a'), of_user('a')),
    (of_user(''), of_user('')),
    (of_user(None), of_user('')),
    ({'role': 'user'}, of_user('')),
    (of_user([]), of_user('')),
    (of_user(['a ', ' b']), of_user('a  b')),
    (
      of_user([{'type': 'text', 'text': 'a', 'cache_control': {}}, 'b']),
      of_user('ab'),
    ),
    # What is null is absent; what is not ours passes.
    (
      {'content': 'a', 'role': 'tool', 'name': 'f', 'tool_call_id': None},
      {'role': 'tool', 'content': 'a', 'name': 'f'},
    ),
    (
      of_agent(reasoning_content='why', weight=0, refusal=None),
      of_agent(reasoning_content='why', weight=0),
    ),
    # Our marks are no template's.
    (of_agent(author='agent', verdict=True, spans=[]), of_agent()),
    (
      of_agent(author='expert', verdict='good'),
      of_agent(author='expert', verdict='good'),
    ),
    # Tool calls.
    (of_agent(tool_calls=None), of_agent()),
    (of_agent(tool_calls=[]), of_agent()),
    (of_agent(tool_calls=[CALL]), of_agent(tool_calls=[CALL])),
    (
      of_agent(tool_calls=[call('{"x": [1, 2]}', id='a'), call(ARGUMENTS)]),
      of_agent(tool_calls=[call(ARGUMENTS, id='a'), call(ARGUMENTS)]),
    ),
    # Arguments that hold no object are left as they are.
    *(
      (of_agent(tool_calls=[call(x)]), of_agent(tool_calls=[call(x)]))
      for x in ('x=1', '[1]', '7', '{"x": NaN}', r'{"x": "\ud800"}', 7)
    ),
    # A call without arguments.
    *(
      (of_agent(tool_calls=[x]), of_agent(tool_calls=[call({})]))
      for x in (
        call(''),
        call(' '),
        call('{}'),
        call('null'),
        call(None),
        call({}),
        {'function': {'name': 'f'}},
      )
    ),
    # Calls as JSON, as columns of tables have them.
    (of_agent(tool_calls=''), of_agent()),
    (
      of_agent(tool_calls='[{"function": {"name": "f", "arguments": {}}}]'),
      of_agent(tool_calls=[call({})]),
    ),
    # Parts without a type, as Qwen-Agent has them, and of the Responses API.
    (of_user([{'text': 'a'}, {'text': 'b', 'image': None}]), of_user('ab')),
    (of_user([{'type': 'input_text', 'text': 'a'}]), of_user('a')),
    # The agent's words under `refusal`.
    (of_agent(content=None, refusal='No.'), of_agent(content='No.')),
    (of_agent(content='No.', refusal='No.'), of_agent(content='No.')),
    (of_agent(content='Yes.', refusal=''), of_agent(content='Yes.')),
    (
      of_agent(content=[{'type': 'refusal', 'refusal': 'No.'}]),
      of_agent(content='No.'),
    ),
    # Reasoning in pieces. The same words may stand there twice.
    (
      of_agent(reasoning_details=[{'text': 'a'}, {'summary': 'b'}]),
      of_agent(reasoning_content='ab'),
    ),
    (
      of_agent(thinking_blocks=[{'type': 'thinking', 'thinking': 'a'}]),
      of_agent(reasoning_content='a'),
    ),
    (
      of_agent(reasoning='a', reasoning_details=[{'data': 'gAAA'}]),
      of_agent(reasoning='a', reasoning_details=[{'data': 'gAAA'}]),
    ),
    # Names of roles.
    *(
      ({'role': name, 'content': 'a'}, {'role': role, 'content': 'a'})
      for name, role in (
        ('User', 'user'),
        ('SYSTEM', 'system'),
        ('human', 'user'),
        ('Human', 'user'),
        ('ai', 'assistant'),
        ('gpt', 'assistant'),
        ('model', 'assistant'),
        ('Assistant', 'assistant'),
        ('tool-call', 'assistant'),
        ('tool-response', 'tool'),
        ('tool_response', 'tool'),
        ('observation', 'tool'),
        ('ipython', 'ipython'),
        ('developer', 'developer'),
        ('critic', 'critic'),
        ('Critic', 'Critic'),
      )
    ),
    # A call that is a message of its own.
    (
      {'role': 'tool_call', 'content': '{"name": "f", "arguments": {}}'},
      of_agent(tool_calls=[{'type': 'function', **call({})}]),
    ),
    # Flat calls, and those of old.
    (
      of_agent(tool_calls=[{'id': 'a', 'name': 'f', 'arguments': ARGUMENTS}]),
      of_agent(tool_calls=[{'id': 'a', **CALL}]),
    ),
    (
      of_agent(
        content=None,
        function_call={'name': 'f', 'arguments': '{"x": [1, 2]}'},
      ),
      of_agent(tool_calls=[CALL]),
    ),
    (of_agent(function_call=None), of_agent()),
    (
      {'role': 'function', 'name': 'f', 'content': '1'},
      {'role': 'tool', 'content': '1', 'name': 'f'},
    ),
    (
      {'role': 'tool', 'content': '1', 'function_call': 'f'},
      {'role': 'tool', 'content': '1', 'function_call': 'f'},
    ),
  ],
)
def test_normalised(found, message):
  before = copy.deepcopy(found)
  assert normalised(found, 0) == message
  assert found == before


@pytest.mark.parametrize(
  ('found', 'error'),
  [
    ({'content': 'a'}, 'role is null, expected a name'),
    ({'role': '', 'content': 'a'}, 'role is an empty string, expected a name'),
    ({'role': 7, 'content': 'a'}, 'role is a number, expected a name'),
    ({'role': [], 'content': 'a'}, 'role is an empty list, expected a name'),
    (of_user(7), 'content is a number, expected text'),
    (of_user({'a': 1}), 'content is an object, expected text'),
    (of_user(False), 'content is true or false, expected text'),
    (of_user(['a', 7]), 'part 1 is a number, expected text'),
    (
      of_user([{'type': 'image_url', 'image_url': {}}]),
      "part 0 is of type 'image_url', expected 'text'",
    ),
    (of_user([{'a': 'b'}]), "part 0 is of type null, expected 'text'"),
    (
      of_user([{'text': 'a', 'image': 'a.png'}]),
      'part 0 has image, which has no text: only text can become tokens',
    ),
    (
      {**of_user('a'), 'images': ['iVBORw']},
      'has images, which has no text: only text can become tokens',
    ),
    (
      {**of_user('a'), 'attachments': [{'name': 'a.pdf'}]},
      'has attachments, which has no text: only text can become tokens',
    ),
    (of_agent(refusal=7), 'refusal is a number, expected text'),
    (of_agent(content='a', refusal='b'), 'has both content and refusal'),
    (
      of_agent(
        reasoning_details=[{'type': 'reasoning.encrypted', 'data': 'g'}]
      ),
      'reasoning_details is encrypted: the words of the agent are not in the '
      'row',
    ),
    (
      of_user([{'type': 'text', 'text': None}]),
      'part 0: text is null, expected a string',
    ),
    ({'role': 'user', 'text': 'a'}, 'has text, expected content'),
    ({'role': 'user', 'value': 'a'}, 'has value, expected content'),
    (of_agent(tool_calls='f()'), 'tool_calls is a string, expected a list'),
    (of_agent(tool_calls={}), 'tool_calls is an object, expected a list'),
    (of_agent(tool_calls=['f']), 'tool call 0 is a string, expected an object'),
    (
      of_agent(tool_calls=[CALL, {'function': 'f'}]),
      'tool call 1: function is a string, expected an object',
    ),
    (
      of_agent(tool_calls=[{'arguments': {}}]),
      'tool call 0: name is null, expected a name',
    ),
    (
      of_agent(tool_calls=[{'function': {'name': ''}}]),
      'tool call 0: name is an empty string, expected a name',
    ),
    (
      of_agent(function_call='f'),
      'tool call 0 is a string, expected an object',
    ),
    (
      of_agent(function_call={'name': 'f'}, tool_calls=[CALL]),
      'has both tool_calls and function_call',
    ),
  ],
)
def test_what_would_have_to_be_guessed_is_malformed(found, error):
  with pytest.raises(Malformed) as raised:
    normalised(found, 3)
  assert str(raised.value) == f'turn 3: {error}'


A, B = [{'role': 'user'}], [{'role': 'tool'}]


@pytest.mark.parametrize(
  ('row', 'found'),
  [
    (A, ('', A)),
    ({'x': A, 'y': B}, ('x', A)),
    ({'x': None, 'y': B}, ('y', B)),
    ({'x': [], 'y': B}, ('y', B)),
    ({'x': ['a'], 'y': B}, ('y', B)),
    ({'x': '[{"role": "user"}]'}, ('x', A)),
    ({'x': [7, *A]}, ('x', [7, *A])),
    ({'x': '[{"role"'}, None),
    ({'x': {'role': 'user'}}, None),
    ({'z': A}, None),
    ([], None),
    (None, None),
    ('[{"role": "user"}]', ('', A)),
    (7, None),
  ],
)
def test_find(row, found):
  assert find(row, ('x', 'y'), ('role',)) == found


SCHEMA = {'name': 'f', 'parameters': {}}
WRAPPED = {'type': 'function', 'function': SCHEMA}


@pytest.mark.parametrize(
  ('fields', 'tools'),
  [
    ({}, None),
    ({'tools': None}, None),
    ({'tools': []}, None),
    ({'tools': ''}, None),
    ({'tools': '[]'}, None),
    ({'tools': [WRAPPED]}, [WRAPPED]),
    ({'tools': [SCHEMA]}, [SCHEMA]),
    ({'tools': '[{"name": "f", "parameters": {}}]'}, [SCHEMA]),
    ({'functions': [SCHEMA], 'tools': None}, [WRAPPED]),
    ({'functions': [WRAPPED]}, [WRAPPED]),
    ({'tool_defs': [SCHEMA]}, [WRAPPED]),
    ({'tools': {'f': {'parameters': {}}}}, [WRAPPED]),
    ({'tools': {'f': WRAPPED}}, [WRAPPED]),
    ({'tools': SCHEMA}, [WRAPPED]),
    ({'tools': ['{"name": "f", "parameters": {}}']}, [SCHEMA]),
    ({'tools': [{'name': 'f', 'inputSchema': {}}]}, [SCHEMA]),
    ({'tools': [WRAPPED], 'tool_defs': [SCHEMA]}, [WRAPPED]),
  ],
)
def test_tools_and_the_rest_of_a_row(fields, tools):
  row = {'id': 1, 'x': A, **fields}
  assert take(row, ('x',), ('role',)) == (A, tools, {'id': 1})


@pytest.mark.parametrize(
  ('row', 'error'),
  [
    (
      {'x': [], 'id': 7},
      'no turns: expected a list of messages with role under x; the row has '
      "'x' (an empty list), 'id' (a number)",
    ),
    (
      'text',
      'no turns: expected a list of messages with role under x; the row has '
      'a string',
    ),
    ({'x': [*A, 7]}, 'turn 1: is a number, expected an object'),
    (
      {'x': A, 'tools': 'f'},
      'tools is a string, expected a list of schemas, or JSON of one',
    ),
    (
      {'x': A, 'functions': [SCHEMA, 'f']},
      'functions is a list, expected a list of schemas, or JSON of one',
    ),
    (
      {'x': A, 'functions': [SCHEMA], 'tools': [SCHEMA]},
      'the row has both tools and functions',
    ),
  ],
)
def test_rows_without_turns_and_tools_that_are_none(row, error):
  with pytest.raises(Malformed) as raised:
    take(row, ('x',), ('role',))
  assert str(raised.value) == error
