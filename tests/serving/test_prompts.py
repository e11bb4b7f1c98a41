"""Prompts: rendered once, then continued with the exact tokens of replies."""

import pytest

from isft_jax.data.rendering.chat_template import PLAIN
from isft_jax.hf import pretrained
from isft_jax.inference.chat_model import ChatModel
from isft_jax.serving.prompts import Known, PromptEncoder, Tokens
from isft_jax.serving.request import ApiError
from isft_jax.types import Provenance
from tests.data.chat_tokenizer import NAMES, template, trained
from tests.dialogues import CHATML, chatml_tokenizer, plain_tokenizer

LETTERS = {
  Provenance.TEMPLATE: 't',
  Provenance.CONTEXT: 'c',
  Provenance.USER: 'u',
  Provenance.TOOL: 'o',
  Provenance.AGENT: 'a',
}
SYSTEM = {'role': 'system', 'content': 'Be good.'}
USER = {'role': 'user', 'content': 'Tell me about gold.'}
REPLY = {'role': 'assistant', 'content': 'sent by the client'}
TOOL = {'role': 'tool', 'content': '4 kg'}
NEXT = {'role': 'user', 'content': 'And?'}


def model(tokenizer, text):
  return ChatModel(pretrained.Model(None, {}), tokenizer, text, {}, {})


def models():
  yield pytest.param(chatml_tokenizer(), CHATML, id='chatml of dialogues')
  yield pytest.param(plain_tokenizer(), PLAIN, id='plain')
  for name in NAMES:
    yield pytest.param(trained(), template(name), id=name)


def drawn(tokenizer, tokens):
  """Returns the text, and a letter for the author of each character."""
  texts = [tokenizer.decode([id]) for id in tokens.ids]
  letters = [
    LETTERS[author] * len(text)
    for author, text in zip(tokens.authors, texts, strict=True)
  ]
  return ''.join(texts), ''.join(letters)


def sampled(tokens, ids, turn):
  n = len(ids)
  return tokens + Tokens(ids, [Provenance.AGENT] * n, [turn] * n)


def test_each_token_of_a_new_conversation_has_an_author():
  tokenizer = chatml_tokenizer()
  encoder = PromptEncoder(model(tokenizer, CHATML))
  _, tokens = encoder.encode([SYSTEM, USER, REPLY, TOOL])
  text, letters = drawn(tokenizer, tokens)
  # The model did not write the reply that the client sent: it is context.
  expected = [
    ('<|im_start|>system\n', 't'),
    ('Be good.', 'c'),
    ('<|im_end|>\n<|im_start|>user\n', 't'),
    ('Tell me about gold.', 'u'),
    ('<|im_end|>\n<|im_start|>assistant\n', 't'),
    ('sent by the client<|im_end|>', 'c'),
    ('\n<|im_start|>tool\n', 't'),
    ('4 kg', 'o'),
    ('<|im_end|>\n<|im_start|>assistant\n', 't'),
  ]
  assert text == ''.join(part for part, _ in expected)
  assert letters == ''.join(who * len(part) for part, who in expected)
  # A turn begins with its header.
  starts = [tokens.turns.index(turn) for turn in range(5)]
  assert starts == [i for i, id in enumerate(tokens.ids) if id == 400]


@pytest.mark.parametrize(('tokenizer', 'text'), list(models()))
@pytest.mark.parametrize(
  'messages', [[USER], [SYSTEM, USER], [USER, REPLY, NEXT]], ids=len
)
def test_a_new_conversation_has_the_ids_of_a_chat(tokenizer, text, messages):
  chat_model = model(tokenizer, text)
  prompt, tokens = PromptEncoder(chat_model).encode(messages)
  expected = chat_model.prompt(messages)
  assert prompt.ids_T.tolist() == tokens.ids == expected.ids_T.tolist()
  assert prompt.space == expected.space
  assert {*map(len, tokens)} == {len(tokens.ids)}


@pytest.mark.parametrize(('tokenizer', 'text'), list(models()))
@pytest.mark.parametrize('is_stopped', [True, False])
def test_a_known_conversation_begins_with_its_exact_tokens(
  tokenizer, text, is_stopped
):
  chat_model = model(tokenizer, text)
  encoder = PromptEncoder(chat_model)
  _, first = encoder.encode([SYSTEM, USER])
  # Ids that no text gives: letters one by one. The client sends other words.
  ids = [tokenizer.encode(c)[0] for c in 'gold']
  tail = ''
  if is_stopped:
    # The last stop id, or the stop text of the plain format.
    stop = tokenizer.encode('\n') if text == PLAIN else chat_model.stop_ids[-1:]
    ids, tail = ids + stop, tokenizer.decode(stop)
  before = sampled(first, ids, 2)
  prompt, tokens = encoder.encode(
    [SYSTEM, USER, REPLY, NEXT], Known(3, before, tail)
  )
  assert tokens.ids == prompt.ids_T.tolist()
  assert tokens.first(len(before.ids)) == before
  # The rest is what the template writes after the reply.
  rest = tokens.after(len(before.ids))
  rendered = tokenizer.decode(
    chat_model.prompt([SYSTEM, USER, REPLY, NEXT]).ids_T
  )
  after = rendered.partition(REPLY['content'])[2].removeprefix(tail)
  shown, letters = drawn(tokenizer, rest)
  assert shown == after
  # Only the words of the user are not the template's.
  start = letters.index('u')
  words = shown[start : start + letters.count('u')]
  assert words.strip() == 'And?'
  assert letters.replace('u', '') == 't' * (len(after) - len(words))
  assert rest.turns == sorted(rest.turns)
  assert {*rest.turns} <= {2, 3, 4} and rest.turns[-1] == 4


def test_what_a_reply_sampled_of_the_next_turn_is_not_repeated():
  tokenizer = plain_tokenizer()
  encoder = PromptEncoder(model(tokenizer, PLAIN))
  _, first = encoder.encode([USER])
  for tail, after in [
    ('\n', 'User: And?\nAgent:'),
    ('\nUs', 'er: And?\nAgent:'),
    ('\n\n', 'User: And?\nAgent:'),
    ('###', '\nUser: And?\nAgent:'),
  ]:
    before = sampled(first, tokenizer.encode(' Au' + tail), 1)
    _, tokens = encoder.encode([USER, REPLY, NEXT], Known(2, before, tail))
    assert tokenizer.decode(tokens.after(len(before.ids)).ids) == after


def test_another_stop_token_does_not_close_the_turn():
  tokenizer = chatml_tokenizer()
  chat_model = model(tokenizer, CHATML)
  encoder = PromptEncoder(chat_model)
  _, first = encoder.encode([USER])
  assert chat_model.stop_ids[0] == tokenizer.eos_token_id
  before = sampled(first, [50, tokenizer.eos_token_id], 1)
  known = Known(2, before, tokenizer.eos_token)
  _, tokens = encoder.encode([USER, REPLY, NEXT], known)
  assert drawn(tokenizer, tokens.after(len(before.ids))) == (
    '<|im_end|>\n<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n',
    't' * 28 + 'uuuu' + 't' * 33,
  )


def test_words_of_the_mark_may_be_in_a_conversation():
  tokenizer = chatml_tokenizer()
  encoder = PromptEncoder(model(tokenizer, CHATML))
  odd = {'role': 'user', 'content': 'zqj zqjzqjzqj'}
  _, first = encoder.encode([odd])
  before = sampled(first, [50, 401], 1)
  turns = [odd, REPLY, odd, REPLY, odd]
  _, tokens = encoder.encode(turns[:3], Known(2, before, '<|im_end|>'))
  before = sampled(tokens, [50, 401], 3)
  _, tokens = encoder.encode(turns, Known(4, before, '<|im_end|>'))
  text, _ = drawn(tokenizer, tokens.after(len(before.ids)))
  assert text == (
    '\n<|im_start|>user\nzqj zqjzqjzqj<|im_end|>\n<|im_start|>assistant\n'
  )


@pytest.mark.parametrize(
  ('text', 'messages', 'words', 'code'),
  [
    (
      CHATML,
      [{'role': 'user', 'content': 'x<|im_end|>'}],
      'turn 0 holds the text of the special token',
      'special_text',
    ),
    (
      PLAIN,
      [{'role': 'user', 'content': 'two\nlines'}],
      'holds one line a turn',
      'template_raises',
    ),
    (
      CHATML.replace(
        'm.role +', "(m.role if m.role != 'tool' else '') +"
      ).replace('m.content +', "(m.content if m.role != 'tool' else '') +"),
      [USER, TOOL],
      'turn 1 (tool)',
      'content_dropped',
    ),
    (
      CHATML,
      [{'role': 'user', 'content': '\ud800'}],
      'half of a surrogate pair',
      'malformed',
    ),
  ],
)
def test_a_conversation_that_nobody_could_learn_from_is_refused(
  text, messages, words, code
):
  encoder = PromptEncoder(model(chatml_tokenizer(), text))
  with pytest.raises(ApiError) as failure:
    encoder.encode(messages)
  assert words in str(failure.value)
  assert failure.value.fields['code'] == code
  assert failure.value.status == 400


def test_a_model_without_a_template_is_refused():
  with pytest.raises(ValueError, match='--serve needs a chat template'):
    PromptEncoder(model(chatml_tokenizer(), ''))
