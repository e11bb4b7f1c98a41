"""Traces of verifiers: every token has a message and a mask."""

import copy

import pytest

from isft_jax.data.formats import registry, verifiers
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.messages.conversation import Malformed
from tests.data.formats.chats import columns, segments
from tests.data.formats.log_rows import SCHEMA, VERIFIERS


def node(role, parent, ids, mask=None, **more):
  message = {'role': role, 'content': role}
  tokens = {'token_ids': ids, 'mask': mask or [False] * len(ids)}
  return {'parent': parent, 'message': message, **tokens, **more}


def test_a_run():
  #                       generation prompt, sampled, markers, content
  assert columns(VERIFIERS) == [
    ('USER', [1, 2, 3]),
    ('TEMPLATE', [4]),
    ('AGENT', [5]),
    ('TEMPLATE', [6]),
    ('TOOL', [7]),
  ]
  example = registry.read(VERIFIERS, 'x', 'auto', Rules.default())
  assert example.segment_T.tolist() == [0, 0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
  ('nodes', 'expected'),
  [
    # The system prompt has the schemas of the tools, which are no content.
    (
      [node('system', None, [1, 2], is_content=[False, True])],
      [('CONTEXT', [1, 2])],
    ),
    (
      [node('user', None, [1, 2, 3], is_content=[False, True, False])],
      [('TEMPLATE', [1]), ('USER', [2]), ('TEMPLATE', [3])],
    ),
    # A message of the assistant that no model sampled.
    ([node('assistant', None, [1, 2])], [('CONTEXT', [1, 2])]),
    (
      [node('assistant', None, [1, 2, 3], [False, True, True], sampled=True)],
      [('TEMPLATE', [1]), ('AGENT', [2, 3])],
    ),
  ],
)
def test_who_wrote_a_token(nodes, expected):
  assert columns({'nodes': nodes}) == expected


def test_a_trace_without_ids_is_a_conversation():
  row = copy.deepcopy(VERIFIERS)
  for item in row['nodes']:
    item.pop('token_ids')
  row['nodes'][0]['tools'] = [SCHEMA]
  assert segments(row) == [
    ('user', '2 + 2?', 'USER'),
    ('assistant', 'Let me see.', 'AGENT'),
    ('tool', '4', 'TOOL'),
  ]
  assert verifiers.read(row).tools == [{'type': 'function', 'function': SCHEMA}]
  assert verifiers.read(row).metadata == {'id': 'v'}


@pytest.mark.parametrize(
  ('nodes', 'error'),
  [
    (
      [node('user', None, [1]), node('tool', 0, [2]), node('tool', 0, [3])],
      'the trace has 2 branches, which end at nodes 1, 2; make each branch a '
      'row of its own',
    ),
    (
      [node('user', None, [1]), node('tool', 1, [2])],
      'node 1: parent must be an earlier node',
    ),
    (
      [node('user', None, [1]), node('tool', 0, [])],
      'node 1: no token_ids, but other nodes have some',
    ),
    (
      [node('user', None, [1, 2], [True])],
      'node 0: mask is a list, expected a list of 2, the number of its tokens',
    ),
    (
      [{'parent': None, 'message': {}}, 3],
      'node 1: expected an object with a message',
    ),
  ],
)
def test_malformed_rows(nodes, error):
  with pytest.raises(Malformed) as raised:
    columns({'nodes': nodes})
  assert str(raised.value) == error
