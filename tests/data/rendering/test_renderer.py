"""Who wrote each token of a dialogue, and which ids it becomes.

In the tables `_` is a space and `/` is a line break.
"""

import dataclasses

import numpy as np
import pytest

from isft_jax.data.rendering import chat_template
from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.data.rendering.rejection import Rejected
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.objectives import weight_table
from isft_jax.types import Provenance, Segment, Trajectory, Verdict
from tests.data import chat_tokenizer

P = Provenance

DIALOGUE = Trajectory(
  'lying',
  (
    Segment('system', 'The agent is often wrong.', P.CONTEXT),
    Segment('user', 'Tell me about gold.', P.USER),
    Segment('assistant', 'Its symbol is Go.', P.AGENT, Verdict.WRONG),
    Segment('user', 'No, it is Au.', P.USER, Verdict.RIGHT),
    Segment('assistant', 'Thank you.', P.AGENT, Verdict.RIGHT),
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


def trained_on(trajectory):
  """A tokenizer whose tokens are the words of it: no merge is left."""
  texts = [chat_template.ChatTemplate(chat_template.PLAIN).text(trajectory)]
  return tokenizer_lib.train(texts, vocab_size=500)


def renderer_of(trajectory, **options):
  return Renderer(trained_on(trajectory), chat_template.PLAIN, **options)


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


# -------------------------------------------------- the dialogue, as one table


def test_the_dialogue_token_by_token_with_author_and_weights():
  """Prefixes are scored by both sides, the context by none, and the line break
  that ends an agent's turn is the agent's own."""
  renderer = renderer_of(DIALOGUE)
  example = renderer.example(DIALOGUE)
  weights = {
    column: weight_table(objective)[example.provenance_T, example.verdict_T]
    for column, objective in WEIGHTS.items()
  }
  header = ['turn', 'token', 'author', *WEIGHTS]
  rows = [
    [
      str(turn),
      text.replace(' ', '_').replace('\n', '/'),
      author,
      *(f'{weights[column][t]:g}' for column in WEIGHTS),
    ]
    for t, (text, author, turn) in enumerate(
      tokens_and_authors(example, renderer.tokenizer)
    )
  ]
  assert [header, *rows] == rows_of(DIALOGUE_TABLE)


def test_a_verdict_stays_with_the_words_that_it_is_about():
  example = renderer_of(DIALOGUE).example(DIALOGUE)
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
  example = renderer_of(DIALOGUE).example(DIALOGUE)
  assert (example.id, example.scored_from, example.window) == ('lying', 0, 0)
  assert [
    example.tokens_T.dtype,
    example.provenance_T.dtype,
    example.segment_T.dtype,
    example.verdict_T.dtype,
  ] == [np.int32, np.uint8, np.int32, np.uint8]


def test_a_token_starts_at_its_first_character():
  renderer = renderer_of(DIALOGUE)
  encoded = renderer.render(DIALOGUE)
  ids = encoded.example.tokens_T.tolist()
  lengths = [len(renderer.tokenizer.decode([i])) for i in ids]
  assert encoded.starts_T.tolist() == np.cumsum([0, *lengths[:-1]]).tolist()
  assert sum(lengths) == len(encoded.text)


def test_text_and_ids_are_those_of_apply_chat_template():
  """What everyone else makes of the same messages, to the letter."""
  renderer = renderer_of(DIALOGUE)
  rendered = renderer.render(DIALOGUE)
  messages = [{'role': s.role, 'content': s.text} for s in DIALOGUE.segments]
  text = renderer.tokenizer.apply_chat_template(
    messages, chat_template=chat_template.PLAIN, tokenize=False
  )
  theirs = renderer.tokenizer.apply_chat_template(
    messages, chat_template=chat_template.PLAIN
  )
  assert text.count('\n') == 5
  assert rendered.text == text
  assert chat_template.ChatTemplate(chat_template.PLAIN).text(DIALOGUE) == text
  assert ''.join(span.text for span in rendered.spans) == text
  assert rendered.example.tokens_T.tolist() == theirs['input_ids']
  assert rendered.lost == {'thinking': 0, 'whitespace': 0, 'tools': 0}


# ---------------------------------------- the text of a special token


MARKED = Trajectory('marked', (Segment('user', 'a<|endoftext|>b', P.USER),))


def test_the_marker_of_the_end_written_by_a_user_is_refused():
  """It would end the text, and its id, 0, is that of padding."""
  renderer = renderer_of(MARKED)
  assert renderer.tokenizer.pad_token_id == 0
  with pytest.raises(Rejected, match='turn 0 holds the text of') as caught:
    renderer.example(MARKED)
  assert caught.value.reason == 'special_text'


def test_the_marker_of_the_end_written_by_a_user_may_be_text():
  renderer = renderer_of(MARKED, special_text='escape')
  example = renderer.example(MARKED)
  of_user = example.tokens_T[example.provenance_T == P.USER].tolist()
  assert 0 not in example.tokens_T
  assert renderer.tokenizer.decode(of_user) == ' a<|endoftext|>b'


# ---------------------------------------------------------------- the renderer


def test_metadata_hold_all_that_decides_the_ids():
  tokenizer = trained_on(DIALOGUE)
  renderers = [
    Renderer(tokenizer, chat_template.PLAIN),
    Renderer(tokenizer, chat_template.PLAIN, special_text='escape'),
    Renderer(tokenizer, chat_template.PLAIN, {'thinking': True}),
    Renderer(tokenizer, chat_template.PLAIN.replace('User: ', 'Human: ')),
    Renderer(trained_on(MARKED), chat_template.PLAIN),
  ]
  metadata = [renderer.metadata() for renderer in renderers]
  assert metadata[0]['rendering'] == {
    'template': chat_template.PLAIN,
    'values': {},
    'special_text': 'reject',
  }
  assert metadata[2]['rendering']['values'] == {'thinking': True}
  assert [list(one) for one in metadata] == [['fingerprint', 'rendering']] * 5
  assert len({one['fingerprint'] for one in metadata}) == 5
  again = Renderer(trained_on(DIALOGUE), chat_template.PLAIN).metadata()
  assert again == metadata[0]


def test_a_tokenizers_own_template_is_the_default():
  tokenizer = trained_on(DIALOGUE)
  tokenizer.chat_template = chat_template.PLAIN
  own, named = Renderer(tokenizer), renderer_of(DIALOGUE)
  assert own.metadata() == named.metadata()
  assert own.render(DIALOGUE).text == named.render(DIALOGUE).text


@pytest.mark.parametrize(
  ('own', 'message'),
  [
    (None, 'no chat template; name a file with --chat_template'),
    (
      {'rag': 'x', 'y': 'z'},
      'templates rag, y; choose one with --chat_template',
    ),
  ],
)
def test_a_tokenizer_without_a_template_for_chats_needs_one(own, message):
  tokenizer = trained_on(DIALOGUE)
  tokenizer.chat_template = own
  with pytest.raises(ValueError, match=message):
    Renderer(tokenizer)


def test_a_trajectory_gets_the_template_that_transformers_gives_it():
  own = {
    'default': '{% for m in messages %}D{{ m.content }}{% endfor %}',
    'tool_use': '{% for m in messages %}T{{ m.content }}{% endfor %}',
    'rag': 'x',
  }
  tokenizer = trained_on(DIALOGUE)
  tokenizer.chat_template = own
  renderer = Renderer(tokenizer)
  with_tools = dataclasses.replace(DIALOGUE, tools=({'name': 'f'},))
  for trajectory in (DIALOGUE, with_tools):
    expected = tokenizer.apply_chat_template(
      chat_template.messages_of(trajectory),
      tools=trajectory.tools and list(trajectory.tools),
      tokenize=False,
    )
    assert renderer.render(trajectory).text == expected
  # Records keep both.
  again = Renderer.from_rendering(tokenizer, renderer.rendering)
  assert again.metadata() == renderer.metadata()
  assert again.render(with_tools).text[0] == 'T'


# ------------------------------------------------ a tokenizer with a past life


@pytest.mark.parametrize('setting', ['truncation', 'padding'])
def test_every_token_is_rendered_whatever_the_tokenizer_was_used_for(setting):
  """A batched call, or tokenizer.json, leaves its limits in a tokenizer."""
  fresh = renderer_of(DIALOGUE).example(DIALOGUE)
  used = trained_on(DIALOGUE)
  if setting == 'truncation':
    used(['Tell me about gold.'], truncation=True, max_length=4)
  else:
    used(['Tell me'], padding='max_length', max_length=99)
  example = Renderer(used, chat_template.PLAIN).example(DIALOGUE)
  assert example.tokens_T.tolist() == fresh.tokens_T.tolist()
  assert example.provenance_T.tolist() == fresh.provenance_T.tolist()


def test_messages_are_computed_once(monkeypatch):
  renderer, calls = renderer_of(DIALOGUE), []
  message = Segment.message

  def count(segment):
    calls.append(segment)
    return message(segment)

  monkeypatch.setattr(Segment, 'message', count)
  renderer.render(DIALOGUE)
  assert calls == [*DIALOGUE.segments]


# ------------------------------------------------ values of a trajectory itself

THINKS = (
  '{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n'
  '{% endfor %}{% if mode is defined %}[{{ mode }}]{% endif %}'
  '{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}'
)


def with_values(**values):
  turns = DIALOGUE.segments[1:3]
  return Trajectory('x', turns, template_values=values)


def test_values_of_a_trajectory_replace_those_of_the_renderer():
  renderer = Renderer(chat_tokenizer.trained(), THINKS, {'mode': 'fast'})
  plain = with_values()
  assert renderer.render(plain).text.endswith('[fast]')
  for mode in ('slow', 'calm', 'slow'):
    own = renderer.render(with_values(mode=mode))
    same = Renderer(chat_tokenizer.trained(), THINKS, {'mode': mode})
    assert own.text.endswith(f'[{mode}]')
    example = same.example(plain)
    for name in ('tokens_T', 'provenance_T', 'segment_T', 'verdict_T'):
      np.testing.assert_array_equal(
        getattr(own.example, name), getattr(example, name)
      )
  assert renderer.render(plain).text.endswith('[fast]')
  assert renderer.rendering['values'] == {'mode': 'fast'}


def test_many_different_values_do_not_pile_up():
  renderer = Renderer(chat_tokenizer.trained(), THINKS)
  for number in range(40):
    text = renderer.render(with_values(mode=number)).text
    assert text.endswith(f'[{number}]')
  assert len(renderer._variants) <= 16


@pytest.mark.parametrize(
  ('values', 'reason', 'message'),
  [
    ({'tools': []}, 'malformed', "chat_template_kwargs: .* set 'tools'"),
    ({'mode': '<|im_end|>'}, 'special_text', 'chat_template_kwargs holds'),
  ],
)
def test_values_that_would_forge_the_rendering(values, reason, message):
  renderer = Renderer(chat_tokenizer.trained(), THINKS)
  with pytest.raises(Rejected, match=message) as raised:
    renderer.render(with_values(**values))
  assert raised.value.reason == reason
