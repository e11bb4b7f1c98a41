"""Turns of a user and an agent, in the roles that templates know."""

import pytest

from isft_jax.data.formats import registry, turns
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.messages.conversation import Malformed
from isft_jax.types import Provenance, Segment, Verdict


def said(role, text, **marks):
  return {'role': role, 'text': text, **marks}


def test_a_dialogue_with_its_verdicts():
  row = {
    'turns': [
      said('user', 'Tell me about gold.'),
      said('agent', 'Its symbol is Go.', verdict='wrong'),
      said('user', 'It is Au.', verdict='right'),
      said('assistant', 'Thanks.'),
    ],
    'system': 'Be brief.',
  }
  found = registry.read(row, 'x', 'auto', Rules.default())
  assert found.segments == (
    Segment('system', 'Be brief.', Provenance.CONTEXT),
    Segment('user', 'Tell me about gold.', Provenance.USER),
    Segment('assistant', 'Its symbol is Go.', Provenance.AGENT, Verdict.WRONG),
    Segment('user', 'It is Au.', Provenance.USER, Verdict.RIGHT),
    Segment('assistant', 'Thanks.', Provenance.AGENT),
  )


@pytest.mark.parametrize(
  ('turn', 'message'),
  [
    (said('bot', 'a'), "turn 1: role is 'bot', expected system, user, agent"),
    ({'role': 'user'}, 'turn 1: no text'),
    (said('user', 'a', content='b'), 'turn 1: has both text and content'),
    (said('user', 7), 'turn 1: content is a number, expected text'),
  ],
)
def test_what_would_have_to_be_guessed_is_refused(turn, message):
  with pytest.raises(Malformed, match=message):
    turns.read({'turns': [said('user', 'a'), turn]})
