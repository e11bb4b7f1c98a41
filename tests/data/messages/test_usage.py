"""Every key that nothing uses is reported, and no other."""

import json

import pytest

from isft_jax.data.formats import registry
from isft_jax.data.messages.author_rules import Rules

CALL = {'type': 'function', 'function': {'name': 'f', 'arguments': {}}}
USER = {'role': 'user', 'content': 'u'}
AGENT = {'role': 'assistant', 'content': 'a'}


def unused(row, *rules, format='auto', names=()):
  found = registry.parse(
    row, 'x', format, rules[0] if rules else Rules.default(), frozenset(names)
  )
  return sorted(found.unused)


@pytest.mark.parametrize(
  ('fields', 'paths'),
  [
    ({}, []),
    # The row's id, and what holds nothing.
    ({'id': 7, 'extra': None, 'note': '', 'tags': [], 'info': {'a': None}}, []),
    ({'id': 7, 'uuid': 'b'}, ['row.uuid']),
    # Data are reported even if they say no or nothing.
    ({'reward': 0, 'done': False}, ['row.done', 'row.reward']),
    ({'system': 's', 'tools': [{'name': 'f'}], 'tool_defs': []}, []),
    ({'system': 's', 'system_prompt': 's2'}, ['row.system_prompt']),
    ({'response': {'choices': [{}], 'id': 'r'}}, ['row.response']),
    ({'a' * 100: 1}, ['row.' + 'a' * 76]),
  ],
)
def test_keys_of_a_row(fields, paths):
  assert unused({**fields, 'messages': [USER, AGENT]}, format='openai') == paths


@pytest.mark.parametrize(
  ('message', 'names', 'paths'),
  [
    (AGENT, [], []),
    # Annotations, and flags of other trainers.
    ({**AGENT, 'author': 'agent', 'verdict': 'wrong', 'spans': []}, [], []),
    ({**AGENT, 'author': 'policy-7'}, [], ['message.author']),
    ({**AGENT, 'weight': 0}, [], []),
    ({**AGENT, 'weight': 0.5}, [], ['message.weight']),
    # A user's turn is scored as the objective says.
    ({**USER, 'weight': 0}, [], ['message.weight']),
    ({**AGENT, 'loss': 1.83}, [], ['message.loss']),
    # The template decides.
    ({**AGENT, 'name': 'b'}, [], ['message.name']),
    ({**AGENT, 'name': 'b'}, ['name'], []),
    (
      {**AGENT, 'timestamp': 1, 'usage': {'n': 2}, 'audio': None},
      ['name'],
      ['message.timestamp', 'message.usage'],
    ),
    # Parts of content, and calls.
    (
      {**USER, 'content': [{'text': 'a', 'cache_control': {'type': 'x'}}]},
      [],
      ['message.content[].cache_control'],
    ),
    (
      {**AGENT, 'tool_calls': [{**CALL, 'id': 'c', 'index': None}]},
      [],
      ['message.tool_calls[].id'],
    ),
    ({**AGENT, 'tool_calls': [{**CALL, 'id': 'c'}]}, ['id'], []),
  ],
)
def test_keys_of_a_message(message, names, paths):
  assert unused({'messages': [USER, message]}, names=names) == paths


def test_keys_that_rules_test_are_used(tmp_path):
  row = {
    'source': {'name': 'human'},
    'split': 'a',
    'messages': [{**USER, 'mood': 'calm', 'rank': 1}],
  }
  path = tmp_path / 'rules.json'
  when = {'row.source.name': 'human', 'mood': 'calm'}
  path.write_text(json.dumps({'rules': [{'when': when, 'author': 'TOOL'}]}))
  assert unused(row) == [
    'message.mood',
    'message.rank',
    'row.source',
    'row.split',
  ]
  assert unused(row, Rules.load(path)) == ['message.rank', 'row.split']


def test_keys_of_token_ids():
  row = {'id': 'a', 'tokens': [1, 2], 'provenance': [3, 5], 'reward': 1}
  assert unused(row) == ['row.reward']


def test_values_for_the_template():
  kwargs = {'enable_thinking': False, 'mode': 'x', 'date': None}
  row = {'messages': [USER], 'chat_template_kwargs': kwargs}
  found = registry.parse(
    row, 'x', 'auto', Rules.default(), frozenset(['enable_thinking'])
  )
  assert found.result.template_values == {'enable_thinking': False, 'mode': 'x'}
  assert found.unused == {'row.chat_template_kwargs.mode'}
  as_json = {**row, 'chat_template_kwargs': json.dumps(kwargs)}
  assert registry.read(as_json, 'x', 'auto', Rules.default()) == found.result


@pytest.mark.parametrize(
  ('message', 'marks'),
  [
    ({**AGENT, 'verdict': 'wrong', 'author': 'Agent', 'weight': 0}, []),
    ({**AGENT, 'verdict': True, 'train': False, 'loss': 1.83}, []),
    ({**AGENT, 'verdict': None, 'author': '', 'weight': 1.0}, []),
    ({**AGENT, 'verdict': 'incorrect'}, ["verdict 'incorrect'"]),
    ({**AGENT, 'verdict': 3}, ['verdict 3']),
    ({**USER, 'verdict': 'wrng'}, ["verdict 'wrng'"]),
    ({**USER, 'author': 'Alice'}, ["author 'Alice'"]),
    ({**USER, 'author': {'name': 'A'}}, ['author an object']),
    ({**AGENT, 'weight': 'high'}, ["weight 'high'"]),
    ({**AGENT, 'weight': 0.5}, ['weight 0.5']),
    ({**AGENT, 'train': 'no', 'loss': 'no'}, ["loss 'no'", "train 'no'"]),
    ({**AGENT, 'loss_weight': -1}, ['loss_weight -1']),
    # A flag says whether to imitate the agent.
    ({**USER, 'weight': 'high'}, []),
    ({**AGENT, 'verdict': 'x' * 99}, [f"verdict '{'x' * 40}'..."]),
  ],
)
def test_marks_that_have_no_effect_are_told(message, marks):
  row = {
    'messages': [USER, message] if message['role'] != 'user' else [message]
  }
  # A template that shows the key does not make a mark of it.
  for names in ((), ('verdict', 'author', 'weight')):
    parsed = registry.parse(
      row, 'x', 'openai', Rules.default(), frozenset(names)
    )
    assert sorted(parsed.misread) == marks


def test_a_rule_may_give_a_value_its_meaning(tmp_path):
  path = tmp_path / 'rules.json'
  when = {'verdict': 'incorrect'}
  path.write_text(json.dumps({'rules': [{'when': when, 'verdict': 'WRONG'}]}))
  row = {'messages': [USER, {**AGENT, 'verdict': 'incorrect'}]}
  parsed = registry.parse(row, 'x', 'openai', Rules.load(path), frozenset())
  assert not parsed.misread
  assert parsed.result.segments[1].verdict.name == 'WRONG'
