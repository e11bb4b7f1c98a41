"""Tinker's data: targets with a weight are the agent's."""

import copy
import json

import pytest

from isft_jax.data.formats import tinker
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.messages.conversation import Malformed
from tests.data.formats.chats import columns
from tests.data.formats.log_rows import TINKER


def datum(tokens, **inputs):
  """A datum of plain lists: the targets are the tokens after the first."""
  chunk = {'type': 'encoded_text', 'tokens': tokens[:-1]}
  return {
    'model_input': {'chunks': [chunk]},
    'loss_fn_inputs': {'target_tokens': tokens[1:], **inputs},
  }


@pytest.mark.parametrize(
  ('row', 'expected'),
  [
    (TINKER, [('CONTEXT', [1, 2]), ('AGENT', [3, 4])]),
    # The tokens between two completions are the environment's.
    (
      datum([1, 2, 3, 4, 5], weights=[0, 1, 0, 1]),
      [
        ('CONTEXT', [1, 2]),
        ('AGENT', [3]),
        ('TOOL', [4]),
        ('AGENT', [5]),
      ],
    ),
    # Weights may be shares of the sum, or negative.
    (
      datum([1, 2, 3], weights=[0.25, -1]),
      [('CONTEXT', [1]), ('AGENT', [2, 3])],
    ),
    # Reinforcement learning: the mask, whatever the advantage.
    (
      datum([1, 2, 3], mask=[0.0, 1.0], advantages=[0.0, 0.0]),
      [('CONTEXT', [1, 2]), ('AGENT', [3])],
    ),
  ],
)
def test_who_wrote_a_token(row, expected):
  assert columns(row) == expected


def test_columns_of_json_text():
  row = {key: json.dumps(value) for key, value in TINKER.items()}
  assert columns(row) == columns(TINKER)


def test_several_chunks_are_one_sequence():
  row = copy.deepcopy(TINKER)
  row['model_input']['chunks'] = [{'tokens': [1]}, {'tokens': [2, 3]}]
  assert columns(row) == columns(TINKER)


def test_rules_see_roles_and_the_row(tmp_path):
  (tmp_path / 'rules.json').write_text(
    '{"rules": [{"when": {"role": "assistant", "row.by": "human"},'
    ' "author": "DEMONSTRATION"},'
    ' {"when": {"role": "environment"}, "author": "USER"}]}'
  )
  rules = Rules.load(tmp_path / 'rules.json')
  row = {**datum([1, 2, 3, 4], weights=[1, 0, 1]), 'by': 'human'}
  assert columns(row, rules=rules) == [
    ('CONTEXT', [1]),
    ('DEMONSTRATION', [2]),
    ('USER', [3]),
    ('DEMONSTRATION', [4]),
  ]
  assert tinker.read(row).chat.metadata == {'by': 'human'}


def test_a_rule_cannot_leave_out_tokens(tmp_path):
  (tmp_path / 'rules.json').write_text(
    '{"rules": [{"when": {"role": "system"}, "drop": true}]}'
  )
  rules = Rules.load(tmp_path / 'rules.json')
  with pytest.raises(Malformed) as raised:
    columns(TINKER, rules=rules)
  assert str(raised.value) == (
    'a rule leaves out a turn, but the row has its token ids'
  )


@pytest.mark.parametrize(
  ('change', 'error'),
  [
    (
      {'target_tokens': [2, 3]},
      'target_tokens are not the tokens that follow model_input',
    ),
    (
      {'target_tokens': [3, 2, 4]},
      'target_tokens are not the tokens that follow model_input',
    ),
    (
      {'weights': None},
      'loss_fn_inputs has neither weights nor mask: the authors are unknown',
    ),
    ({'weights': [1]}, 'weights must be a list with a number per target'),
    ({'weights': [1, 0, '1']}, 'weights 2 is a string, expected a number'),
    (
      {'target_tokens': {'data': [1, 2], 'shape': [1, 2]}},
      'target_tokens has several numbers per token, expected one',
    ),
  ],
)
def test_malformed_inputs(change, error):
  row = {
    **TINKER,
    'loss_fn_inputs': {**TINKER['loss_fn_inputs'], **change},
  }
  with pytest.raises(Malformed) as raised:
    tinker.read(row)
  assert str(raised.value) == error


def test_images_have_no_tokens():
  row = {**TINKER, 'model_input': {'chunks': [{'type': 'image', 'data': ''}]}}
  with pytest.raises(Malformed) as raised:
    tinker.read(row)
  assert str(raised.value) == ("chunk 0 is of type 'image': it has no tokens")
