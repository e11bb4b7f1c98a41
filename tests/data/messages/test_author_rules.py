"""Who wrote a turn: the message, then rules, then the format, then the role."""

import copy
import json
import re

import pytest

from isft_jax.data.formats import registry
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.messages.conversation import Chat, Malformed, Turn
from isft_jax.data.messages.normalize import normalised
from isft_jax.types import Part, Provenance, Segment, Trajectory, Verdict

P, V = Provenance, Verdict


def rules(tmp_path, *items):
  path = tmp_path / 'rules.json'
  path.write_text(json.dumps({'rules': items}))
  return Rules.load(path)


def one(rules, known=None, metadata=None, **found):
  """The segment of a row's only message; `known`: to the format."""
  found = {'role': 'assistant', 'content': '0123456789', **found}
  turn = Turn(normalised(found, 0), known, found)
  chat = Chat([turn], None, metadata or {})
  (segment,) = rules.trajectory('a', chat).segments
  return segment


# ------------------------------------------------------------------- defaults


@pytest.mark.parametrize(
  ('role', 'author'),
  [
    ('system', P.CONTEXT),
    ('developer', P.CONTEXT),
    ('user', P.USER),
    ('assistant', P.AGENT),
    ('tool', P.TOOL),
    ('function', P.TOOL),
    ('ipython', P.TOOL),
    ('environment', P.TOOL),
  ],
)
def test_by_role(role, author):
  segment = one(Rules.default(), role=role)
  assert (segment.provenance, segment.verdict) == (author, V.UNKNOWN)


@pytest.mark.parametrize('role', ['critic', 'Critic', 'a' * 40])
def test_a_role_that_no_rule_knows_is_malformed(role):
  with pytest.raises(Malformed) as raised:
    one(Rules.default(), role=role)
  assert str(raised.value) == (
    f"turn 0: the author of role '{role}' is unknown; add a rule with --authors"
  )


def test_a_segment_is_the_whole_turn():
  chat = Chat(
    [
      Turn({'role': 'user', 'content': ''}, None, {'role': 'user'}),
      Turn(
        {'role': 'tool', 'content': 'a', 'name': 'f', 'tool_call_id': 'c'},
        None,
        {},
      ),
    ],
    [{'name': 'f'}],
    {},
  )
  assert Rules.default().trajectory('a', chat) == Trajectory(
    'a',
    (
      Segment('user', '', P.USER),
      Segment('tool', 'a', P.TOOL, fields={'name': 'f', 'tool_call_id': 'c'}),
    ),
    ({'name': 'f'},),
  )


# ----------------------------------------------------------------- precedence


@pytest.mark.parametrize(
  ('own', 'by_rule', 'known', 'author'),
  [
    (None, None, None, P.AGENT),
    (None, None, P.CONTEXT, P.CONTEXT),
    (None, 'HARNESS', P.CONTEXT, P.HARNESS),
    ('demonstration', 'HARNESS', P.CONTEXT, P.DEMONSTRATION),
    ('nobody', 'HARNESS', P.CONTEXT, P.HARNESS),
    ('nobody', None, P.CONTEXT, P.CONTEXT),
  ],
)
def test_the_author(own, by_rule, known, author, tmp_path):
  items = [{'when': {}, 'author': by_rule}] if by_rule else []
  segment = one(rules(tmp_path, *items), known, author=own)
  assert segment.provenance is author
  assert segment.fields == ({'author': own} if own == 'nobody' else {})


@pytest.mark.parametrize(
  ('own', 'by_rule', 'verdict'),
  [
    (None, None, V.UNKNOWN),
    (None, 'WRONG', V.WRONG),
    (True, 'WRONG', V.RIGHT),
    (0, 'WRONG', V.UNKNOWN),
    ('fine', 'WRONG', V.WRONG),
  ],
)
def test_the_verdict(own, by_rule, verdict, tmp_path):
  items = [{'when': {}, 'verdict': by_rule}] if by_rule else []
  segment = one(rules(tmp_path, *items), verdict=own)
  assert segment.verdict is verdict


def test_the_first_rule_that_decides_decides(tmp_path):
  found = rules(
    tmp_path,
    {'when': {'role': 'user'}, 'author': 'HARNESS'},
    {'when': {'role': 'assistant', 'name': 'x'}, 'author': 'USER'},
    {'when': {'name': 'expert'}, 'verdict': 'right'},
    {'when': {'name': 'expert'}, 'author': 'demonstration', 'verdict': 'WRONG'},
    {'when': {}, 'author': 'TOOL', 'verdict': 'UNKNOWN'},
  )
  expert = one(found, name='expert')
  assert (expert.provenance, expert.verdict) == (P.DEMONSTRATION, V.RIGHT)
  other = one(found, name='y')
  assert (other.provenance, other.verdict) == (P.TOOL, V.UNKNOWN)


@pytest.mark.parametrize(
  ('when', 'found', 'holds'),
  [
    ({'row.source': 'human'}, {}, True),
    ({'row.meta.n': 3}, {}, True),
    ({'source': 'human'}, {}, False),
    ({'role': 'assistant', 'row.source': 'policy'}, {}, False),
    # The message as found: before it was normalised, and with its text.
    ({'role': 'function'}, {'role': 'function'}, True),
    ({'content': None}, {'content': None}, True),
    ({'content': 'ab'}, {'content': ['a', 'b']}, True),
    ({'author': 'policy-7'}, {'author': 'policy-7'}, True),
    ({'tool_calls.0.name': 'f'}, {'tool_calls': [{'name': 'f'}]}, True),
  ],
)
def test_what_rules_see(when, found, holds, tmp_path):
  ruled = rules(tmp_path, {'when': when, 'author': 'HARNESS'})
  metadata = {'source': 'human', 'meta': {'n': 3}}
  segment = one(ruled, metadata=metadata, **found)
  assert (segment.provenance == P.HARNESS) == holds


def test_role_and_content_are_seen_in_formats_that_call_them_otherwise(
  tmp_path,
):
  when = {'role': 'assistant', 'content': {'matches': 'b'}, 'from': 'gpt'}
  ruled = rules(tmp_path, {'when': when, 'author': 'DEMONSTRATION'})
  found = {'from': 'gpt', 'value': 'abc'}
  turn = Turn({'role': 'assistant', 'content': 'abc'}, None, found)
  (segment,) = ruled.trajectory('a', Chat([turn], None, {})).segments
  assert segment.provenance == P.DEMONSTRATION


def test_spans_are_counted_in_the_normalised_text():
  segment = one(
    Rules.default(), content=['01', '23'], spans=[[1, 4, 'tool', 'wrong']]
  )
  assert segment.text == '0123'
  assert segment.parts == (Part(1, 4, P.TOOL, V.WRONG),)
  assert segment.fields == {}
  with pytest.raises(Malformed, match=r'^turn 0: a span ends at 11, '):
    one(Rules.default(), spans=[[0, 11, 'tool']])


# --------------------------------------------------- roles, messages left out

READABLE = [
  ({'messages': [{'role': 'bot_7', 'content': 'a'}]}, {'role': 'bot_7'}),
  ({'conversations': [{'from': 'bot_7', 'value': 'a'}]}, {'from': 'bot_7'}),
  ({'conversations': [{'from': 'bot_7', 'value': 'a'}]}, {'role': 'bot_7'}),
  ({'turns': [{'role': 'bot_7', 'text': 'a'}]}, {'role': 'bot_7'}),
  ({'steps': [{'source': 'bot_7', 'message': 'a'}]}, {'role': 'bot_7'}),
  # Names of chat templates match, too.
  ({'conversations': [{'from': 'human', 'value': 'a'}]}, {'role': 'user'}),
  ({'steps': [{'source': 'user', 'message': 'a'}]}, {'role': 'user'}),
]


@pytest.mark.parametrize(('row', 'when'), READABLE)
def test_a_rule_renames_a_role_in_any_format(row, when, tmp_path):
  before = copy.deepcopy(row)
  found = rules(tmp_path, {'when': when, 'role': 'assistant'})
  trajectory = registry.read(row, 'x', 'auto', found)
  assert trajectory.segments == (Segment('assistant', 'a', P.AGENT),)
  assert row == before


@pytest.mark.parametrize(('row', 'when'), READABLE)
def test_a_rule_leaves_a_message_out(row, when, tmp_path):
  (key, items), *_ = row.items()
  other = {k: 'user' if v == 'bot_7' else v for k, v in items[0].items()}
  other = {k: 'system' if v == 'human' else v for k, v in other.items()}
  if 'user' in when.values():
    other = {k: 'system' if v == 'user' else v for k, v in other.items()}
  found = rules(tmp_path, {'when': when, 'drop': True})
  parsed = registry.parse({key: [*items, other]}, 'x', 'auto', found)
  assert len(parsed.result.segments) == 1
  assert sum(parsed.left_out.values()) == 1


def test_all_rules_test_the_name_that_the_row_has(tmp_path):
  found = rules(
    tmp_path,
    {'when': {'role': 'a'}, 'role': 'user'},
    {'when': {'role': 'user'}, 'role': 'tool'},
    {'when': {'role': 'a'}, 'author': 'HARNESS'},
    {'when': {'role': 'user'}, 'author': 'CONTEXT'},
  )
  row = {'messages': [{'role': role, 'content': ''} for role in ('a', 'user')]}
  trajectory = registry.read(row, 'x', 'auto', found)
  assert [(s.role, s.provenance, s.fields) for s in trajectory.segments] == [
    ('user', P.HARNESS, {}),
    ('tool', P.CONTEXT, {}),
  ]


def test_a_rule_keeps_a_role_that_would_be_renamed(tmp_path):
  found = rules(tmp_path, {'when': {'role': 'model'}, 'role': 'model'})
  segment = one(Rules.default(), role='model')
  assert (segment.role, segment.provenance) == ('assistant', P.AGENT)
  row = {'messages': [{'role': 'model', 'content': '', 'author': 'agent'}]}
  (segment,) = registry.read(row, 'x', 'auto', found).segments
  assert (segment.role, segment.provenance) == ('model', P.AGENT)


# -------------------------------------------------- flags of other trainers


@pytest.mark.parametrize(
  ('flags', 'verdict'),
  [
    ({'weight': 0}, V.WRONG),
    ({'weight': 0.0}, V.WRONG),
    ({'train': False}, V.WRONG),
    ({'training': False}, V.WRONG),
    ({'loss': False}, V.WRONG),
    ({'loss': 0}, V.WRONG),
    ({'loss_weight': 0.0}, V.WRONG),
    # To be imitated, which does not make the claim right.
    ({'weight': 1}, V.UNKNOWN),
    ({'train': True}, V.UNKNOWN),
    # Not flags.
    ({'weight': 0.5}, V.UNKNOWN),
    ({'weight': '0'}, V.UNKNOWN),
    ({'loss': 0.0}, V.UNKNOWN),
    ({'train': None}, V.UNKNOWN),
    # A verdict says more.
    ({'weight': 0, 'verdict': 'right'}, V.RIGHT),
  ],
)
def test_a_flag_is_a_verdict_of_the_agents_turn(flags, verdict):
  segment = one(Rules.default(), **flags)
  assert (segment.provenance, segment.verdict) == (P.AGENT, verdict)
  # Other authors are no question of imitation.
  world = one(Rules.default(), role='user', **flags)
  expected = V.RIGHT if 'verdict' in flags else V.UNKNOWN
  assert (world.provenance, world.verdict) == (P.USER, expected)


def test_rules_decide_before_flags(tmp_path):
  found = rules(
    tmp_path,
    {'when': {'weight': 1}, 'author': 'DEMONSTRATION'},
    {'when': {'weight': 0, 'role': 'assistant'}, 'verdict': 'UNKNOWN'},
  )
  assert one(found, weight=1).provenance == P.DEMONSTRATION
  ignored = one(found, weight=0)
  assert (ignored.provenance, ignored.verdict) == (P.AGENT, V.UNKNOWN)


# ----------------------------------------------------------------- rules files


def test_rules_say_what_is_in_force(tmp_path):
  found = rules(
    tmp_path,
    {
      'when': {'role': 'user', 'content': {'matches': '^Retry'}},
      'author': 'harness',
    },
    {'when': {}, 'verdict': 'right'},
  )
  assert found.describe().splitlines() == [
    'annotations of the message                  its author, verdict, spans',
    "role = 'user' and content matches '^Retry'  HARNESS",
    'any message                                 RIGHT',
    'the format                                  for example observations of '
    'swe_agent',
    'role system, developer                      CONTEXT',
    'role user                                   USER',
    'role assistant                              AGENT',
    'role tool, function, ipython, environment   TOOL',
    'any other role                              the row is malformed',
  ]


def test_edits_and_the_layout_are_in_force_too(tmp_path):
  content = {
    'messages': 'run.log',
    'content': 'said',
    'rules': [
      {'when': {'role': 'bot'}, 'author': 'AGENT', 'role': 'assistant'},
      {'when': {'role': 'log'}, 'drop': True},
    ],
  }
  path = tmp_path / 'rules.json'
  path.write_text(json.dumps(content))
  found = Rules.load(path)
  assert found.to_json() == content
  lines = [re.split(' {2,}', line) for line in found.describe().splitlines()]
  assert lines[:5] == [
    ['messages of the rules', 'run.log'],
    ['content of the rules', 'said'],
    ['annotations of the message', 'its author, verdict, spans'],
    ["role = 'bot'", 'AGENT, the role assistant'],
    ["role = 'log'", 'left out'],
  ]


def test_rules_have_one_spelling_that_loads(tmp_path):
  items = [
    {'when': {'role': ['a', 'b'], 'name': None}, 'author': 'tool'},
    {'verdict': 'Right', 'when': {'x': {'exists': True}}, 'author': 'AGENT'},
  ]
  found = rules(tmp_path, *items)
  spelled = {
    'rules': [
      {'when': {'name': None, 'role': ['a', 'b']}, 'author': 'TOOL'},
      {'when': {'x': {'exists': True}}, 'author': 'AGENT', 'verdict': 'RIGHT'},
    ]
  }
  assert json.dumps(found.to_json()) == json.dumps(spelled)
  again = rules(tmp_path, *spelled['rules'])
  assert again.to_json() == spelled
  assert Rules.default().to_json() == {'rules': []}


AUTHORS = 'CONTEXT, USER, TOOL, AGENT, DEMONSTRATION, HARNESS'
GOOD = {'when': {}, 'author': 'TOOL'}
SHAPE = 'expected {"when": {...}, "author": "..."}'


@pytest.mark.parametrize(
  ('content', 'error'),
  [
    ('{', 'Expecting property name enclosed in double quotes at character 2'),
    ('[]', 'expected {"rules": [...]}'),
    ('{}', 'expected {"rules": [...]}'),
    (
      '{"rules": [], "x": 1}',
      'unknown x; expected rules, messages, role, content, tools',
    ),
    ('{"messages": 7}', 'messages is a number, expected a path of keys'),
    (
      '{"messages": "a", "role": ""}',
      'role is an empty string, expected a path of keys',
    ),
    ('{"rules": {}}', 'rules is an object, expected a list'),
    ([GOOD, 7], f'rule 2: {SHAPE}'),
    ([{'author': 'TOOL'}], f'rule 1: {SHAPE}'),
    ([{'when': [], 'author': 'TOOL'}], f'rule 1: {SHAPE}'),
    ([{'when': {}}], 'rule 1: has none of author, verdict, role, drop'),
    (
      [{**GOOD, 'weight': 1}],
      'rule 1: unknown weight; expected when, author, verdict, role, drop',
    ),
    (
      [GOOD, {'when': {}, 'author': 'expert'}],
      f"rule 2: author must be one of {AUTHORS} (got 'expert')",
    ),
    (
      [{'when': {}, 'author': 'PAD'}],
      f"rule 1: author must be one of {AUTHORS} (got 'PAD')",
    ),
    (
      [{'when': {}, 'author': 'template'}],
      f"rule 1: author must be one of {AUTHORS} (got 'template')",
    ),
    (
      [{'when': {}, 'author': None}],
      f'rule 1: author must be one of {AUTHORS} (got None)',
    ),
    (
      [{'when': {}, 'verdict': 1}],
      'rule 1: verdict must be one of UNKNOWN, RIGHT, WRONG (got 1)',
    ),
    (
      [{'when': {}, 'role': ''}],
      'rule 1: role is an empty string, expected a name',
    ),
    ([{'when': {}, 'role': 7}], 'rule 1: role is a number, expected a name'),
    (
      [{'when': {}, 'drop': 'yes'}],
      'rule 1: drop is a string, expected true or false',
    ),
    (
      [{'when': {'role': []}, 'author': 'TOOL'}],
      'rule 1: role: expected a list of strings or numbers',
    ),
    (
      [{'when': {'role': {'matches': '['}}, 'author': 'TOOL'}],
      "rule 1: role: '[' is not a regular expression: unterminated character "
      'set at position 0',
    ),
  ],
)
def test_a_rules_file_that_is_wrong_says_where(content, error, tmp_path):
  path = tmp_path / 'rules.json'
  if not isinstance(content, str):
    content = json.dumps({'rules': content})
  path.write_text(content)
  with pytest.raises(ValueError) as raised:
    Rules.load(path)
  assert str(raised.value) == f'{path}: {error}'


def test_an_absent_rules_file_cannot_be_opened(tmp_path):
  with pytest.raises(OSError):
    Rules.load(tmp_path / 'absent.json')
