"""Token ids of rollouts: prompts, completions and masks."""

import pytest

from isft_jax.data.messages.conversation import Malformed
from tests.data.formats.chats import columns
from tests.data.formats.log_rows import ANSWER, ROLLOUT_IDS, SCHEMA


def call(prompt, completion, **more):
  return {'prompt_ids': prompt, 'completion_ids': completion, **more}


USER = {'role': 'user', 'content': 'u'}
TOOL = {'role': 'tool', 'content': 't', 'tool_call_id': 'c'}


def with_messages(prompt, tokens):
  completion = [ANSWER]
  return {'prompt': prompt, 'completion': completion, 'tokens': tokens}


@pytest.mark.parametrize(
  ('row', 'expected'),
  [
    # With messages, what is new has the author of its messages.
    (
      ROLLOUT_IDS,
      [
        ('USER', [1, 2, 3]),
        ('AGENT', [4, 5]),
        ('TOOL', [6, 7]),
        ('AGENT', [8]),
      ],
    ),
    (
      {
        'trajectory': [
          with_messages([USER], call([1], [2])),
          with_messages([USER, ANSWER, USER], call([1, 2, 3], [4])),
        ]
      },
      [('USER', [1]), ('AGENT', [2]), ('USER', [3]), ('AGENT', [4])],
    ),
    (
      {
        'trajectory': [with_messages([USER], call([1], [2]))],
        'tool_defs': [SCHEMA],
      },
      [('CONTEXT', [1]), ('AGENT', [2])],
    ),
    # The ids of each turn.
    (
      {
        'turns': [
          {'role': 'system', 'token_ids': [1]},
          {'role': 'user', 'text': 'u', 'token_ids': [2, 3]},
          {'role': 'assistant', 'token_ids': [4]},
          {'role': 'tool', 'token_ids': []},
        ]
      },
      [('CONTEXT', [1]), ('USER', [2, 3]), ('AGENT', [4])],
    ),
    # Without messages, it is the environment's.
    (
      {'turns': [call([1], [2]), call([1, 2, 3], [4])]},
      [('CONTEXT', [1]), ('AGENT', [2]), ('TOOL', [3]), ('AGENT', [4])],
    ),
    (call([1, 2], [3]), [('CONTEXT', [1, 2]), ('AGENT', [3])]),
    (
      {'prompt_token_ids': [1, 2], 'response_ids': [3]},
      [('CONTEXT', [1, 2]), ('AGENT', [3])],
    ),
    # A mask of 0 in a completion: the environment answered.
    (
      call([1], [2, 3, 4], env_mask=[1, 0, 1]),
      [('CONTEXT', [1]), ('AGENT', [2]), ('TOOL', [3]), ('AGENT', [4])],
    ),
    (
      {'turns': [call([1], [2, 3], completion_mask=[True, False])]},
      [('CONTEXT', [1]), ('AGENT', [2]), ('TOOL', [3])],
    ),
    # A mask of 0 without a message: the next messages are still found.
    (
      {
        'trajectory': [
          with_messages([USER], call([1], [2, 3], completion_mask=[1, 0])),
          with_messages([USER, ANSWER, TOOL, USER], call([1, 2, 3, 4], [5])),
        ]
      },
      [
        ('USER', [1]),
        ('AGENT', [2]),
        ('TOOL', [3, 4]),
        ('AGENT', [5]),
      ],
    ),
    # With messages, their authors: of the agent's, or of all others.
    (
      {
        'prompt': [USER],
        'completion': [ANSWER, {**USER, 'author': 'harness'}, ANSWER],
        **call([1], [2, 3, 4], completion_mask=[1, 0, 1]),
      },
      [('USER', [1]), ('AGENT', [2]), ('HARNESS', [3]), ('AGENT', [4])],
    ),
    # Nothing was sampled, but the prompt is there.
    (call([1, 2], []), [('CONTEXT', [1, 2])]),
  ],
)
def test_who_wrote_a_token(row, expected):
  assert columns(row) == expected


@pytest.mark.parametrize(
  ('row', 'error'),
  [
    (
      {'turns': [call([1], [2]), call([1, 3], [4])]},
      'turns 1: token 1 of its prompt is not token 1 of the tokens before: its '
      'history was rewritten, so that the run is not one sequence; make each '
      'call a row of its own',
    ),
    (
      call([1], [2], completion_mask=[1, 0]),
      'row: the mask must be a list with a value per token',
    ),
    (
      call([1], [2], completion_mask=['1']),
      'row: the mask must have 0 and 1',
    ),
    (
      call([1], ['2']),
      'row: completion_ids 0 is a string, expected 0 to 2147483647',
    ),
    (
      {'turns': [call([1], [2]), 3]},
      'turns 1: is a number, expected an object',
    ),
    # OpenEnv joins the prompts of all turns.
    (
      call([1, 1, 2], [2, 3], messages=[ANSWER, TOOL, ANSWER]),
      'the agent has several turns, but prompt_ids is one list without a '
      'mask: the authors of its tokens are unknown',
    ),
    (
      {
        'trajectory': [
          with_messages([USER, TOOL], call([1], [2])),
          with_messages([USER], call([1, 2, 3], [4])),
        ]
      },
      'trajectory 1: its prompt has 1 messages, the calls before have 3: its '
      'history was rewritten',
    ),
  ],
)
def test_malformed_rows(row, error):
  with pytest.raises(Malformed) as raised:
    columns(row)
  assert str(raised.value) == error
