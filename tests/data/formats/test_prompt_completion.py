"""A conversation in two columns is one conversation."""

import pytest

from isft_jax.data.formats import prompt_completion, registry
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.messages.conversation import Malformed

SYSTEM = {'role': 'system', 'content': 's'}
USER = {'role': 'user', 'content': 'u'}
AGENT = {'role': 'assistant', 'content': 'a'}
TOOL = {'role': 'tool', 'content': '4'}


@pytest.mark.parametrize(
  ('row', 'messages', 'metadata'),
  [
    ({'prompt': [USER], 'completion': [AGENT]}, [USER, AGENT], {}),
    # As verifiers saves rollouts.
    (
      {
        'prompt': [SYSTEM, USER],
        'completion': [AGENT, TOOL, AGENT],
        'answer': 'x',
        'reward': 1.0,
      },
      [SYSTEM, USER, AGENT, TOOL, AGENT],
      {'answer': 'x', 'reward': 1.0},
    ),
    # Text in one of the columns.
    ({'prompt': 'u', 'completion': [AGENT]}, [USER, AGENT], {}),
    ({'prompt': [USER], 'completion': 'a'}, [USER, AGENT], {}),
    ({'prompt': [USER], 'response': 'a'}, [USER, AGENT], {}),
    ({'messages': [USER], 'completion': [AGENT]}, [USER, AGENT], {}),
    # JSON, as tables have it.
    (
      {
        'prompt': '[{"role": "user", "content": "u"}]',
        'completion': '[{"role": "assistant", "content": "a"}]',
      },
      [USER, AGENT],
      {},
    ),
    (
      {'system_prompt': 's', 'prompt': [USER], 'completion': [AGENT]},
      [SYSTEM, USER, AGENT],
      {},
    ),
  ],
)
def test_both_columns_are_read(row, messages, metadata):
  assert registry.matching(row) == ['prompt_completion']
  chat = prompt_completion.read(row)
  assert [turn.message for turn in chat.turns] == messages
  assert chat.metadata == metadata


@pytest.mark.parametrize('key', ['completion', 'response'])
def test_two_texts_have_an_error_with_the_remedy(key):
  with pytest.raises(
    Malformed, match='--format=prompt_completion reads two texts as a question'
  ):
    registry.read({'prompt': 'Hi', key: 'Yes.'}, 'a', 'auto', Rules())


def test_two_texts_are_read_only_on_request():
  row = {'prompt': 'u', 'completion': 'a'}
  assert registry.matching(row) == []
  assert not prompt_completion.matches(row)
  found = registry.read(row, 'x', 'prompt_completion', Rules.default())
  assert [segment.message() for segment in found.segments] == [USER, AGENT]


@pytest.mark.parametrize(
  'row',
  [
    None,
    [USER, AGENT],
    {'prompt': [USER]},
    {'prompt': [USER], 'completion': []},
    {'prompt': [USER], 'completion': 7},
    {'prompt': [USER], 'completion': None},
    {'prompt': [], 'completion': [AGENT]},
    # A conversation that is complete.
    {'messages': [USER, AGENT], 'completion': 'b'},
  ],
)
def test_rows_of_another_form(row):
  assert not prompt_completion.matches(row)
  with pytest.raises(Malformed, match=r'^expected prompt and completion: '):
    prompt_completion.read(row)


def test_two_answers_to_one_prompt_are_malformed():
  row = {'prompt': [USER], 'chosen': [AGENT], 'rejected': [AGENT]}
  with pytest.raises(Malformed, match='the row also has chosen'):
    registry.read(row, 'x', 'auto', Rules.default())
