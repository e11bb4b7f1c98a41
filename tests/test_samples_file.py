"""Rows of samples.jsonl, and prompts as text."""

import json

import pytest
from etils import epath

from isft_jax import samples_file


@pytest.mark.parametrize(
  ('prompt', 'text'),
  [
    ('Hi', 'Hi'),
    (
      [{'role': 'system', 'content': 'a'}, {'role': 'user', 'content': 'b'}],
      'b',
    ),
    ([{'role': 'user', 'content': [{'text': 'a'}, {'image': 1}, 'b']}], 'a b'),
    ([{'role': 'user', 'content': None}], ''),
    ([{'role': 'user', 'content': 3}], '3'),
    ([{'role': 'user'}], ''),
    (['text'], 'text'),
    ([], ''),
  ],
)
def test_a_prompt_is_shown_as_its_last_words(prompt, text):
  assert samples_file.prompt_text(prompt) == text


def test_rows_are_read_and_others_are_damage(tmp_path):
  row = {'step': 1, 'prompt': 'a', 'reply': '{"step": 2}'}
  others = [
    {'step': '1', 'prompt': 'a', 'reply': 'b'},
    {'step': 1, 'prompt': 3, 'reply': 'b'},
    {'step': 1, 'prompt': 'a'},
    {'step': True, 'prompt': 'a', 'reply': 'b'},
    [1],
  ]
  path = epath.Path(tmp_path) / 'samples.jsonl'
  texts = [json.dumps(each) + '\n' for each in (row, *others)]
  path.write_text(''.join(texts) + texts[0] * 2 + texts[0].strip() + texts[0])
  lines = [*samples_file.lines(path)]
  assert [(len(x.rows), x.is_damaged) for x in lines] == [
    *[(1, False)] + [(0, True)] * 5,
    *[(1, False)] * 2 + [(2, True)],
  ]
  assert all(each == row for line in lines for each in line.rows)
