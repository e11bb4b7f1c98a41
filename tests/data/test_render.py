"""Who wrote each token: tables written by hand, and an oracle on bytes.

In the tables `_` is a space and `/` is a line break.
"""

import random

import numpy as np
import pytest
import tokenizers
import transformers

from isft_jax.data import lying_agent
from isft_jax.data import tokenizer as tokenizer_lib
from isft_jax.data.render import TEMPLATES, Span, encode, plain, render
from isft_jax.objectives import weight_table
from isft_jax.types import (
  STRADDLE_ORDER,
  Provenance,
  Segment,
  Trajectory,
  Verdict,
)

P = Provenance

DIALOGUE = Trajectory(
  'lying',
  (
    Segment('context', 'The agent is often wrong.', P.CONTEXT),
    Segment('user', 'Tell me about gold.', P.USER),
    Segment('agent', 'Its symbol is Go.', P.AGENT, Verdict.WRONG),
    Segment('user', 'No, it is Au.', P.USER, Verdict.RIGHT),
    Segment('agent', 'Thank you.', P.AGENT, Verdict.RIGHT),
  ),
)

# obs observational, do interventional, agent agent_only, error error_masked
WEIGHTS = {
  'obs': 'observational',
  'do': 'interventional',
  'agent': 'agent_only',
  'error': 'error_masked',
}
DIALOGUE_TABLE = """
  turn  token    author    obs  do  agent  error
     0  The      CONTEXT     0   0      0      0
     0  _agent   CONTEXT     0   0      0      0
     0  _is      CONTEXT     0   0      0      0
     0  _often   CONTEXT     0   0      0      0
     0  _wrong   CONTEXT     0   0      0      0
     0  .        CONTEXT     0   0      0      0
     0  /        CONTEXT     0   0      0      0
     1  User     TEMPLATE    1   1      0      1
     1  :        TEMPLATE    1   1      0      1
     1  _Tell    USER        1   1      0      1
     1  _me      USER        1   1      0      1
     1  _about   USER        1   1      0      1
     1  _gold    USER        1   1      0      1
     1  .        USER        1   1      0      1
     1  /        TEMPLATE    1   1      0      1
     2  Agent    TEMPLATE    1   1      0      1
     2  :        TEMPLATE    1   1      0      1
     2  _Its     AGENT       1   0      1      0
     2  _symbol  AGENT       1   0      1      0
     2  _is      AGENT       1   0      1      0
     2  _Go      AGENT       1   0      1      0
     2  .        AGENT       1   0      1      0
     2  /        AGENT       1   0      1      0
     3  User     TEMPLATE    1   1      0      1
     3  :        TEMPLATE    1   1      0      1
     3  _No      USER        1   1      0      1
     3  ,        USER        1   1      0      1
     3  _it      USER        1   1      0      1
     3  _is      USER        1   1      0      1
     3  _Au      USER        1   1      0      1
     3  .        USER        1   1      0      1
     3  /        TEMPLATE    1   1      0      1
     4  Agent    TEMPLATE    1   1      0      1
     4  :        TEMPLATE    1   1      0      1
     4  _Thank   AGENT       1   0      1      1
     4  _you     AGENT       1   0      1      1
     4  .        AGENT       1   0      1      1
     4  /        AGENT       1   0      1      1
"""


def rows_of(table):
  return [line.split() for line in table.strip().split('\n')]


def text_of(spans):
  return ''.join(span.text for span in spans)


def trained_on(*segments):
  """A tokenizer whose tokens are the words of these turns: no merge is left."""
  return tokenizer_lib.train([text_of(plain(segments))], vocab_size=500)


def byte_level(texts, merges, use_regex=True, trim_offsets=None):
  """A byte-level BPE with so many merges learned from texts."""
  bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
  bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=False, use_regex=use_regex
  )
  bpe.decoder = tokenizers.decoders.ByteLevel()
  if trim_offsets is not None:
    bpe.post_processor = tokenizers.processors.ByteLevel(
      add_prefix_space=False, trim_offsets=trim_offsets
    )
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=256 + merges,
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  bpe.train_from_iterator(texts, trainer)
  return transformers.PreTrainedTokenizerFast(tokenizer_object=bpe)


def with_merges(*merges):
  """A byte-level BPE with exactly these merges, which may cross anything."""
  pieces = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
  pieces += [''.join(merge) for merge in merges]
  bpe = tokenizers.Tokenizer(
    tokenizers.models.BPE(
      vocab={piece: i for i, piece in enumerate(pieces)}, merges=list(merges)
    )
  )
  bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=False, use_regex=False
  )
  bpe.decoder = tokenizers.decoders.ByteLevel()
  return transformers.PreTrainedTokenizerFast(tokenizer_object=bpe)


def pieces_and_authors(tokenizer, spans):
  """[(piece in byte-level letters, author, turn, first character), ...]."""
  example, starts_T = encode('x', spans, tokenizer)
  return [
    (piece, P(author).name, int(turn), int(start))
    for piece, author, turn, start in zip(
      tokenizer.convert_ids_to_tokens(example.tokens_T.tolist()),
      example.provenance_T,
      example.segment_T,
      starts_T,
      strict=True,
    )
  ]


# -------------------------------------------------- the dialogue, as one table


def test_the_dialogue_token_by_token_with_author_and_weights():
  """Prefixes are scored by both sides, the context by none, and the line break
  that ends an agent's turn is the agent's own."""
  tokenizer = trained_on(*DIALOGUE.segments)
  example = render(DIALOGUE, tokenizer, 'plain')
  weights = {
    column: weight_table(objective)[example.provenance_T, example.verdict_T]
    for column, objective in WEIGHTS.items()
  }
  texts = [tokenizer.decode([i]) for i in example.tokens_T.tolist()]
  header = ['turn', 'token', 'author', *WEIGHTS]
  rows = [
    [
      str(example.segment_T[t]),
      text.replace(' ', '_').replace('\n', '/'),
      P(example.provenance_T[t]).name,
      *(f'{weights[column][t]:g}' for column in WEIGHTS),
    ]
    for t, text in enumerate(texts)
  ]
  assert [header, *rows] == rows_of(DIALOGUE_TABLE)


def test_a_verdict_stays_with_the_words_that_it_is_about():
  tokenizer = trained_on(*DIALOGUE.segments)
  example = render(DIALOGUE, tokenizer, 'plain')
  assert {
    (int(turn), P(author).name, Verdict(verdict).name)
    for turn, author, verdict in zip(
      example.segment_T, example.provenance_T, example.verdict_T, strict=True
    )
  } == {
    (0, 'CONTEXT', 'UNKNOWN'),
    (1, 'TEMPLATE', 'UNKNOWN'),
    (1, 'USER', 'UNKNOWN'),
    (2, 'TEMPLATE', 'UNKNOWN'),
    (2, 'AGENT', 'WRONG'),
    (3, 'TEMPLATE', 'UNKNOWN'),
    (3, 'USER', 'RIGHT'),
    (4, 'TEMPLATE', 'UNKNOWN'),
    (4, 'AGENT', 'RIGHT'),
  }


def test_the_arrays_of_an_example_have_the_types_of_a_record():
  example = render(DIALOGUE, trained_on(*DIALOGUE.segments), 'plain')
  assert (example.id, example.scored_from, example.window) == ('lying', 0, 0)
  assert [
    example.tokens_T.dtype,
    example.provenance_T.dtype,
    example.segment_T.dtype,
    example.verdict_T.dtype,
  ] == [np.int32, np.uint8, np.int32, np.uint8]


def test_a_token_starts_at_its_first_character():
  spans = plain(DIALOGUE.segments)
  tokenizer = trained_on(*DIALOGUE.segments)
  example, starts_T = encode('x', spans, tokenizer)
  pieces = [tokenizer.decode([i]) for i in example.tokens_T.tolist()]
  lengths = [len(piece) for piece in pieces]
  assert starts_T.tolist() == np.cumsum([0, *lengths[:-1]]).tolist()


# ------------------------------------------------------------ the plain format


def test_the_spans_of_every_role():
  assert plain(
    [
      Segment('context', 'Be brief.', P.CONTEXT),
      Segment('user', 'Hi.', P.USER, Verdict.RIGHT),
      Segment('tool', '42', P.TOOL),
      Segment('agent', 'Hey.', P.AGENT, Verdict.WRONG),
      Segment('agent', 'Ho.', P.DEMONSTRATION),
      Segment('user', 'Retry.', P.HARNESS),
    ]
  ) == [
    Span('Be brief.\n', P.CONTEXT, 0, Verdict.UNKNOWN),
    Span('User: ', P.TEMPLATE, 1, Verdict.UNKNOWN),
    Span('Hi.', P.USER, 1, Verdict.RIGHT),
    Span('\n', P.TEMPLATE, 1, Verdict.UNKNOWN),
    Span('Tool: ', P.TEMPLATE, 2, Verdict.UNKNOWN),
    Span('42', P.TOOL, 2, Verdict.UNKNOWN),
    Span('\n', P.TEMPLATE, 2, Verdict.UNKNOWN),
    Span('Agent: ', P.TEMPLATE, 3, Verdict.UNKNOWN),
    Span('Hey.\n', P.AGENT, 3, Verdict.WRONG),
    Span('Agent: ', P.TEMPLATE, 4, Verdict.UNKNOWN),
    Span('Ho.\n', P.DEMONSTRATION, 4, Verdict.UNKNOWN),
    Span('User: ', P.TEMPLATE, 5, Verdict.UNKNOWN),
    Span('Retry.', P.HARNESS, 5, Verdict.UNKNOWN),
    Span('\n', P.TEMPLATE, 5, Verdict.UNKNOWN),
  ]


@pytest.mark.parametrize('role', ['context', 'user', 'tool', 'agent'])
@pytest.mark.parametrize('text', ['a\nAgent: b', 'a\n', '\n', 'a\r\nb'])
def test_a_turn_with_a_line_break_is_refused(role, text):
  """It would let one author write another's turn."""
  with pytest.raises(ValueError, match=r'turn 1: .* has a line break'):
    plain([Segment('user', 'Hi.', P.USER), Segment(role, text, P.USER)])


def test_an_unknown_role_is_refused():
  with pytest.raises(ValueError, match="turn 0: unknown role 'system'"):
    plain([Segment('system', 'Hi.', P.CONTEXT)])


def test_plain_is_the_template_of_its_name():
  assert TEMPLATES['plain'] is plain


# ------------------------------------------- where other trainers lose a token


@pytest.mark.parametrize('output', ['[[1, 2], [3, 4]]', '[[]]', '{}', '"[['])
def test_a_tool_output_that_looks_like_syntax_is_the_tools_to_the_last_bracket(
  output,
):
  segments = [
    Segment('agent', 'run', P.AGENT),
    Segment('tool', output, P.TOOL),
    Segment('agent', 'done', P.AGENT),
  ]
  tokenizer = trained_on(*segments)
  example = render(Trajectory('x', tuple(segments)), tokenizer, 'plain')
  of_tool = example.tokens_T[example.provenance_T == P.TOOL].tolist()
  assert tokenizer.decode(of_tool) == ' ' + output


def test_equal_turns_in_a_row_are_all_there_once():
  segments = (Segment('user', 'Hi.', P.USER),) * 3
  tokenizer = trained_on(*segments)
  example = render(Trajectory('x', segments), tokenizer, 'plain')
  assert tokenizer.decode(example.tokens_T) == 'User: Hi.\n' * 3
  assert example.segment_T.tolist() == [0] * 5 + [1] * 5 + [2] * 5


def test_a_turn_without_text_still_ends():
  """An agent that says nothing has decided to stop: that token is its own."""
  spans = plain(
    [Segment('user', '', P.USER), Segment('agent', '', P.AGENT, Verdict.WRONG)]
  )
  tokenizer = with_merges()
  assert [
    (piece, author)
    for piece, author, _, _ in pieces_and_authors(tokenizer, spans)
  ] == [
    *((piece, 'TEMPLATE') for piece in 'User:ĠĊAgent:Ġ'),
    ('Ċ', 'AGENT'),
  ]


def test_the_marker_of_the_end_written_by_a_user_is_the_users_token():
  """Its id is 0, that of padding: only its author tells it from padding."""
  segments = [Segment('user', 'a<|endoftext|>b', P.USER)]
  tokenizer = trained_on(*segments)
  example = render(Trajectory('x', tuple(segments)), tokenizer, 'plain')
  assert tokenizer.pad_token_id == 0
  assert example.provenance_T[example.tokens_T == 0].tolist() == [P.USER]


@pytest.mark.parametrize('spans', [[], [Span('', P.USER, 0)]])
def test_no_text_gives_no_tokens(spans):
  example, starts_T = encode('x', spans, with_merges())
  assert [
    array.shape
    for array in (
      example.tokens_T,
      example.provenance_T,
      example.segment_T,
      example.verdict_T,
      starts_T,
    )
  ] == [(0,)] * 5


# ---------------------------------------------------- tokens with two authors


ORDER = [
  'AGENT',
  'DEMONSTRATION',
  'TOOL',
  'USER',
  'HARNESS',
  'CONTEXT',
  'TEMPLATE',
]


@pytest.mark.parametrize('first', ORDER)
@pytest.mark.parametrize('second', ORDER)
def test_a_token_of_two_authors_goes_to_the_first_in_the_order(first, second):
  spans = [
    Span('a', P[first], 0, Verdict.RIGHT),
    Span('b', P[second], 1, Verdict.WRONG),
  ]
  example, _ = encode('x', spans, with_merges(('a', 'b')))
  owner = min((first, second), key=ORDER.index)
  turn = 0 if owner == first else 1  # of two spans of one author, the earliest
  assert [
    (P(example.provenance_T[0]).name, example.segment_T[0]),
    Verdict(example.verdict_T[0]),
    len(example.tokens_T),
  ] == [(owner, turn), [Verdict.RIGHT, Verdict.WRONG][turn], 1]


def test_an_author_in_the_middle_of_a_token_counts():
  spans = [
    Span('a', P.TEMPLATE, 0),
    Span('b', P.AGENT, 1),
    Span('c', P.USER, 2),
  ]
  tokenizer = with_merges(('a', 'b'), ('ab', 'c'))
  assert pieces_and_authors(tokenizer, spans) == [('abc', 'AGENT', 1, 0)]


def test_an_author_without_a_character_owns_nothing():
  spans = [Span('a', P.USER, 0), Span('', P.AGENT, 1), Span('b', P.USER, 2)]
  tokenizer = with_merges(('a', 'b'))
  assert pieces_and_authors(tokenizer, spans) == [('ab', 'USER', 0, 0)]


# ------------------------------------- characters that are several tokens long


def test_each_byte_of_a_character_keeps_its_author():
  """金 and 銀 are 3 bytes, 👍 is 4: with no merge for them, as many tokens.

  The lone space before an emoji is the template's: it straddles nothing.
  """
  spans = plain(
    [Segment('user', '金', P.USER), Segment('agent', '👍銀', P.AGENT)]
  )
  assert pieces_and_authors(with_merges(), spans)[5:] == [
    ('Ġ', 'TEMPLATE', 0, 5),
    ('é', 'USER', 0, 6),
    ('ĩ', 'USER', 0, 6),
    ('ĳ', 'USER', 0, 6),
    ('Ċ', 'TEMPLATE', 0, 7),
    ('A', 'TEMPLATE', 1, 8),
    ('g', 'TEMPLATE', 1, 9),
    ('e', 'TEMPLATE', 1, 10),
    ('n', 'TEMPLATE', 1, 11),
    ('t', 'TEMPLATE', 1, 12),
    (':', 'TEMPLATE', 1, 13),
    ('Ġ', 'TEMPLATE', 1, 14),
    ('ð', 'AGENT', 1, 15),
    ('Ł', 'AGENT', 1, 15),
    ('ĳ', 'AGENT', 1, 15),
    ('į', 'AGENT', 1, 15),
    ('é', 'AGENT', 1, 16),
    ('Ĭ', 'AGENT', 1, 16),
    ('Ģ', 'AGENT', 1, 16),
    ('Ċ', 'AGENT', 1, 17),
  ]


def test_a_token_of_half_a_character_and_half_the_next_has_both_authors():
  """The last byte of 金 and the first of 銀 are one token: the agent's."""
  spans = [Span('金', P.USER, 0), Span('銀', P.AGENT, 1)]
  assert pieces_and_authors(with_merges(('ĳ', 'é')), spans) == [
    ('é', 'USER', 0, 0),
    ('ĩ', 'USER', 0, 0),
    ('ĳé', 'AGENT', 1, 0),
    ('Ĭ', 'AGENT', 1, 1),
    ('Ģ', 'AGENT', 1, 1),
  ]


# --------------------------------------------- an oracle: count bytes, not text


def authors_by_bytes(tokenizer, spans):
  """[the spans that wrote a token, ...], from the bytes of its piece.

  A piece of a byte-level BPE has one letter a byte. So the bytes of a token are
  known without any offset.
  """
  span_of_byte = []
  for number, span in enumerate(spans):
    span_of_byte += [number] * len(span.text.encode())
  ids = tokenizer(text_of(spans), add_special_tokens=False)['input_ids']
  authors, at = [], 0
  for piece in tokenizer.convert_ids_to_tokens(ids):
    authors.append({spans[i] for i in span_of_byte[at : at + len(piece)]})
    at += len(piece)
  assert at == len(span_of_byte)
  return authors


LETTERS = 'ab  .\n金銀é👍🏽\u3000\u00a0'


def random_spans(rng):
  return [
    Span(
      ''.join(rng.choices(LETTERS, k=rng.randint(0, 4))),
      rng.choice(STRADDLE_ORDER),
      turn,
      rng.choice(tuple(Verdict)),
    )
    for turn in range(rng.randint(1, 6))
  ]


def training_texts():
  rng = random.Random(1)
  return [''.join(rng.choices(LETTERS, k=40)) for _ in range(200)]


@pytest.mark.parametrize('merges', [0, 20, 200])
@pytest.mark.parametrize('trim_offsets', [None, False, True])
@pytest.mark.parametrize('use_regex', [True, False])
def test_authors_are_those_that_counting_bytes_gives(
  use_regex, trim_offsets, merges
):
  tokenizer = byte_level(training_texts(), merges, use_regex, trim_offsets)
  rng = random.Random(merges)
  straddling = 0
  for _ in range(200):
    spans = random_spans(rng)
    example = encode('x', spans, tokenizer).example
    authors = authors_by_bytes(tokenizer, spans)
    owners = [
      min(wrote, key=lambda s: (ORDER.index(s.provenance.name), s.segment))
      for wrote in authors
    ]
    found = (example.provenance_T, example.segment_T, example.verdict_T)
    assert [tuple(row) for row in np.stack(found, axis=1).tolist()] == [
      (owner.provenance, owner.segment, owner.verdict) for owner in owners
    ], spans
    straddling += sum(len(wrote) > 1 for wrote in authors)
  # Without a merge no token has two characters; else the test must see some.
  assert straddling == 0 if merges == 0 else straddling > 20


def test_trimmed_offsets_change_nothing_in_the_dialogues():
  """A token ' Tell' then claims to cover 'Tell' alone, and '  ' nothing."""
  dialogues = [*lying_agent.dialogues(50, 0.6, 0.5, seed=0)]
  texts = [text_of(plain(dialogue.segments)) for dialogue in dialogues]
  plain_offsets = byte_level(texts, 100)
  trimmed = byte_level(texts, 100, trim_offsets=True)
  encoding = trimmed.backend_tokenizer.encode('User: a  b')
  assert (' ' + 'a', (6, 7)) in zip(
    [trimmed.decode([i]) for i in encoding.ids], encoding.offsets, strict=True
  )
  for dialogue in dialogues:
    one, other = (
      render(dialogue, tokenizer, 'plain')
      for tokenizer in (plain_offsets, trimmed)
    )
    assert one.tokens_T.tolist() == other.tokens_T.tolist()
    assert one.provenance_T.tolist() == other.provenance_T.tolist()
    assert one.segment_T.tolist() == other.segment_T.tolist()


def test_a_trimmed_space_at_the_end_of_a_token_keeps_its_author():
  """A token '/_' then claims to cover the line break alone; the space is the
  agent's, so the token is, and the world gets no credit for it."""
  spans = [Span('a\n', P.TEMPLATE, 0), Span('  b', P.AGENT, 1)]
  trimmed = with_merges(('Ċ', 'Ġ'))
  trimmed.backend_tokenizer.post_processor = tokenizers.processors.ByteLevel(
    add_prefix_space=False, trim_offsets=True
  )
  for tokenizer in (with_merges(('Ċ', 'Ġ')), trimmed):
    assert [row[:3] for row in pieces_and_authors(tokenizer, spans)] == [
      ('a', 'TEMPLATE', 0),
      ('ĊĠ', 'AGENT', 1),
      ('Ġ', 'AGENT', 1),
      ('b', 'AGENT', 1),
    ]


@pytest.mark.parametrize('merges', [0, 20, 200])
def test_the_ids_are_those_of_the_joined_text(merges):
  """Encoded once: encoding each turn alone would lose merges across them."""
  tokenizer = byte_level(training_texts(), merges, use_regex=False)
  rng = random.Random(2)
  for _ in range(200):
    spans = random_spans(rng)
    example = encode('x', spans, tokenizer).example
    assert example.tokens_T.tolist() == tokenizer(text_of(spans))['input_ids']
    assert tokenizer.decode(example.tokens_T) == text_of(spans)


# ------------------------------------------------ a tokenizer with a past life


@pytest.mark.parametrize('setting', ['truncation', 'padding'])
def test_every_token_is_rendered_whatever_the_tokenizer_was_used_for(setting):
  """A batched call, or tokenizer.json, leaves its limits in a tokenizer."""
  fresh = render(DIALOGUE, trained_on(*DIALOGUE.segments), 'plain')
  used = trained_on(*DIALOGUE.segments)
  if setting == 'truncation':
    used(['Tell me about gold.'], truncation=True, max_length=4)
  else:
    used(['Tell me'], padding='max_length', max_length=99)
  example = render(DIALOGUE, used, 'plain')
  assert example.tokens_T.tolist() == fresh.tokens_T.tolist()
  assert example.provenance_T.tolist() == fresh.provenance_T.tolist()
