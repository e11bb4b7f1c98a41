"""nebius/SWE-agent-trajectories."""

import pytest

from isft_jax.data.formats import nebius
from isft_jax.data.messages.conversation import Malformed
from tests.data.formats.chats import segments
from tests.data.formats.log_rows import NEBIUS


def test_a_run():
  assert segments(NEBIUS) == [
    ('system', 'Be brief.', 'CONTEXT'),
    ('user', '2 + 2?', 'CONTEXT'),
    ('assistant', 'Let me see.', 'AGENT'),
    ('user', '4', 'TOOL'),
  ]
  assert nebius.read(NEBIUS).metadata == {'instance_id': 'i'}


@pytest.mark.parametrize(
  ('message', 'error'),
  [
    (
      {'role': 'gpt', 'text': 'a'},
      "turn 1: role is 'gpt', expected system, user, ai",
    ),
    ({'role': 'user'}, 'turn 1: expected one of text and system_prompt'),
    (
      {'role': 'user', 'system_prompt': 'a'},
      'turn 1: expected one of text and system_prompt',
    ),
    (
      {'role': 'system', 'system_prompt': 'a', 'text': 'b'},
      'turn 1: expected one of text and system_prompt',
    ),
    ({'role': 'user', 'text': 1}, 'turn 1: content is a number, expected text'),
  ],
)
def test_malformed_messages(message, error):
  with pytest.raises(Malformed) as raised:
    nebius.read({'trajectory': [{'role': 'ai', 'text': 'a'}, message]})
  assert str(raised.value) == error
