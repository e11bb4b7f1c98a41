"""Who wrote a turn: the message, then rules, then the format, then the role."""

import json

import pytest

from isft_jax.data.formats.author_rules import Rules
from isft_jax.data.formats.conversation import Chat, Malformed, Turn
from isft_jax.data.formats.normalize import normalised
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


@pytest.mark.parametrize('role', ['critic', 'Assistant', 'a' * 40])
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
    ('[]', 'expected {"rules": [...]} and no other key'),
    ('{"rules": [], "x": 1}', 'expected {"rules": [...]} and no other key'),
    ('{"rules": {}}', 'rules is an object, expected a list'),
    ([GOOD, 7], f'rule 2: {SHAPE}'),
    ([{'author': 'TOOL'}], f'rule 1: {SHAPE}'),
    ([{'when': [], 'author': 'TOOL'}], f'rule 1: {SHAPE}'),
    ([{'when': {}}], 'rule 1: has neither author nor verdict'),
    (
      [{**GOOD, 'weight': 1}],
      'rule 1: unknown weight; expected when, author, verdict',
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
