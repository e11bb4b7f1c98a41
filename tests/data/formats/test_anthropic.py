"""Anthropic's blocks: each an author's, in the turns that templates know."""

import json
import pathlib

import pytest

from isft_jax.data.formats import anthropic
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.messages.conversation import Malformed
from isft_jax.data.rendering import tokenizer
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.types import Provenance

TEMPLATE = pathlib.Path(__file__).parents[1] / 'templates/qwen3_like.jinja'


def text(words, **more):
  return {'type': 'text', 'text': words, **more}


def thinking(words):
  return {'type': 'thinking', 'thinking': words, 'signature': 'Eo0B'}


def use(id, **input):
  return {'type': 'tool_use', 'id': id, 'name': 'f', 'input': input}


def result(id, content, **more):
  block = {'type': 'tool_result', 'tool_use_id': id, 'content': content}
  return block | more


def user(*content):
  return {'role': 'user', 'content': [*content]}


def agent(*content):
  return {'role': 'assistant', 'content': [*content]}


def call(id, **arguments):
  function = {'name': 'f', 'arguments': arguments}
  return {'id': id, 'type': 'function', 'function': function}


def tool(id, content, **more):
  return {'role': 'tool', 'content': content, 'tool_call_id': id, **more}


def read(*messages, **row):
  chat = anthropic.read({'messages': [*messages], **row})
  return [turn.message for turn in chat.turns]


CACHED = {'cache_control': {'type': 'ephemeral'}}


@pytest.mark.parametrize(
  ('message', 'turns'),
  [
    (
      {'role': 'user', 'content': 'a'},
      [{'role': 'user', 'content': 'a'}],
    ),
    (user(text('a', **CACHED), text('b')), [{'role': 'user', 'content': 'ab'}]),
    (user(), [{'role': 'user', 'content': ''}]),
    # The agent's blocks are one turn.
    (
      agent(thinking('c'), thinking('d'), text('a'), use('x', n=1), use('y')),
      [
        {
          'role': 'assistant',
          'content': 'a',
          'reasoning_content': 'cd',
          'tool_calls': [call('x', n=1), call('y')],
        }
      ],
    ),
    (
      agent(use('x')),
      [{'role': 'assistant', 'content': '', 'tool_calls': [call('x')]}],
    ),
    # The user's are turns of the tool, and of the user, in their order.
    (
      user(result('x', '1'), result('y', [text('2'), text('3')], **CACHED)),
      [tool('x', '1'), tool('y', '23')],
    ),
    (
      user(text('a'), result('x', None), text('b'), text('c')),
      [
        {'role': 'user', 'content': 'a'},
        tool('x', ''),
        {'role': 'user', 'content': 'bc'},
      ],
    ),
    (
      user(result('x', 'no such file', is_error=True)),
      [tool('x', 'no such file', is_error=True)],
    ),
    (user(result('x', '1', is_error=False)), [tool('x', '1')]),
  ],
)
def test_messages(message, turns):
  assert read(message) == turns


@pytest.mark.parametrize('system', ['s', [text('s')], [text('s', **CACHED)]])
def test_a_system_is_the_first_turn(system):
  assert read(user(text('a')), system=system) == [
    {'role': 'system', 'content': 's'},
    {'role': 'user', 'content': 'a'},
  ]


def test_tools_are_schemas_as_templates_take_them():
  parameters = {'type': 'object', 'properties': {'n': {'type': 'integer'}}}
  named = {'name': 'f', 'description': 'Adds.', 'strict': True}
  row = {
    'messages': [user(text('a'))],
    'tools': [
      {**named, 'type': 'custom', 'input_schema': parameters, **CACHED},
    ],
    'model': 'm',
  }
  chat = anthropic.read(row)
  assert chat.tools == [
    {'type': 'function', 'function': {**named, 'parameters': parameters}}
  ]
  assert chat.metadata == {'model': 'm'}


def test_tools_of_a_table_are_json():
  tools = json.dumps([{'name': 'f', 'input_schema': {}}])
  row = {'messages': [{'role': 'user', 'content': 'a'}], 'tools': tools}
  assert anthropic.matches(row)
  function = {'name': 'f', 'parameters': {}}
  assert anthropic.read(row).tools == [
    {'type': 'function', 'function': function}
  ]


def test_the_author_of_each_turn():
  rules = Rules.default()
  row = [
    user(text('2 + 2?')),
    agent(thinking('hm'), use('x')),
    user(result('x', '4'), text('Well?')),
    agent(text('4')),
  ]
  segments = rules.trajectory('x', anthropic.read(row)).segments
  assert [(s.role, s.text, s.provenance.name) for s in segments] == [
    ('user', '2 + 2?', 'USER'),
    ('assistant', '', 'AGENT'),
    ('tool', '4', 'TOOL'),
    ('user', 'Well?', 'USER'),
    ('assistant', '4', 'AGENT'),
  ]


def test_a_template_proves_it_token_by_token():
  """A result between two turns of the user, thinking that a template drops."""
  row = [
    user(text('2 + 2?')),
    agent(thinking('hm'), text('so'), use('x', n=1)),
    user(result('x', '4'), text('Well?')),
    agent(text('It is 4')),
  ]
  encoder = tokenizer.train([TEMPLATE.read_text()], 400)
  renderer = Renderer(encoder, TEMPLATE.read_text())
  found = Rules.default().trajectory('x', anthropic.read(row))
  rendered = renderer.render(found)
  assert rendered.lost['thinking'] == 2
  example = rendered.example
  said = {
    author: encoder.decode(example.tokens_T[example.provenance_T == author])
    for author in (Provenance.USER, Provenance.TOOL, Provenance.AGENT)
  }
  assert said == {
    Provenance.USER: '2 + 2?Well?',
    Provenance.TOOL: '4',
    Provenance.AGENT: 'so\n<tool_call>\n{"name": "f", "arguments": {"n": 1}}\n'
    '</tool_call><|im_end|><think>\n\n</think>\n\nIt is 4<|im_end|>',
  }


def test_rules_see_a_result_as_the_tools_and_with_its_error(tmp_path):
  (tmp_path / 'rules.json').write_text(
    '{"rules": [{"when": {"role": "tool", "is_error": true},'
    ' "author": "HARNESS"},'
    ' {"when": {"role": "user", "content": {"matches": "^<reminder>"}},'
    ' "author": "HARNESS"}]}'
  )
  rules = Rules.load(tmp_path / 'rules.json')
  row = [
    user(result('x', 'a', is_error=True), result('y', 'b')),
    user(result('z', 'c'), text('<reminder>')),
    user(text('d')),
  ]
  segments = rules.trajectory('x', anthropic.read(row)).segments
  p = Provenance
  assert [s.provenance for s in segments] == [
    *(p.HARNESS, p.TOOL),
    *(p.TOOL, p.HARNESS),
    p.USER,
  ]


IMAGE = {'type': 'image', 'source': {'type': 'base64', 'data': ''}}
NO_TEXT = 'which this turn cannot have'


@pytest.mark.parametrize(
  ('message', 'error'),
  [
    (user(text('a'), IMAGE), f"a block is of type 'image', {NO_TEXT}"),
    (user({'type': 'document'}), f"a block is of type 'document', {NO_TEXT}"),
    (user(result('x', [IMAGE])), f"a block is of type 'image', {NO_TEXT}"),
    (user(use('x')), f"a block is of type 'tool_use', {NO_TEXT}"),
    (
      agent(result('x', '')),
      f"block 0 is of type 'tool_result', {NO_TEXT}",
    ),
    (
      agent({'type': 'server_tool_use'}),
      f"block 0 is of type 'server_tool_use', {NO_TEXT}",
    ),
    (
      agent({'type': 'redacted_thinking', 'data': 'x'}, text('a')),
      'block 0 is redacted_thinking: the words of the agent are not in the row',
    ),
    (
      agent(thinking(''), text('a')),
      'a thinking block has no text: the words of the agent are not in the row',
    ),
    (
      agent(use('x'), text('a')),
      'block 1 is text after tool_use; chat templates show thinking, text and '
      'calls in this order',
    ),
    (
      agent(text('a'), thinking('b'), text('c')),
      'block 1 is thinking after text; chat templates show thinking, text and '
      'calls in this order',
    ),
    (
      agent({**use('x'), 'input': '{}'}),
      'input of tool_use is a string, expected an object',
    ),
    (user('a'), 'block 0 is a string'),
    (
      {**user(text('a'), result('x', 'b')), 'spans': [[0, 1, 'tool']]},
      'spans count characters of one text, and this has 2',
    ),
  ],
)
def test_what_a_template_cannot_show_is_malformed(message, error):
  with pytest.raises(Malformed) as raised:
    read(user(text('q')), message)
  assert str(raised.value) == f'message 1: {error}'


def test_a_tool_of_the_api_itself_is_malformed():
  tools = [{'type': 'web_search_20250305', 'name': 'web_search'}]
  with pytest.raises(Malformed, match=r"^tool 'web_search' has no input_sch"):
    read(user(text('a')), tools=tools)


@pytest.mark.parametrize(
  'row',
  [
    None,
    {'messages': []},
    {'messages': [{'role': 'user', 'content': 'a'}]},
    {'messages': [user(text('a'))]},  # OpenAI's parts: read there
    {'messages': [{'role': 'user', 'content': 'a'}], 'system': 's'},
    {'tools': [{'name': 'f', 'input_schema': {}}]},
  ],
)
def test_rows_of_no_such_format(row):
  assert not anthropic.matches(row)
