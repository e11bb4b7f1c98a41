"""Forms of tool calls that some chat templates want."""

import dataclasses
import pickle

import pytest

from isft_jax.data.formats import registry
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.rendering.call_forms import (
  with_call_ids,
  with_text_arguments,
)
from isft_jax.data.rendering.rejection import Rejected
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.types import JsonObject, Provenance, Segment, Trajectory
from tests.data import chat_tokenizer


def row(arguments, *ids):
  """Returns the trajectory of a row with one call, and its answer."""
  call, answer = ids or ('call_1', 'call_1')
  function = {'name': 'look', 'arguments': arguments}
  messages = [
    {'role': 'user', 'content': 'Hi?'},
    {
      'role': 'assistant',
      'content': '',
      'tool_calls': [{'id': call, 'type': 'function', 'function': function}],
    },
    {'role': 'tool', 'tool_call_id': answer, 'content': 'warm'},
  ]
  return registry.read({'messages': messages}, 'x', 'auto', Rules.default())


def text_of(trajectory, each_call, **settings):
  template = (
    '{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}'
    '{% for c in m.tool_calls or [] %}' + each_call + '{% endfor %}'
    '{{ m.tool_call_id }}<|im_end|>\n{% endfor %}'
    '{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}'
  )
  renderer = Renderer(chat_tokenizer.trained(), template, **settings)
  return renderer.render(trajectory).text


# ------------------------------------------------------------------- arguments

AS_TEXT = "{{ c.function.name + '(' + c.function.arguments + ')' }}"
AS_OBJECT = "{{ c.function.name ~ '(' ~ c.function.arguments.city ~ ')' }}city"


@pytest.mark.parametrize(
  ('arguments', 'shown'),
  [
    # The text that stands in the row, with its white space and escapes.
    ('{"city":  "R\\u00f6m"}', 'look({"city":  "R\\u00f6m"})'),
    # JSON of an object.
    ({'city': 'Röm', 'n': 1}, 'look({"city": "Röm", "n": 1})'),
    ({}, 'look({})'),
  ],
)
def test_a_template_that_wants_text_gets_it(arguments, shown):
  assert shown in text_of(row(arguments), AS_TEXT)


def test_a_template_that_takes_both_gets_the_object():
  both = (
    '{{ c.function.name }}{% if c.function.arguments is string %}TEXT'
    '{% endif %}{{ c.function.arguments | tojson }}'
  )
  assert 'look{"a": 1}' in text_of(row('{"a":1}'), both)


def test_a_template_that_refuses_both_says_why_it_refused_the_object():
  refuses = (
    '{{ raise_exception("arguments " ~ (c.function.arguments is string)) }}'
  )
  with pytest.raises(Rejected, match='Error: arguments False') as caught:
    text_of(row('{"a": 1}'), refuses)
  assert caught.value.reason == 'template_raises'


def test_a_template_that_refuses_the_roles_is_asked_once(monkeypatch):
  renderer = Renderer(
    chat_tokenizer.trained(), '{{ raise_exception("roles must alternate") }}'
  )
  original = renderer._render
  tries = []

  def counted(*arguments):
    tries.append(1)
    return original(*arguments)

  monkeypatch.setattr(renderer, '_render', counted)
  with pytest.raises(Rejected, match='roles must alternate'):
    renderer.render(row('{"a": 1}'))
  assert len(tries) == 1


def test_messages_without_calls_have_no_other_form():
  assert with_text_arguments([{'role': 'user', 'content': 'Hi?'}]) is None
  broken = {'role': 'assistant', 'content': '', 'tool_calls': [None, {}, 'x']}
  assert with_text_arguments([broken]) is None


def test_a_parsed_object_keeps_its_text_when_it_is_pickled():
  value = JsonObject({'a': 1}, '{"a":1}')
  again = pickle.loads(pickle.dumps(value))
  assert (again, again.text) == (value, '{"a":1}')


# ------------------------------------------------------------------------- ids


def ids_of(messages):
  return [
    [call['id'] for call in m['tool_calls']]
    if 'tool_calls' in m
    else m.get('tool_call_id')
    for m in messages
  ]


def calls(*ids):
  function = {'name': 'f', 'arguments': {}}
  tool_calls = [{'id': id, 'function': function} for id in ids]
  return {'role': 'assistant', 'content': '', 'tool_calls': tool_calls}


def answer(id=None):
  message = {'role': 'tool', 'content': 'x'}
  return message if id is None else {**message, 'tool_call_id': id}


@pytest.mark.parametrize(
  ('messages', 'expected'),
  [
    # Answers in any order.
    (
      [calls('a', 'b'), answer('b'), answer('a')],
      [['000', '001'], '001', '000'],
    ),
    # The same id in two turns is two calls.
    (
      [calls('a'), answer('a'), calls('a'), answer('a')],
      [['000'], '000', ['001'], '001'],
    ),
    # Without ids, answers come in the order of the calls.
    (
      [calls(None, None), answer(), answer(), answer()],
      [['000', '001'], '000', '001', None],
    ),
    # Numbers go on from turn to turn.
    (
      [calls('a'), answer('a'), calls('b', 'c'), answer('c'), answer('b')],
      [['000'], '000', ['001', '002'], '002', '001'],
    ),
    # An answer to no call answers the oldest.
    (
      [calls('a', 'b'), answer('z'), answer('b')],
      [['000', '001'], '000', '001'],
    ),
    ([answer('a')], ['a']),
    ([{'role': 'user', 'content': 'Hi?'}], [None]),
  ],
)
def test_ids_of_calls_and_answers_stay_the_same(messages, expected):
  before = repr(messages)
  assert ids_of(with_call_ids(messages, 3)) == expected
  assert repr(messages) == before


def test_nine_digits_satisfy_a_template_that_demands_them():
  demands = (
    '{% if c.id | length != 9 %}{{ raise_exception("nine") }}{% endif %}'
    '{{ c.id ~ c.function.name ~ c.function.arguments | tojson }}'
  )
  with pytest.raises(Rejected, match='nine'):
    text_of(row({}), demands)
  text = text_of(row({}), demands, call_id_digits=9)
  assert '000000000look{}' in text
  assert 'warm000000000<|im_end|>' in text


def test_records_know_that_ids_were_renumbered():
  tokenizer = chat_tokenizer.trained()
  template = chat_tokenizer.template('chatml')
  plain = Renderer(tokenizer, template)
  nine = Renderer(tokenizer, template, call_id_digits=9)
  assert 'call_id_digits' not in plain.rendering
  assert nine.metadata()['fingerprint'] != plain.metadata()['fingerprint']
  again = Renderer.from_rendering(tokenizer, nine.rendering)
  assert again.rendering == nine.rendering


# ----------------------------------------------------- words that are left out

# Words beside a call are left out, as in Llama 3.
DROPS = (
  '{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.tool_calls %}'
  '{% for c in m.tool_calls %}{{ c.function.name }}'
  '{{ c.function.arguments | tojson }}{% endfor %}{% else %}'
  '{% if m.reasoning_content and loop.last %}<think>{{ m.reasoning_content }}'
  '</think>{% endif %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}'
  '{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}'
)


def conversation(*turns):
  segments = []
  for text in turns:
    if text.endswith('?'):
      segments.append(Segment('user', text, Provenance.USER))
    else:
      thought, _, words = text.rpartition('|')
      fields = {'reasoning_content': thought} if thought else {}
      segments.append(
        Segment('assistant', words, Provenance.AGENT, fields=fields)
      )
  return Trajectory('x', tuple(segments))


def test_words_beside_a_call_may_be_left_out_if_the_user_says_so():
  renderer = Renderer(chat_tokenizer.trained(), DROPS)
  segments = list(row({}).segments)
  segments[1] = dataclasses.replace(segments[1], text='Let me see.')
  trajectory = Trajectory('x', tuple(segments))
  with pytest.raises(Rejected, match=r"of 'Let me see\.'; see --on"):
    renderer.render(trajectory)
  rendered = renderer.render(trajectory, may_drop=True)
  assert 'see' not in rendered.text
  assert rendered.lost['words'] == len('Let me see.')


def test_each_turn_of_the_agent_is_rendered_as_the_agent_saw_it():
  renderer = Renderer(chat_tokenizer.trained(), DROPS)
  pieces = renderer.render_turns(
    conversation('Hi?', 'Hm.|Yo.', 'So?', 'Ah.|No.', 'Why?')
  )
  assert [piece.text for piece in pieces] == [
    '<|im_start|>user\nHi?<|im_end|>\n'
    '<|im_start|>assistant\n<think>Hm.</think>Yo.<|im_end|>\n',
    '<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\nYo.<|im_end|>\n'
    '<|im_start|>user\nSo?<|im_end|>\n'
    '<|im_start|>assistant\n<think>Ah.</think>No.<|im_end|>\n',
    '<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\nYo.<|im_end|>\n'
    '<|im_start|>user\nSo?<|im_end|>\n<|im_start|>assistant\nNo.<|im_end|>\n'
    '<|im_start|>user\nWhy?<|im_end|>\n',
  ]
  # Only what is new is scored: up to a turn of the agent, or to the end.
  new = []
  for piece in pieces:
    start = piece.example.scored_from
    new.append(piece.text[piece.starts_T[start] :])
    assert piece.example.window == len(new) - 1
  assert new == [
    pieces[0].text,
    '\n<|im_start|>user\nSo?<|im_end|>\n'
    '<|im_start|>assistant\n<think>Ah.</think>No.<|im_end|>\n',
    '\n<|im_start|>user\nWhy?<|im_end|>\n',
  ]


def test_a_call_without_an_envelope_is_checked_too():
  call = {'name': 'look', 'arguments': {'city': 'Rome'}}
  trajectory = Trajectory(
    'x',
    (
      Segment('user', 'Hi?', Provenance.USER),
      Segment('assistant', '', Provenance.AGENT, fields={'tool_calls': [call]}),
    ),
  )
  shown = text_of(trajectory, '{{ c.name ~ c.arguments | tojson }}')
  assert 'look{"city": "Rome"}' in shown
  with pytest.raises(Rejected, match="the template leaves out 'Rome'"):
    text_of(trajectory, '{{ c.name }}{{ c.arguments.keys() | join }}')


# The system prompt stands behind the words of the last user, as in templates
# that keep it near the end.
LATE_SYSTEM = (
  '{% for m in messages %}{% if m.role != "system" %}<|im_start|>{{ m.role }}\n'
  '{{ m.content }}{% if loop.index0 == messages | length - 2 %}'
  ' ({{ messages[0].content }}){% endif %}<|im_end|>\n{% endif %}'
  '{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}'
)


def test_words_before_a_late_system_prompt_are_scored_too():
  trajectory = conversation('Hi?', 'Yo.', 'So?', 'No.')
  system = Segment('system', 'Be brief.', Provenance.CONTEXT)
  segments = (system, *trajectory.segments)
  renderer = Renderer(chat_tokenizer.trained(), LATE_SYSTEM)
  pieces = renderer.render_turns(Trajectory('x', segments))
  last = pieces[-1]
  start = last.starts_T[last.example.scored_from]
  assert last.text[start:] == (
    '\n<|im_start|>user\nSo? (Be brief.)<|im_end|>\n'
    '<|im_start|>assistant\nNo.<|im_end|>\n'
  )


def test_an_agents_turn_without_words_is_context_of_the_next():
  template = (
    '{% for m in messages %}{{ "[" ~ m.content ~ "]" if m.role == "user" else '
    'm.content }}{% endfor %}'
  )
  renderer = Renderer(chat_tokenizer.trained(), template)
  pieces = renderer.render_turns(conversation('Hi?', '', 'So?', 'No.'))
  last = pieces[-1]
  assert last.text == '[Hi?][So?]No.'
  assert last.text[last.starts_T[last.example.scored_from] :] == '[So?]No.'
