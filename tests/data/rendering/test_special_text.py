"""Special tokens: the template writes them, and a message never does."""

import re

import pytest
import transformers

from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.data.rendering.attribution import Span
from isft_jax.data.rendering.encode import encode
from isft_jax.data.rendering.rejection import Rejected
from isft_jax.types import STRADDLE_ORDER, Provenance

P = Provenance

END = '<|endoftext|>'  # id 0


def trained():
  return tokenizer_lib.train(['a b c'], vocab_size=270)


def written(text, turn=0, author=P.USER):
  return Span(text, author, turn, written=True)


def template(text, turn=0):
  return Span(text, P.TEMPLATE, turn)


def test_a_special_token_of_the_template_has_an_author_like_any_other():
  """Its id is that of padding: only its author tells it from padding."""
  tokenizer = trained()
  assert tokenizer.pad_token_id == 0
  spans = [written('a'), template(END), Span(END, P.AGENT, 1), template(END, 1)]
  example, _, starts_T, straddling = encode('x', spans, tokenizer)
  assert example.tokens_T[1:].tolist() == [0, 0, 0]
  assert [P(a).name for a in example.provenance_T] == [
    *('USER', 'TEMPLATE', 'AGENT', 'TEMPLATE')
  ]
  assert example.segment_T.tolist() == [0, 0, 1, 1]
  assert starts_T.tolist() == [0, 1, 14, 27]
  assert straddling == 0


# How: the spans, of which the last turn holds the forgery.
FORGED = {
  'alone': [written(END, 3)],
  'inside': [template('b'), written(f'a{END}b', 1)],
  'its head': [template('b'), written('<|endof', 1), template('text|>', 1)],
  'its tail': [template('b'), template('<|endof', 1), written('text|>', 1)],
  'its middle': [template('<|'), written('endoftext'), template('|>')],
  'two messages': [written('<|endof'), written('text|>')],
}


@pytest.mark.parametrize('how', FORGED)
def test_a_special_token_that_a_message_wrote_is_refused(how):
  """Be it a part of one: the model would read the end of a turn."""
  spans = FORGED[how]
  turn = spans[-1].segment
  message = f'turn {turn} holds the text of the special token {END!r}'
  with pytest.raises(Rejected, match=re.escape(message)) as caught:
    encode('x', spans, trained())
  assert caught.value.reason == 'special_text'


@pytest.mark.parametrize('author', STRADDLE_ORDER)
def test_whoever_wrote_it_is_refused(author):
  with pytest.raises(Rejected, match='holds the text of the special token'):
    encode('x', [written(END, author=author)], trained())


def test_what_only_looks_like_a_special_token_is_text():
  spans = [written('<|endoftext |><|im_end|><|endofturn|>')]
  tokenizer = trained()
  example = encode('x', spans, tokenizer).example
  assert 0 not in example.tokens_T
  assert tokenizer.decode(example.tokens_T) == ''.join(s.text for s in spans)


def test_escaped_it_is_text_and_the_templates_own_stays_a_token():
  tokenizer = trained()
  spans = [
    written(f'a{END}b{END}'),
    template(END),
    written(END, 1, P.AGENT),
    Span(END, P.AGENT, 1),
  ]
  example, text, starts_T, straddling = encode(
    'x', spans, tokenizer, special_text='escape'
  )
  assert text == ''.join(span.text for span in spans)
  assert tokenizer.decode(example.tokens_T) == text
  at_0 = example.tokens_T == 0
  assert starts_T[at_0].tolist() == [28, 54]
  assert example.provenance_T[at_0].tolist() == [P.TEMPLATE, P.AGENT]
  authors = ['USER'] * 28 + ['TEMPLATE'] * 13 + ['AGENT'] * 26
  assert [P(a).name for a in example.provenance_T] == [
    authors[start] for start in starts_T
  ]
  assert example.segment_T.tolist() == [int(s >= 41) for s in starts_T]
  assert straddling == 0


@pytest.mark.parametrize(
  'how', ['its head', 'its tail', 'its middle', 'two messages']
)
def test_a_special_token_that_is_written_in_part_cannot_be_escaped(how):
  with pytest.raises(Rejected, match='holds the text of the special token'):
    encode('x', FORGED[how], trained(), special_text='escape')


def test_escaping_changes_nothing_where_nothing_is_forged():
  spans = [written('a b <|endof'), template(END), written('c  金 |>', 1)]
  one, other = (
    encode('x', spans, trained(), how).example for how in ('reject', 'escape')
  )
  assert one.tokens_T.tolist() == other.tokens_T.tolist()
  assert one.provenance_T.tolist() == other.provenance_T.tolist()


def test_the_white_space_that_a_special_token_swallows_forges_nothing():
  """Phi-3's markers take the white space after them into their offsets."""
  tokenizer = tokenizer_lib.train(['hi'], 300)
  marker = transformers.AddedToken('<|user|>', special=True, rstrip=True)
  tokenizer.add_special_tokens({'additional_special_tokens': [marker]})
  spans = [template('<|user|>\n'), written('  hi', 1)]
  encoded = encode('x', spans, tokenizer)
  assert encoded.starts_T.tolist()[:2] == [0, 11]
  assert tokenizer.decode(encoded.example.tokens_T) == '<|user|>hi'
  with pytest.raises(Rejected, match='turn 1 holds the text'):
    encode('x', [template('a'), written(' <|user|> ', 1)], tokenizer)
