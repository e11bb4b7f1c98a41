"""Classifies a reply as typical of the user or of the agent."""

import re
from collections.abc import Sequence

from isft_jax.worlds.lying_agent import generator
from isft_jax.worlds.lying_agent.answers import plain


def _openings(*tables: Sequence[str]) -> tuple[str, ...]:
  """Returns the text before the placeholder of each phrase, if there is any."""
  openings = (line.split('{')[0].strip() for table in tables for line in table)
  return tuple(dict.fromkeys(f'{plain(o)} ' for o in openings if o))


# Opening phrases of each role, from the tables of the generator.
USER_OPENINGS = _openings(
  generator.QUESTIONS,
  generator.CORRECTIONS,
  generator.CONFIRMATIONS,
  [user for user, _ in generator.CHITCHAT],
)
AGENT_OPENINGS = _openings(
  generator.AFTER_CORRECTION,
  generator.AFTER_CONFIRMATION,
  [agent for _, agent in generator.CHITCHAT],
)

# Requests for facts that are worded differently from those in the dialogues. An
# agent's offer to help ('What would you like to know?') is not such a request.
_REQUEST = re.compile(
  r'(?:please )?(?:tell me|explain|describe)\b'
  r'|(?:can|could|would) you (?:please )?(?:tell|explain|describe|give|say)\b'
  r"|i(?:'d| would) like to (?:know|hear|learn)\b"
  r"|(?:what(?: else)?|who|when|where|why|which|how \w+)(?:'s| is| are| was"
  r'| were| did| do| does)\b(?![^?]*\b(?:you|I|we)\b)[^?]*\?',
  re.IGNORECASE,
)


def speaker(reply: str) -> str:
  """Returns the role that a reply is typical of.

  1. 'user' if the reply contains the user's header ('User:').
  2. Otherwise the longest phrase of the dialogues that opens the reply decides.
     Users ask, correct, confirm and open small talk; agents acknowledge and
     answer small talk.
  3. Otherwise 'user' if the reply opens with a request for facts ('What is the
     capital of France?').
  4. Otherwise 'either'; for example, a bare claim.

  Args:
    reply: text of the reply.

  Returns:
    'user', 'agent' or 'either'.
  """
  text = plain(reply)
  if 'User:' in text:
    return 'user'
  # Lengths of the longest matching phrases of the user and of the agent.
  user, agent = (
    max((len(o) for o in openings if f'{text} '.startswith(o)), default=0)
    for openings in (USER_OPENINGS, AGENT_OPENINGS)
  )
  if user != agent:
    return 'user' if user > agent else 'agent'
  # Equal lengths: without a phrase a request decides, otherwise the phrase is
  # used by both roles.
  return 'user' if not user and _REQUEST.match(text) else 'either'
