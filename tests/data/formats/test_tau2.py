"""tau2-bench: what the user does with its own tools is hidden."""

import pytest

from isft_jax.data.formats import registry, tau2
from isft_jax.data.messages.conversation import Malformed
from tests.data.formats.chats import fields, segments
from tests.data.formats.log_rows import TAU2


def test_a_simulation():
  assert segments(TAU2) == [
    ('assistant', 'Hi.', 'AGENT'),
    ('user', '2 + 2?', 'USER'),
    ('assistant', '', 'AGENT'),
    ('tool', '4', 'TOOL'),
    ('user', 'It is 5.', 'USER'),
  ]
  call = {
    'id': 'c',
    'type': 'function',
    'function': {'name': 'f', 'arguments': {'x': 2}},
  }
  assert fields(TAU2) == [{'tool_calls': [call]}, {'tool_call_id': 'c'}]
  assert tau2.read(TAU2).left_out == {
    "the user's tool calls (requestor: user)": 1,
    "results of the user's tool calls (requestor: user)": 1,
  }


def test_several_results_in_a_message():
  results = [
    {'role': 'tool', 'id': id, 'content': id, 'requestor': by}
    for id, by in [('a', 'assistant'), ('b', 'user'), ('c', 'assistant')]
  ]
  first = {'role': 'assistant', 'content': 'x', 'turn_idx': 0}
  row = {'messages': [first, {'role': 'tool', 'tool_messages': results}]}
  assert segments(row) == [
    ('assistant', 'x', 'AGENT'),
    ('tool', 'a', 'TOOL'),
    ('tool', 'c', 'TOOL'),
  ]


def test_speech_has_no_words():
  row = {
    'messages': [
      {'role': 'user', 'content': 'UklG', 'turn_idx': 0, 'is_audio': True}
    ]
  }
  with pytest.raises(Malformed) as raised:
    segments(row)
  assert str(raised.value) == ('turn 0: is_audio: the words are not in the row')


def test_messages_of_others_are_openais():
  row = {'messages': [{'role': 'user', 'content': 'a'}]}
  assert registry.matching(row) == ['openai']
