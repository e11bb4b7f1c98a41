"""Token ids of ATIF: the model's are the agent's, the others by step."""

import pytest

from isft_jax.data.formats import atif_tokens, registry
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.messages.conversation import Malformed
from tests.data.formats.chats import columns, segments
from tests.data.formats.log_rows import ATIF_TOKENS, step


def agent(prompt, completion, *results, **more):
  return {
    'source': 'agent',
    'message': 'a',
    'metrics': step(prompt, completion),
    'observation': {'results': [{'content': text} for text in results]},
    **more,
  }


def said(source, **more):
  return {'source': source, 'message': source, **more}


USER = said('user')
SYSTEM = said('system')


def test_a_run():
  example = registry.read(ATIF_TOKENS, 'x', 'auto', Rules.default())
  # The system prompt and the user's words are in the first prompt.
  #           prompt     completion  result  completion
  tokens = [*(1, 2, 3), *(4, 5), *(6, 7), 8]
  authors = [*(2, 2, 2), *(5, 5), *(4, 4), 5]
  turns = [*(0, 0, 0), *(1, 1), *(2, 2), 3]
  assert example.tokens_T.tolist() == tokens
  assert example.provenance_T.tolist() == authors
  assert example.segment_T.tolist() == turns
  assert example.verdict_T.tolist() == [0] * 8


def test_the_text_of_the_same_row_by_name():
  assert segments(ATIF_TOKENS, 'atif') == [
    ('system', 'Be brief.', 'CONTEXT'),
    ('user', '2 + 2?', 'USER'),
    ('assistant', 'Let me see.', 'AGENT'),
    ('tool', '4', 'TOOL'),
    ('assistant', '4', 'AGENT'),
  ]


@pytest.mark.parametrize(
  ('between', 'author'),
  [
    ([], 'TEMPLATE'),
    ([said('user')], 'USER'),
    ([said('system')], 'CONTEXT'),
    # No model was asked: the scaffold wrote it.
    ([said('agent', llm_call_count=0)], 'HARNESS'),
    # Of several authors, the first as in a token with characters of both.
    ([said('system'), said('user')], 'USER'),
    ([said('user', author='tool'), said('user')], 'TOOL'),
    # Copied from another trajectory: the model did not write it here.
    ([agent([1], [2], is_copied_context=True)], 'CONTEXT'),
  ],
)
def test_who_wrote_what_is_new_in_a_prompt(between, author):
  steps = [
    *(SYSTEM, USER, agent([1, 2], [3])),
    *(*between, agent([1, 2, 3, 4, 5], [6])),
  ]
  assert columns({'steps': steps}) == [
    ('CONTEXT', [1, 2]),
    ('AGENT', [3]),
    (author, [4, 5]),
    ('AGENT', [6]),
  ]


@pytest.mark.parametrize(
  ('before', 'row', 'author'),
  [
    # The prompt has the words of one author, and the template's markers.
    ([USER], {}, 'USER'),
    ([USER, USER], {}, 'USER'),
    ([SYSTEM], {}, 'CONTEXT'),
    # Of several, or with tools, no token says whose it is.
    ([SYSTEM, USER], {}, 'CONTEXT'),
    ([USER], {'agent': {'tool_definitions': [{'name': 'f'}]}}, 'CONTEXT'),
    ([], {}, 'CONTEXT'),
  ],
)
def test_who_wrote_the_first_prompt(before, row, author):
  found = columns({'steps': [*before, agent([1, 2], [3])], **row})
  assert found == [(author, [1, 2]), ('AGENT', [3])]


def test_rules_decide_the_authors_of_turns(tmp_path):
  (tmp_path / 'rules.json').write_text(
    '{"rules": [{"when": {"role": "assistant", "model_name": "expert"},'
    ' "author": "DEMONSTRATION", "verdict": "right"}]}'
  )
  rules = Rules.load(tmp_path / 'rules.json')
  steps = [SYSTEM, USER, agent([1, 2], [3], model_name='expert')]
  assert columns({'steps': steps}, rules=rules) == [
    ('CONTEXT', [1, 2]),
    ('DEMONSTRATION', [3]),
  ]
  example = registry.read({'steps': steps}, 'x', 'auto', rules)
  assert example.verdict_T.tolist() == [0, 0, 1]


def test_results_of_the_last_step_are_counted():
  row = atif_tokens.read({'steps': [USER, agent([1], [2], 'a', 'b')]})
  assert row.chat.left_out == {'turns after the last completion': 2}


@pytest.mark.parametrize(
  ('steps', 'error'),
  [
    (
      [agent([1, 2], [3]), agent([1, 2, 4], [5])],
      'step 1: token 2 of its prompt is not token 2 of the tokens before: its '
      'history was rewritten, so that the run is not one sequence; make each '
      'call a row of its own',
    ),
    (
      [agent([1, 2], [3]), agent([1], [5])],
      'step 1: token 1 of its prompt is not token 1 of the tokens before: its '
      'history was rewritten, so that the run is not one sequence; make each '
      'call a row of its own',
    ),
    (
      [agent([1, 2], [3]), said('agent')],
      'step 1: no prompt_token_ids; --format=atif reads the text',
    ),
    (
      [agent([1, 2], [3], llm_call_count=2)],
      'step 0: is several calls of the model, and no token says of which it '
      'is; --format=atif reads the text',
    ),
    (
      [agent([1, 2.0], [3])],
      'step 0: prompt_token_ids 1 is a number, expected 0 to 2147483647',
    ),
    (
      [agent([1], [3], spans=[[0, 1, 'tool']])],
      'turn 0: spans count characters; the row has token ids',
    ),
  ],
)
def test_malformed_rows(steps, error):
  with pytest.raises(Malformed) as raised:
    columns({'steps': steps})
  assert str(raised.value) == error


def test_steps_without_prompts_are_read_as_text():
  """ATIF 1.3 has the ids of completions only."""
  last = {**said('agent'), 'metrics': {'completion_token_ids': [1, 2]}}
  assert registry.matching({'steps': [USER, last]}) == ['atif']
