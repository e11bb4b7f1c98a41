"""Who wrote each token of a text: tables by hand, and an oracle on bytes."""

import copy
import random

import numpy as np
import pytest
import tokenizers
import transformers

from isft_jax.data.rendering import chat_template
from isft_jax.data.rendering.attribution import Span
from isft_jax.data.rendering.encode import encode
from isft_jax.data.rendering.rejection import Rejected
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.types import STRADDLE_ORDER, Provenance, Verdict
from isft_jax.worlds.lying_agent import generator
from tests.data import chat_tokenizer

P = Provenance


def text_of(spans):
  return ''.join(span.text for span in spans)


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
  example, _, starts_T, _ = encode('x', spans, tokenizer)
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


def words(*vocabulary):
  """A tokenizer that leaves white space out of its tokens and their offsets."""
  made = tokenizers.Tokenizer(
    tokenizers.models.WordLevel(
      {word: i for i, word in enumerate(vocabulary)}, unk_token=vocabulary[0]
    )
  )
  made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  return transformers.PreTrainedTokenizerFast(tokenizer_object=made)


def test_white_space_that_no_token_claims_is_the_next_tokens():
  """It is the agent's, so the world gets no credit for the word behind it."""
  spans = [
    Span('Hi', P.USER, 0),
    Span(' ', P.AGENT, 1),
    Span('Hey', P.USER, 2),
  ]
  assert pieces_and_authors(words('Hi', 'Hey'), spans) == [
    ('Hi', 'USER', 0, 0),
    ('Hey', 'AGENT', 1, 2),
  ]


# -------------------------------------------------------- no text, no tokens


@pytest.mark.parametrize('spans', [[], [Span('', P.USER, 0)]])
def test_no_text_gives_no_tokens(spans):
  example, text, starts_T, straddling = encode('x', spans, with_merges())
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
  assert (text, straddling) == ('', 0)


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
  example, _, _, straddling = encode('x', spans, with_merges(('a', 'b')))
  owner = min((first, second), key=ORDER.index)
  turn = 0 if owner == first else 1  # of two spans of one author, the earliest
  assert [
    (P(example.provenance_T[0]).name, example.segment_T[0]),
    Verdict(example.verdict_T[0]),
    len(example.tokens_T),
  ] == [(owner, turn), [Verdict.RIGHT, Verdict.WRONG][turn], 1]
  assert straddling == (first != second)


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
  spans = [
    Span('User: ', P.TEMPLATE, 0),
    Span('金', P.USER, 0),
    Span('\n', P.TEMPLATE, 0),
    Span('Agent: ', P.TEMPLATE, 1),
    Span('👍銀', P.AGENT, 1),
    Span('\n', P.AGENT, 1),
  ]
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
    example, _, _, of_two_authors = encode('x', spans, tokenizer)
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
    assert of_two_authors == sum(
      len({span.provenance for span in wrote}) > 1 for wrote in authors
    )
  # Without a merge no token has two characters; else the test must see some.
  assert straddling == 0 if merges == 0 else straddling > 20


def test_trimmed_offsets_change_nothing_in_the_dialogues():
  """A token ' Tell' then claims to cover 'Tell' alone, and '  ' nothing."""
  dialogues = [*generator.dialogues(50, 0.6, 0.5, seed=0)]
  texts = [
    *map(chat_template.ChatTemplate(chat_template.PLAIN).text, dialogues)
  ]
  plain_offsets = byte_level(texts, 100)
  trimmed = byte_level(texts, 100, trim_offsets=True)
  encoding = trimmed.backend_tokenizer.encode('User: a  b')
  assert (' ' + 'a', (6, 7)) in zip(
    [trimmed.decode([i]) for i in encoding.ids], encoding.offsets, strict=True
  )
  renderers = [
    Renderer(t, chat_template.PLAIN) for t in (plain_offsets, trimmed)
  ]
  for dialogue in dialogues:
    one, other = (renderer.example(dialogue) for renderer in renderers)
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


# ------------------------------------------------------ characters without ids


@pytest.mark.parametrize('is_special', [True, False])
def test_characters_without_a_token_are_refused(is_special):
  words = ['<unk>', 'Hi', 'User', 'Agent', ':', 'Yo']
  model = tokenizers.models.WordLevel(
    {word: i for i, word in enumerate(words)}, unk_token='<unk>'
  )
  backend = tokenizers.Tokenizer(model)
  backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  backend.add_tokens([tokenizers.AddedToken('<unk>', special=is_special)])
  tokenizer = transformers.PreTrainedTokenizerFast(
    tokenizer_object=backend, **({'unk_token': '<unk>'})
  )
  spans = [Span('User: ', P.TEMPLATE, 0), Span('Hi zork', P.USER, 0)]
  with pytest.raises(
    Rejected, match="turn 0: the tokenizer has no token for ' zork'"
  ) as e:
    encode('x', spans, tokenizer)
  assert e.value.reason == 'unknown_characters'
  known = encode('x', [Span('User: Hi', P.USER, 0)], tokenizer)
  assert known.example.tokens_T.tolist() == [2, 4, 1]


def test_a_special_token_that_also_stands_for_unknown_characters_is_itself():
  tokenizer = chat_tokenizer.trained(eos='<|end_of_text|>')
  tokenizer = copy.deepcopy(tokenizer)
  tokenizer.unk_token = '<|end_of_text|>'
  spans = [Span('Hi', P.USER, 0), Span('<|end_of_text|>', P.TEMPLATE, 0)]
  encoded = encode('x', spans, tokenizer)
  assert encoded.example.tokens_T[-1] == tokenizer.unk_token_id


def test_an_example_has_its_id_and_the_types_of_records():
  spans = [Span('Hi', P.USER, 3, Verdict.WRONG), Span('!', P.AGENT, 4)]
  example = encode('an id', spans, chat_tokenizer.trained()).example
  assert example.id == 'an id'
  assert example.segment_T.tolist()[-1] == 4
  assert [
    array.dtype.name
    for array in (
      *(example.tokens_T, example.provenance_T),
      *(example.segment_T, example.verdict_T),
    )
  ] == ['int32', 'uint8', 'int32', 'uint8']
