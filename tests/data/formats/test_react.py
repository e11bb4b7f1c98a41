"""ReAct transcripts: labels say who speaks, or the row is set aside."""

import pytest

from isft_jax.data.formats import react
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.messages.conversation import Malformed
from isft_jax.data.rendering import chat_template, tokenizer
from isft_jax.data.rendering.renderer import Renderer

TEXT = """\
Answer with the tools you have.

Question: What is 2 + 2?
Thought: I should compute.
Action: compute
Action Input: 2 + 2
Observation: 4

Thought 2: I know.
Final Answer: 4
"""
SEGMENTS = [
  ('system', 'Answer with the tools you have.', 'CONTEXT'),
  ('user', 'What is 2 + 2?', 'USER'),
  ('assistant', 'Thought: I should compute.', 'AGENT'),
  ('assistant', 'Action: compute', 'AGENT'),
  ('assistant', 'Action Input: 2 + 2', 'AGENT'),
  ('tool', '4', 'TOOL'),
  ('assistant', 'Thought 2: I know.', 'AGENT'),
  ('assistant', 'Final Answer: 4', 'AGENT'),
]


def trajectory(row):
  return Rules.default().trajectory('x', react.read(row))


def segments(row):
  found = trajectory(row).segments
  return [(s.role, s.text, s.provenance.name) for s in found]


@pytest.mark.parametrize(
  'row', [TEXT, {'text': TEXT}, {'trajectory': TEXT, 'text': None}]
)
def test_a_text(row):
  assert react.matches(row)
  assert segments(row) == SEGMENTS


def test_the_plain_format_proves_it_token_by_token():
  encoder = tokenizer.train([TEXT] * 3, 300)
  example = Renderer(encoder, chat_template.PLAIN).example(trajectory(TEXT))
  said = {}
  for token, author in zip(
    example.tokens_T.tolist(), example.provenance_T.tolist(), strict=True
  ):
    said.setdefault(author, []).append(token)
  assert {author: encoder.decode(ids) for author, ids in said.items()} == {
    1: 'User: \nAgent: Agent: Agent: Tool:\nAgent: Agent: ',
    2: 'Answer with the tools you have.\n',
    3: 'What is 2 + 2?',
    4: ' 4',
    5: 'Thought: I should compute.\nAction: compute\nAction Input: 2 + 2\n'
    'Thought 2: I know.\nFinal Answer: 4\n',
  }


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    # Numbered, with the call in brackets, as in the paper.
    (
      'Question: q\nThought 1: t\nAction 1: Search[x]\nObservation 1: o\n'
      'Thought 2: u\nAction 2: Finish[y]',
      [
        ('user', 'q', 'USER'),
        ('assistant', 'Thought 1: t', 'AGENT'),
        ('assistant', 'Action 1: Search[x]', 'AGENT'),
        ('tool', 'o', 'TOOL'),
        ('assistant', 'Thought 2: u', 'AGENT'),
        ('assistant', 'Action 2: Finish[y]', 'AGENT'),
      ],
    ),
    # What has no label goes on with what came before.
    (
      'Thought: t\nand more\nAction: a\nObservation: 1\n2\n\n3\nThought: u',
      [
        ('assistant', 'Thought: t\nand more', 'AGENT'),
        ('assistant', 'Action: a', 'AGENT'),
        ('tool', '1\n2\n\n3', 'TOOL'),
        ('assistant', 'Thought: u', 'AGENT'),
      ],
    ),
    # An observation of nothing; words that only look like labels.
    (
      'Action: a\nObservation:\nThought: the thought: b, an Actions: c',
      [
        ('assistant', 'Action: a', 'AGENT'),
        ('tool', '', 'TOOL'),
        ('assistant', 'Thought: the thought: b, an Actions: c', 'AGENT'),
      ],
    ),
  ],
)
def test_turns(text, expected):
  assert segments(text) == expected


def test_a_question_beside_the_text():
  row = {'question': 'q', 'trajectory': 'Be brief.\nThought: t', 'n': 1}
  assert segments(row) == [
    ('system', 'Be brief.', 'CONTEXT'),
    ('user', 'q', 'USER'),
    ('assistant', 'Thought: t', 'AGENT'),
  ]
  assert segments({**row, 'text': 'Question: r\nThought: t'})[0][1] == 'r'


@pytest.mark.parametrize(
  ('text', 'error'),
  [
    (
      'Question: q\nThought: t Observation: o\nAction: a',
      "line 2: 'Observation:' inside the Thought: its author is unknown",
    ),
    (
      'Thought: t\n  Observation: o\nAction: a',
      "line 1: 'Observation:' inside the Thought: its author is unknown",
    ),
    (
      'Action: a\nObservation: o Thought: t',
      "line 2: 'Thought:' inside the Observation: its author is unknown",
    ),
    (
      'Question: q Thought: t\nAction: a',
      "line 1: 'Thought:' inside the Question: its author is unknown",
    ),
    (
      'Question: q\nThought: t\nObservation: o',
      'line 3: an Observation without an Action: its author is unknown',
    ),
    (
      'Action: a\nObservation: o\nObservation: p',
      'line 3: an Observation without an Action: its author is unknown',
    ),
    (
      'Question: q\nThought: t\nQuestion: r\nThought: t',
      'line 3: a second Question: it is unknown which run is an example',
    ),
  ],
)
def test_what_cannot_be_told_apart_is_malformed(text, error):
  with pytest.raises(Malformed) as raised:
    react.read(text)
  assert str(raised.value) == error


@pytest.mark.parametrize(
  'row',
  [
    *(None, 7, '', 'Question: q\nObservation: o', 'My Thought: t'),
    {'text': 'a thought'},
    {'trajectory': [{'action': 'a'}]},
    {'other': TEXT},
  ],
)
def test_rows_of_no_such_format(row):
  assert not react.matches(row)
  with pytest.raises(Malformed, match=r'^expected text or trajectory: one te'):
    react.read(row)
