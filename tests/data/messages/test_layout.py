"""A rules file can say where an unknown format keeps its messages."""

import copy
import json

import pytest

from isft_jax.data.formats import registry
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.messages.conversation import Malformed
from isft_jax.data.messages.layout import Layout
from isft_jax.types import Provenance as P

STEP = {'speaker': 'bot', 'said': 'Hello.'}
MESSAGE = {'role': 'bot', 'content': 'Hello.'}
SAID = {'role': 'speaker', 'content': 'said'}


@pytest.mark.parametrize(
  ('paths', 'row', 'moved'),
  [
    # Paths of messages.
    ({'messages': 'log'}, {'log': [MESSAGE]}, {}),
    ({'messages': 'run.log'}, {'run': {'log': [MESSAGE]}}, {}),
    (
      {'messages': 'run.log'},
      {'id': 1, 'run': {'log': [MESSAGE], 'score': 2}},
      {'id': 1, 'run': {'score': 2}},
    ),
    ({'messages': 'runs.0.log'}, {'runs': [{'log': [MESSAGE]}]}, {}),
    # Other elements of the list are reported as unused.
    (
      {'messages': 'runs.1.log'},
      {'runs': [{'log': []}, {'log': [MESSAGE], 'score': 2}]},
      {'runs': [{'log': []}, {'score': 2}]},
    ),
    ({'messages': 'log'}, {'log': json.dumps([MESSAGE])}, {}),
    ({'messages': 'run.log'}, {'run': json.dumps({'log': [MESSAGE]})}, {}),
    # Keys of a message.
    (SAID, {'messages': [STEP]}, {}),
    ({'messages': 'log', **SAID}, {'log': [STEP]}, {}),
    (
      {'role': 'by.kind', 'content': 'message.text'},
      {'messages': [{'by': {'kind': 'bot'}, 'message': {'text': 'Hello.'}}]},
      {},
    ),
    # Tools.
    (
      {'messages': 'log', 'tools': 'env.tools'},
      {'log': [MESSAGE], 'env': {'tools': [{'name': 'f'}], 'seed': 3}},
      {'tools': [{'name': 'f'}], 'env': {'seed': 3}},
    ),
  ],
)
def test_messages_are_moved(paths, row, moved):
  before = copy.deepcopy(row)
  layout = Layout.from_json(paths)
  found = layout.moved(row)
  (message,) = found.pop('messages')
  assert found == moved
  # The role's own key stays, for rules.
  assert {k: message[k] for k in message.keys() - {'speaker', 'by'}} == MESSAGE
  assert row == before
  assert Layout.from_json(layout.to_json()) == layout


@pytest.mark.parametrize(
  ('row', 'error'),
  [
    ({'log': 'a'}, 'log is a string'),
    ({'a': 1}, 'log is null'),
    ([MESSAGE], 'log is null'),
    (None, 'log is null'),
  ],
)
def test_a_path_that_leads_nowhere_is_malformed(row, error):
  with pytest.raises(Malformed, match=f'^{error}, expected a list of messages'):
    Layout(messages='log').moved(row)


def test_a_file_of_five_lines_reads_an_unknown_format(tmp_path):
  path = tmp_path / 'rules.json'
  path.write_text("""
    {"messages": "trajectory.steps", "role": "speaker", "content": "said",
     "rules": [{"when": {"speaker": "narrator"}, "drop": true},
               {"when": {"role": "customer"}, "role": "user"},
               {"when": {"role": "shop"}, "role": "assistant"},
               {"when": {"exit_code": {"exists": true}}, "role": "tool"}]}
  """)
  steps = [
    {'speaker': 'narrator', 'said': 'It was a dark night.'},
    {'speaker': 'customer', 'said': 'Where is it?'},
    {'speaker': 'shop', 'said': 'Let me see.', 'mood': 'calm'},
    {'exit_code': 0, 'said': 'in Ghent'},
    {'speaker': 'shop', 'said': 'In Ghent.'},
  ]
  row = {'id': 'a', 'trajectory': {'steps': steps, 'cost': 2}}
  found = registry.parse(row, 'a', 'auto', Rules.load(path))
  assert [
    (segment.role, segment.text, segment.provenance)
    for segment in found.result.segments
  ] == [
    ('user', 'Where is it?', P.USER),
    ('assistant', 'Let me see.', P.AGENT),
    ('tool', 'in Ghent', P.TOOL),
    ('assistant', 'In Ghent.', P.AGENT),
  ]
  assert found.left_out == {'narrator': 1}
  assert found.unused == {'row.trajectory', 'message.mood'}
