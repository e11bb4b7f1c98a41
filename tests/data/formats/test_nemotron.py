"""Prompts with an output."""

import pytest

from isft_jax.data.formats import nemotron, registry
from tests.data.formats.chats import segments
from tests.data.formats.log_rows import NEMOTRON

USER = {'role': 'user', 'content': 'u'}
SYSTEM = {'role': 'system', 'content': 's'}
TURNS = [('user', 'u', 'USER'), ('assistant', 'a', 'AGENT')]


@pytest.mark.parametrize(
  ('row', 'expected'),
  [
    ({'input': [USER], 'output': 'a'}, TURNS),
    ({'input': 'u', 'output': 'a'}, TURNS),
    ({'input': 'u', 'output': 'a', 'system_prompt': None}, TURNS),
    (
      {'input': 'u', 'output': 'a', 'system_prompt': 's'},
      [('system', 's', 'CONTEXT'), *TURNS],
    ),
    # The system prompt is among the messages already.
    (
      {'input': [SYSTEM, USER], 'output': 'a', 'system_prompt': 's'},
      [('system', 's', 'CONTEXT'), *TURNS],
    ),
  ],
)
def test_a_row(row, expected):
  assert registry.matching(row) == ['nemotron']
  assert segments(row) == expected


def test_other_keys_are_metadata():
  assert nemotron.read(NEMOTRON).metadata == {'category': 'math'}


@pytest.mark.parametrize(
  'row',
  [
    # The input is only a part of the prompt.
    {'instruction': 'i', 'input': 'u', 'output': 'a'},
    {'messages': [USER], 'input': 'u', 'output': 'a'},
    {'input': '', 'output': 'a'},
    {'input': [USER], 'output': [USER]},
    {'input': [{'type': 'message'}], 'output': 'a'},
  ],
)
def test_rows_of_no_such_format(row):
  assert not nemotron.matches(row)
