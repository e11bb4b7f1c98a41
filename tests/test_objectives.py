"""The weight of a token, by who wrote it: the design's table, written out."""

import numpy as np
import pytest

from isft_jax import objectives
from isft_jax.objectives import weight_table
from isft_jax.types import Provenance, Verdict

OBJECTIVES = {
  'obs': 'observational',
  'do': 'interventional',
  'agent': 'agent_only',
  'error': 'error_masked',
  'truth': 'truth_only',
  'w': 'weighted(0.25)',
  'near': 'anchored(0.25)',
}
TABLE = """
  author         verdict  obs  do  agent  error  truth  w     near
  PAD            UNKNOWN   0   0     0      0      0    0       0
  PAD            RIGHT     0   0     0      0      0    0       0
  PAD            WRONG     0   0     0      0      0    0       0
  TEMPLATE       UNKNOWN   1   1     0      1      0    1       1
  TEMPLATE       RIGHT     1   1     0      1      0    1       1
  TEMPLATE       WRONG     1   1     0      1      0    1       1
  CONTEXT        UNKNOWN   0   0     0      0      0    0       0
  CONTEXT        RIGHT     0   0     0      0      0    0       0
  CONTEXT        WRONG     0   0     0      0      0    0       0
  USER           UNKNOWN   1   1     0      1      0    1       1
  USER           RIGHT     1   1     0      1      0    1       1
  USER           WRONG     1   1     0      1      0    1       1
  TOOL           UNKNOWN   1   1     0      1      0    1       1
  TOOL           RIGHT     1   1     0      1      0    1       1
  TOOL           WRONG     1   1     0      1      0    1       1
  AGENT          UNKNOWN   1   0     1      1      1    0.25    0.25
  AGENT          RIGHT     1   0     1      1      1    0.25    0.25
  AGENT          WRONG     1   0     1      0      0    0.25    0.25
  DEMONSTRATION  UNKNOWN   1   1     0      1      0    1       1
  DEMONSTRATION  RIGHT     1   1     0      1      0    1       1
  DEMONSTRATION  WRONG     1   1     0      1      0    1       1
  HARNESS        UNKNOWN   1   1     0      1      0    1       1
  HARNESS        RIGHT     1   1     0      1      0    1       1
  HARNESS        WRONG     1   1     0      1      0    1       1
"""

HEADER, *ROWS = (line.split() for line in TABLE.strip().split('\n'))


def test_the_table_names_every_author_every_verdict_and_every_objective():
  assert [row[:2] for row in ROWS] == [
    [author.name, verdict.name] for author in Provenance for verdict in Verdict
  ]
  assert HEADER[2:] == list(OBJECTIVES)
  assert list(OBJECTIVES.values())[:-2] == list(objectives.NAMES)


@pytest.mark.parametrize('column', OBJECTIVES)
def test_the_weight_of_every_author_and_verdict(column):
  table_PV = weight_table(OBJECTIVES[column])
  assert table_PV.dtype == np.float32
  assert [
    (row[0], row[1], table_PV[Provenance[row[0]], Verdict[row[1]]])
    for row in ROWS
  ] == [(row[0], row[1], float(row[HEADER.index(column)])) for row in ROWS]


def test_the_codes_that_records_store_are_fixed_for_good():
  assert {author.name: author.value for author in Provenance} == {
    'PAD': 0,
    'TEMPLATE': 1,
    'CONTEXT': 2,
    'USER': 3,
    'TOOL': 4,
    'AGENT': 5,
    'DEMONSTRATION': 6,
    'HARNESS': 7,
  }
  assert {verdict.name: verdict.value for verdict in Verdict} == {
    'UNKNOWN': 0,
    'RIGHT': 1,
    'WRONG': 2,
  }


@pytest.mark.parametrize(
  ('whole', 'one', 'other'),
  [
    ('observational', 'interventional', 'agent_only'),
    ('error_masked', 'interventional', 'truth_only'),
  ],
)
def test_two_objectives_that_make_up_a_third(whole, one, other):
  np.testing.assert_array_equal(
    weight_table(whole), weight_table(one) + weight_table(other)
  )


@pytest.mark.parametrize(
  ('objective', 'same'),
  [
    ('weighted(0)', 'interventional'),
    ('weighted(1)', 'observational'),
    ('weighted( 1.0 )', 'observational'),
    ('weighted_first(0.5)', 'weighted(0.5)'),
    ('weighted_ends(0.5)', 'weighted(0.5)'),
    ('reverse_anchored_ends(0.5)', 'weighted(0.5)'),
    ('AGENT=1', 'agent_only'),
    (
      'TEMPLATE=1,USER=1,TOOL=1,HARNESS=1,DEMONSTRATION=1',
      'interventional',
    ),
  ],
)
def test_two_ways_to_say_the_same(objective, same):
  np.testing.assert_array_equal(weight_table(objective), weight_table(same))


@pytest.mark.parametrize(
  ('objective', 'weights'),
  [
    ('USER=1,TOOL=0.5', {'USER': 1.0, 'TOOL': 0.5}),
    (' USER = 2 , AGENT = 0.25 ', {'USER': 2.0, 'AGENT': 0.25}),
    ('HARNESS=3', {'HARNESS': 3.0}),
  ],
)
def test_weights_by_author_hold_for_every_verdict_and_others_weigh_nothing(
  objective, weights
):
  expected_PV = [
    [weights.get(author.name, 0.0)] * len(Verdict) for author in Provenance
  ]
  np.testing.assert_array_equal(weight_table(objective), expected_PV)


@pytest.mark.parametrize(
  ('objective', 'message'),
  [
    ('', "unknown objective ''; use one of observational, interventional"),
    ('interventionl', "unknown objective 'interventionl'"),
    ('Interventional', "unknown objective 'Interventional'"),
    (' interventional', "unknown objective ' interventional'"),
    ('weighted', "unknown objective 'weighted'"),
    ('weighted()', r"unknown objective 'weighted\(\)'"),
    ('weighted(0.5', r"unknown objective 'weighted\(0.5'"),
    ('weighted_end(0.5)', r"unknown objective 'weighted_end\(0.5\)'"),
    ('weighted(half)', "'half' is not a weight"),
    ('weighted(-0.5)', "'-0.5' is not a weight"),
    ('weighted(nan)', "'nan' is not a weight"),
    ('weighted(inf)', "'inf' is not a weight"),
    ('PAD=1', "'PAD' cannot be scored; authors are TEMPLATE, USER"),
    ('USER=1,CONTEXT=1', "'CONTEXT' cannot be scored"),
    ('user=1', "'user' cannot be scored"),
    ('NOBODY=1', "'NOBODY' cannot be scored"),
    ('USER=1,', "'' cannot be scored"),
    ('USER=1,TOOL', "'' is not a weight"),
    ('USER=-1', "'-1' is not a weight"),
    ('USER=nan', "'nan' is not a weight"),
    ('USER=1e999', "'1e999' is not a weight"),
    ('USER=1=2', "'1=2' is not a weight"),
  ],
)
def test_what_is_no_objective_is_refused_with_its_reason(objective, message):
  with pytest.raises(ValueError, match=message):
    weight_table(objective)


@pytest.mark.parametrize('objective', ['USER=1e39', 'weighted(1e39)'])
def test_a_weight_that_float32_cannot_hold_is_refused(objective):
  """3.4e38 is the largest float32; beyond, the table would hold infinity."""
  with pytest.raises(ValueError, match="'1e39' is not a weight"):
    weight_table(objective)


@pytest.mark.parametrize(
  ('objective', 'anchor', 'turn_tokens'),
  [
    ('observational', '', 'all'),
    ('weighted(0.5)', '', 'all'),
    ('weighted_first(0.5)', '', 'first'),
    ('weighted_ends(0.5)', '', 'ends'),
    ('anchored(0.5)', 'forward', 'all'),
    ('anchored_first(0.5)', 'forward', 'first'),
    ('anchored_ends(0.5)', 'forward', 'ends'),
    ('reverse_anchored(0.5)', 'reverse', 'all'),
    ('reverse_anchored_ends(0.5)', 'reverse', 'ends'),
    ('averaged(0.5)', 'average', 'all'),
    ('USER=1', '', 'all'),
  ],
)
def test_how_the_agents_tokens_are_held(objective, anchor, turn_tokens):
  assert objectives.anchor(objective) == anchor
  assert objectives.turn_tokens(objective) == turn_tokens
  evidence = 'interventional' if anchor else objective
  assert objectives.evidence(objective) == evidence


def test_an_author_named_twice_is_refused():
  """Which of the two weights was meant cannot be known."""
  with pytest.raises(ValueError, match='USER'):
    weight_table('USER=1,USER=2')


def test_every_call_returns_a_table_of_its_own():
  weight_table('observational')[:] = 7
  assert weight_table('observational').max() == 1


FLOAT32_MAX = '3.4028234663852886e38'
WHOLE_MESSAGES = {
  'interventionl': (
    "unknown objective 'interventionl'; use one of observational, "
    'interventional, agent_only, error_masked, truth_only, weighted(0.3), '
    'anchored(0.3), reverse_anchored(0.3), averaged(0.3), one of these four '
    'with _first or _ends, as in weighted_first(0.3), or weights by author '
    'such as USER=1,TOOL=0.5'
  ),
  'weighted( half )': (
    "objective 'weighted( half )': 'half' is not a weight (a finite number, 0 "
    'or more)'
  ),
  'USER=1,TOOL=x': (
    "objective 'USER=1,TOOL=x': 'x' is not a weight (a finite number, 0 or "
    'more)'
  ),
  'USER=1, PAD =1': (
    "objective 'USER=1, PAD =1': 'PAD' cannot be scored; authors are TEMPLATE, "
    'TOOL, HARNESS, DEMONSTRATION, AGENT, each at most once'
  ),
}


@pytest.mark.parametrize('objective', WHOLE_MESSAGES)
def test_a_refusal_quotes_the_whole_objective_and_says_what_to_write(objective):
  with pytest.raises(ValueError) as error:
    weight_table(objective)
  assert str(error.value) == WHOLE_MESSAGES[objective]


def test_the_largest_weight_is_the_largest_float32():
  table_PV = weight_table(f'USER={FLOAT32_MAX}')
  assert table_PV[Provenance.USER, 0] == np.finfo(np.float32).max


@pytest.mark.parametrize(
  ('text', 'names'),
  [
    ('observational', ['observational']),
    ('observational,weighted(0.1)', ['observational', 'weighted(0.1)']),
    ('agent_only, truth_only,', ['agent_only', 'truth_only']),
    ('USER=1,TOOL=0.5', ['USER=1,TOOL=0.5']),
    (
      'observational,USER=1,TOOL=0.5,weighted(0.1),AGENT=1',
      ['observational', 'USER=1,TOOL=0.5', 'weighted(0.1)', 'AGENT=1'],
    ),
    ('', []),
  ],
)
def test_a_list_is_split_at_the_commas_between_objectives(text, names):
  assert objectives.split_list(text) == names
