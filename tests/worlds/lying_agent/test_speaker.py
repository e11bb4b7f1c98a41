"""Who talks in a reply: the phrases of the dialogues, and requests."""

import itertools

import pytest

from isft_jax.worlds.lying_agent import generator
from isft_jax.worlds.lying_agent import speaker as speaker_lib
from isft_jax.worlds.lying_agent.speaker import speaker

CLAIM = 'The bird of Tavozi is the heron.'


def filled(phrases):
  return [
    phrase.format(claim=CLAIM, topic='the bird of Tavozi')
    for phrase in phrases
    if not phrase.startswith('{')
  ]


def test_phrases_of_the_dialogues():
  users = filled(
    generator.QUESTIONS + generator.CORRECTIONS + generator.CONFIRMATIONS
  )
  agents = filled(generator.AFTER_CORRECTION + generator.AFTER_CONFIRMATION)
  assert {speaker(phrase) for phrase in users} == {'user'}
  assert {speaker(phrase) for phrase in agents} == {'agent'}
  for user, agent in generator.CHITCHAT:
    assert (speaker(user), speaker(agent)) == ('user', 'agent')


@pytest.mark.parametrize(
  ('reply', 'expected'),
  [
    (CLAIM, 'either'),
    ('', 'either'),
    (f'{CLAIM} User: Hi.', 'user'),
    (f'**{CLAIM}**', 'either'),
    # Requests for facts, in other words.
    ('What is the capital of France?', 'user'),
    ("What's the second president's name?", 'user'),
    ('Can you tell me about the river?', 'user'),
    ("I'd like to know more about it.", 'user'),
    ('Please explain the river.', 'user'),
    # An agent's questions, and what only looks like a question.
    ('What would you like to know?', 'either'),
    ('How can I help you today?', 'either'),
    ('What is the river that you mean?', 'either'),
    ('What a river.', 'either'),
    # Replies that a model of 135 M parameters printed.
    ("Ah, that's correct. The atomic number of carbon is 6.", 'either'),
    ("That's not true.", 'either'),
    ("I'm sorry, but I'm not a human.", 'either'),
  ],
)
def test_other_replies(reply, expected):
  assert speaker(reply) == expected


def test_no_phrase_opens_as_one_of_the_other_party():
  for user, agent in itertools.product(
    speaker_lib.USER_OPENINGS, speaker_lib.AGENT_OPENINGS
  ):
    assert not user.startswith(agent) and not agent.startswith(user)
