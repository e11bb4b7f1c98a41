"""Items of the Responses API: turns, order, servers' tools, hidden words."""

from collections import Counter

import pytest

from isft_jax.data.formats import response_items
from isft_jax.data.messages.agent_items import Items
from isft_jax.data.messages.conversation import Malformed

ENCRYPTED = 'the words of the agent are not in the row'
NO_TEXT = 'has no text form, and no chat template can show it'


def user(*parts):
  return {'role': 'user', 'content': [*parts]}


def text(words):
  return {'type': 'input_text', 'text': words}


def agent(words, **more):
  part = {'type': 'output_text', 'text': words, 'annotations': []}
  return {'type': 'message', 'role': 'assistant', 'content': [part], **more}


def thought(*summary, content=None, **more):
  parts = [{'type': 'summary_text', 'text': words} for words in summary]
  item = {'type': 'reasoning', 'id': 'rs', 'summary': parts, **more}
  return item if content is None else {**item, 'content': content}


def use(id, name='f', arguments='{}'):
  item = {'type': 'function_call', 'call_id': id, 'name': name}
  return {**item, 'arguments': arguments}


def output(id, content, type='function_call_output'):
  return {'type': type, 'call_id': id, 'output': content}


def call(id, name='f', **arguments):
  function = {'name': name, 'arguments': arguments}
  return {'id': id, 'type': 'function', 'function': function}


def assistant(content='', thought=None, calls=()):
  turn = {'role': 'assistant', 'content': content}
  turn |= {} if thought is None else {'reasoning_content': thought}
  return turn | ({'tool_calls': [*calls]} if calls else {})


def tool(id, content, **more):
  return {'role': 'tool', 'content': content, 'tool_call_id': id, **more}


def read(*items):
  turns, tools, left_out = Items(joined=False), [], Counter()
  response_items.read([*items], turns, tools, left_out)
  return [turn.message for turn in turns.turns()], tools, left_out


@pytest.mark.parametrize(
  ('items', 'turns'),
  [
    # Texts.
    ([{'role': 'user', 'content': 'a'}], [{'role': 'user', 'content': 'a'}]),
    ([user(text('a'), text('b'))], [{'role': 'user', 'content': 'ab'}]),
    (
      [{'type': 'message', 'role': 'developer', 'content': [text('a')]}],
      [{'role': 'developer', 'content': 'a'}],
    ),
    ([agent('a')], [assistant('a')]),
    ([{'role': 'assistant', 'content': 'a'}], [assistant('a')]),
    (
      [{**agent(''), 'content': [{'type': 'refusal', 'refusal': 'No.'}]}],
      [assistant('No.')],
    ),
    # One turn of the agent.
    (
      [thought('h'), agent('a'), use('x'), use('y')],
      [assistant('a', 'h', [call('x'), call('y')])],
    ),
    (
      [thought('h'), use('x'), output('x', '4'), agent('a')],
      [assistant('', 'h', [call('x')]), tool('x', '4'), assistant('a')],
    ),
    # Items out of the order of chat templates begin a turn.
    ([agent('a'), agent('b')], [assistant('a'), assistant('b')]),
    (
      [thought('h'), agent('a'), thought('i'), use('x')],
      [assistant('a', 'h'), assistant('', 'i', [call('x')])],
    ),
    (
      [use('x'), agent('a'), output('x', '4')],
      [assistant(calls=[call('x')]), assistant('a'), tool('x', '4')],
    ),
    # The text of a thought comes before its summary.
    (
      [thought('s', content=[{'type': 'reasoning_text', 'text': 'h'}])],
      [assistant('', 'h')],
    ),
    ([thought('a', 'b')], [assistant('', 'a\n\nb')]),
    ([thought('a'), thought('b')], [assistant('', 'a\n\nb')]),
    ([thought('a', encrypted_content='gA')], [assistant('', 'a')]),
    # Outputs.
    ([output('x', [text('a'), text('b')])], [tool('x', 'ab')]),
    ([output('x', {'content': 'a', 'success': True})], [tool('x', 'a')]),
    ([output('x', {'n': 1})], [tool('x', '{"n": 1}')]),
    ([output('x', [])], [tool('x', '')]),
    # Other calls.
    (
      [
        {
          'type': 'custom_tool_call',
          'call_id': 'x',
          'name': 'patch',
          'input': '+a',
        },
        output('x', 'ok', 'custom_tool_call_output'),
      ],
      [assistant(calls=[call('x', 'patch', input='+a')]), tool('x', 'ok')],
    ),
    (
      [
        {
          'type': 'local_shell_call',
          'call_id': 'x',
          'action': {'type': 'exec', 'command': ['ls'], 'user': None},
        },
        output('x', 'a.txt', 'local_shell_call_output'),
      ],
      [
        assistant(
          calls=[call('x', 'local_shell', type='exec', command=['ls'])]
        ),
        tool('x', 'a.txt'),
      ],
    ),
    (
      [
        {
          'type': 'shell_call',
          'call_id': 'x',
          'action': {'commands': ['ls']},
        },
        output('x', [{'stdout': 'a', 'stderr': ''}], 'shell_call_output'),
      ],
      [
        assistant(calls=[call('x', 'shell', commands=['ls'])]),
        tool('x', '[{"stdout": "a", "stderr": ""}]'),
      ],
    ),
    (
      [
        {
          'type': 'apply_patch_call',
          'call_id': 'x',
          'operation': {'type': 'delete_file', 'path': 'a'},
        }
      ],
      [
        assistant(
          calls=[call('x', 'apply_patch', type='delete_file', path='a')]
        )
      ],
    ),
    # A server's tool answers in the item itself.
    (
      [
        {
          'type': 'mcp_call',
          'id': 'x',
          'name': 'f',
          'arguments': '{"n": 1}',
          'output': '4',
        }
      ],
      [assistant(calls=[call('x', n=1)]), tool('x', '4', name='f')],
    ),
    (
      [
        {
          'type': 'code_interpreter_call',
          'id': 'x',
          'code': '2 + 2',
          'outputs': [{'type': 'logs', 'logs': '4'}],
        }
      ],
      [
        assistant(calls=[call('x', 'code_interpreter', code='2 + 2')]),
        tool('x', '4', name='code_interpreter'),
      ],
    ),
    # Messages of Chat Completions between the items.
    (
      [
        {
          'role': 'assistant',
          'content': None,
          'reasoning_content': 'h',
          'tool_calls': [call('x')],
        },
        {'role': 'tool', 'tool_call_id': 'x', 'content': '4'},
      ],
      [assistant('', 'h', [call('x')]), tool('x', '4')],
    ),
  ],
)
def test_turns(items, turns):
  assert read(*items)[0] == turns


def test_items_without_words_are_counted():
  items = [{'type': 'ghost_snapshot'}, {'type': 'mcp_approval_request'}]
  turns, _, left_out = read(*items, agent('a'))
  assert turns == [assistant('a')]
  assert left_out == {'ghost_snapshot': 1, 'mcp_approval_request': 1}


def test_tools_that_a_server_listed():
  listed = {'name': 'f', 'description': 'Adds.', 'input_schema': {'a': 1}}
  function = {'name': 'f', 'description': 'Adds.', 'parameters': {'a': 1}}
  item = {'type': 'mcp_list_tools', 'tools': [listed]}
  assert read(item)[1] == [{'type': 'function', 'function': function}]


FLAT = {'type': 'function', 'name': 'f', 'description': 'Adds.', 'strict': True}
TEXT = {
  'type': 'object',
  'properties': {'input': {'type': 'string'}},
  'required': ['input'],
}


@pytest.mark.parametrize(
  ('tools', 'functions'),
  [
    (None, []),
    ([], []),
    (
      [{**FLAT, 'parameters': {'a': 1}}],
      [
        {
          'name': 'f',
          'description': 'Adds.',
          'parameters': {'a': 1},
          'strict': True,
        }
      ],
    ),
    ([{'name': 'f', 'parameters': None}], [{'name': 'f'}]),
    ([{'type': 'function', 'function': {'name': 'f'}}], [{'name': 'f'}]),
    ([{'type': 'custom', 'name': 'p'}], [{'name': 'p', 'parameters': TEXT}]),
    ([{'type': 'namespace', 'tools': [{'name': 'f'}]}], [{'name': 'f'}]),
    # Its tools are in an item.
    ([{'type': 'mcp', 'server_url': 'u'}], []),
  ],
)
def test_schemas(tools, functions):
  expected = [{'type': 'function', 'function': f} for f in functions]
  assert response_items.schemas(tools) == expected


@pytest.mark.parametrize(
  ('tools', 'error'),
  [
    ('f', 'tools is a string, expected a list of schemas'),
    (['f'], 'a tool is a string, expected a schema'),
    (
      [{'type': 'web_search'}],
      "tool 'web_search' has no schema, so that no chat template can show it; "
      'tools of the API itself are not supported',
    ),
  ],
)
def test_tools_that_are_malformed(tools, error):
  with pytest.raises(Malformed) as raised:
    response_items.schemas(tools)
  assert str(raised.value) == error


@pytest.mark.parametrize(
  ('item', 'error'),
  [
    # Words that the row does not have.
    (thought(), f"item 1: 'reasoning' has no text: {ENCRYPTED}"),
    (
      thought(encrypted_content='gA'),
      f"item 1: 'reasoning' has no text: {ENCRYPTED}",
    ),
    (thought(''), f"item 1: 'reasoning' has no text: {ENCRYPTED}"),
    (
      {'type': 'compaction', 'encrypted_content': 'gA'},
      f"item 1: 'compaction' has no text: {ENCRYPTED}",
    ),
    (
      {'type': 'item_reference', 'id': 'm'},
      'item 1: item_reference: its text is not in the row',
    ),
    (
      {'type': 'web_search_call', 'action': {'query': 'a'}},
      'item 1: web_search_call: its results are not in the row',
    ),
    (
      {'type': 'code_interpreter_call', 'code': '1', 'outputs': None},
      'item 1: code_interpreter_call: its results are not in the row',
    ),
    # What has no text form.
    (
      user({'type': 'input_image', 'image_url': 'u'}),
      f"item 1: 'input_image' {NO_TEXT}",
    ),
    (
      output('x', [{'type': 'input_file'}]),
      f"item 1: 'input_file' {NO_TEXT}",
    ),
    ({'type': 'computer_call'}, f"item 1: 'computer_call' {NO_TEXT}"),
    ({'type': 'of_tomorrow'}, f"item 1: 'of_tomorrow' {NO_TEXT}"),
    # Errors.
    ('a', 'item 1 is a string, expected an object'),
    ({'content': 'a'}, 'item 1: type is null, expected a name'),
    ({'type': 'message'}, 'item 1: role is null, expected a name'),
    ({'role': 'user', 'content': 7}, 'item 1: content is a number, expected'),
    (user(text(None)), 'item 1: input_text is null, expected a string'),
    (output('x', None), 'item 1: the output is null, expected text'),
    (use('x', name=''), 'turn 1: tool call 0: name is an empty string, expect'),
  ],
)
def test_malformed_items(item, error):
  with pytest.raises(Malformed) as raised:
    read({'role': 'user', 'content': 'q'}, item)
  assert str(raised.value).startswith(error)


def test_raw_has_the_keys_of_all_items():
  turns = Items(joined=False)
  items = [thought('h'), agent('a', phase='commentary'), use('x')]
  response_items.read(items, turns, [], Counter())
  [turn] = turns.turns()
  assert turn.raw['phase'] == 'commentary'
  assert (turn.raw['call_id'], turn.raw['id']) == ('x', 'rs')
  assert (turn.raw['role'], turn.raw['content']) == ('assistant', 'a')
