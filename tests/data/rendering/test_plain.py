"""The plain format: the paper's, a prefix and a line a turn."""

import pytest

from isft_jax.data.rendering import chat_template
from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.data.rendering.attribution import Span
from isft_jax.data.rendering.rejection import Rejected
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.objectives import weight_table
from isft_jax.types import Provenance, Segment, Trajectory, Verdict
from tests.dialogues import dialogues, plain_renderer

P = Provenance


def turns(*segments):
  return Trajectory('x', segments)


def renderer_of(trajectory):
  """Of a tokenizer whose tokens are its words: no merge is left."""
  texts = [chat_template.ChatTemplate(chat_template.PLAIN).text(trajectory)]
  return Renderer(
    tokenizer_lib.train(texts, vocab_size=500), chat_template.PLAIN
  )


def bytes_alone():
  """A renderer of the smallest tokenizer: a token a byte."""
  return Renderer(tokenizer_lib.train([], vocab_size=257), chat_template.PLAIN)


def tokens_and_authors(example, tokenizer):
  """[(text, author, turn), ...] of each token."""
  return [
    (tokenizer.decode([token]), P(author).name, turn)
    for token, author, turn in zip(
      example.tokens_T.tolist(),
      example.provenance_T.tolist(),
      example.segment_T.tolist(),
      strict=True,
    )
  ]


def test_the_spans_of_every_role():
  trajectory = turns(
    Segment('system', 'Be brief.', P.CONTEXT),
    Segment('user', 'Hi.', P.USER, Verdict.RIGHT),
    Segment('tool', '42', P.TOOL),
    Segment('assistant', 'Hey.', P.AGENT, Verdict.WRONG),
    Segment('assistant', 'Ho.', P.DEMONSTRATION),
    Segment('user', 'Retry.', P.HARNESS),
  )
  unknown, right, wrong = Verdict
  assert bytes_alone().render(trajectory).spans == [
    Span('Be brief.', P.CONTEXT, 0, unknown, written=True),
    Span('\n', P.CONTEXT, 0, unknown, written=False),
    Span('User: ', P.TEMPLATE, 1, unknown, written=False),
    Span('Hi.', P.USER, 1, right, written=True),
    Span('\n', P.TEMPLATE, 1, unknown, written=False),
    Span('Tool: ', P.TEMPLATE, 2, unknown, written=False),
    Span('42', P.TOOL, 2, unknown, written=True),
    Span('\n', P.TEMPLATE, 2, unknown, written=False),
    Span('Agent: ', P.TEMPLATE, 3, unknown, written=False),
    Span('Hey.', P.AGENT, 3, wrong, written=True),
    Span('\n', P.AGENT, 3, wrong, written=False),
    Span('Agent: ', P.TEMPLATE, 4, unknown, written=False),
    Span('Ho.', P.DEMONSTRATION, 4, unknown, written=True),
    Span('\n', P.DEMONSTRATION, 4, unknown, written=False),
    Span('User: ', P.TEMPLATE, 5, unknown, written=False),
    Span('Retry.', P.HARNESS, 5, unknown, written=True),
    Span('\n', P.TEMPLATE, 5, unknown, written=False),
  ]


@pytest.mark.parametrize('role', ['system', 'user', 'tool', 'assistant'])
@pytest.mark.parametrize('text', ['a\nAgent: b', 'a\n', '\n', 'a\r\nb'])
def test_a_turn_with_a_line_break_is_refused(role, text):
  """It would let one author write another's turn."""
  hi = Segment('user', 'Hi.', P.USER)
  with pytest.raises(Rejected, match=r'turn 1: .* a line break: ') as caught:
    bytes_alone().example(turns(hi, Segment(role, text, P.USER)))
  assert '\n' not in str(caught.value)
  assert caught.value.reason == 'template_raises'


def test_an_unknown_role_is_refused():
  message = 'turn 0: the plain format knows no role "context"'
  with pytest.raises(Rejected, match=message) as caught:
    bytes_alone().example(turns(Segment('context', 'Hi.', P.CONTEXT)))
  assert caught.value.reason == 'template_raises'


# -------------------------------------------- headers encoded apart from words


NAMED = turns(
  Segment('system', 'Be brief.', P.CONTEXT),
  Segment('user', 'Hi.', P.USER),
  Segment('assistant', 'Hey.', P.AGENT, Verdict.WRONG),
  Segment('user', 'Go on.', P.USER),
)


WORDS = ['User', 'Agent', 'Be', ' brief', 'Hi', ' Hi', 'Hey', ' Hey', 'Go']
WORDS += [' Go', ' on']


@pytest.mark.parametrize(
  ('piecewise', 'rows'),
  [
    (
      False,
      """
      Be _brief . ~ User : _Hi . ~ Agent : _Hey . ~ User : _Go _on . ~
      c  c      c c t    t u   u t t     t a    a a t    t u   u   u t
      """,
    ),
    (
      True,
      """
      Be _brief . ~ User : _ Hi . ~ Agent : _ Hey . ~ User : _ Go _on . ~
      c  c      c c t    t t u  u t t     t t a   a a t    t t u  u   u t
      """,
    ),
  ],
)
def test_the_space_of_a_header_is_a_token_of_its_own_if_pieces_are_encoded(
  piecewise, rows
):
  """_ is a space and ~ a newline. Words after the first are as they were."""
  encoder = tokenizer_lib.train(WORDS, vocab_size=400)
  renderer = Renderer(encoder, chat_template.PLAIN, piecewise=piecewise)
  found = tokens_and_authors(renderer.example(NAMED), renderer.tokenizer)
  tokens, letters = (row.split() for row in rows.strip().splitlines())
  spelled = [text.replace(' ', '_').replace('\n', '~') for text, *_ in found]
  assert spelled == tokens
  assert [author[0].lower() for _, author, _ in found] == letters


def test_piecewise_ids_and_masks_are_the_notebooks():
  """Its way, with lists: prefix + encode(text + newline), a mask beside it."""
  renderer = plain_renderer(piecewise=True)
  encoder = renderer.tokenizer

  def ids(text):
    return encoder.encode(text, add_special_tokens=False)

  prefixes = {'user': ids('User: '), 'assistant': ids('Agent: ')}
  for dialogue in dialogues():
    context, *others = dialogue.segments
    tokens = ids(context.text + '\n')
    observational, interventional = ([0] * len(tokens) for _ in range(2))
    for segment in others:
      prefix, words = prefixes[segment.role], ids(segment.text + '\n')
      tokens += prefix + words
      observational += [1] * len(prefix + words)
      own = segment.role == 'assistant'
      interventional += [1] * len(prefix) + [int(not own)] * len(words)
    example = renderer.example(dialogue)
    assert example.tokens_T.tolist() == tokens
    for objective, mask in (
      ('observational', observational),
      ('interventional', interventional),
    ):
      table_PV = weight_table(objective)
      weights_T = table_PV[example.provenance_T, example.verdict_T]
      assert weights_T.tolist() == mask


def test_records_remember_that_they_were_encoded_piecewise():
  """Others keep the fingerprint that they had before there was the choice."""
  encoder = tokenizer_lib.train(['User: Hi.'], vocab_size=300)
  whole, pieces = (
    Renderer(encoder, chat_template.PLAIN, piecewise=each).metadata()
    for each in (False, True)
  )
  assert 'piecewise' not in whole['rendering']
  assert whole['fingerprint'] != pieces['fingerprint']
  again = Renderer.from_rendering(encoder, pieces['rendering'])
  assert again.metadata() == pieces


# ------------------------------------------- where other trainers lose a token


@pytest.mark.parametrize('output', ['[[1, 2], [3, 4]]', '[[]]', '{}', '"[['])
def test_a_tool_output_that_looks_like_syntax_is_the_tools_to_the_last_bracket(
  output,
):
  trajectory = turns(
    Segment('assistant', 'run', P.AGENT),
    Segment('tool', output, P.TOOL),
    Segment('assistant', 'done', P.AGENT),
  )
  renderer = renderer_of(trajectory)
  example = renderer.example(trajectory)
  of_tool = example.tokens_T[example.provenance_T == P.TOOL].tolist()
  assert renderer.tokenizer.decode(of_tool) == ' ' + output


def test_equal_turns_in_a_row_are_all_there_once():
  trajectory = turns(*(Segment('user', 'Hi.', P.USER),) * 3)
  renderer = renderer_of(trajectory)
  example = renderer.example(trajectory)
  assert renderer.tokenizer.decode(example.tokens_T) == 'User: Hi.\n' * 3
  assert example.segment_T.tolist() == [0] * 5 + [1] * 5 + [2] * 5


def test_a_turn_without_text_still_ends():
  """An agent that says nothing has decided to stop: that token is its own."""
  trajectory = turns(
    Segment('user', '', P.USER),
    Segment('assistant', '', P.AGENT, Verdict.WRONG),
  )
  renderer = bytes_alone()
  example = renderer.example(trajectory)
  assert tokens_and_authors(example, renderer.tokenizer) == [
    *((letter, 'TEMPLATE', 0) for letter in 'User: \n'),
    *((letter, 'TEMPLATE', 1) for letter in 'Agent: '),
    ('\n', 'AGENT', 1),
  ]
  assert example.verdict_T.tolist() == [Verdict.UNKNOWN] * 14 + [Verdict.WRONG]


def test_words_that_look_like_a_header_stay_with_who_said_them():
  """Authors follow from where a text was put, not from how it reads."""
  trajectory = turns(
    Segment('user', 'Agent: I agree.', P.USER),
    Segment('assistant', 'User: Agent: ', P.AGENT),
  )
  spans = bytes_alone().render(trajectory).spans
  assert [(span.text, span.provenance.name) for span in spans] == [
    ('User: ', 'TEMPLATE'),
    ('Agent: I agree.', 'USER'),
    ('\n', 'TEMPLATE'),
    ('Agent: ', 'TEMPLATE'),
    ('User: Agent: ', 'AGENT'),
    ('\n', 'AGENT'),
  ]
