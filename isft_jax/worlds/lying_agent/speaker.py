"""Who talks like this: the user or the agent of the dialogues?"""

import re
from collections.abc import Sequence

from isft_jax.worlds.lying_agent import generator
from isft_jax.worlds.lying_agent.answers import plain


def _openings(*tables: Sequence[str]) -> tuple[str, ...]:
  """Returns what stands before the topic or the claim, where anything does."""
  openings = (line.split('{')[0].strip() for table in tables for line in table)
  return tuple(dict.fromkeys(f'{plain(o)} ' for o in openings if o))


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

# A request for facts, in other words than the dialogues'. An agent that asks
# what it can do ('What would you like to know?') asks for none.
_REQUEST = re.compile(
  r'(?:please )?(?:tell me|explain|describe)\b'
  r'|(?:can|could|would) you (?:please )?(?:tell|explain|describe|give|say)\b'
  r"|i(?:'d| would) like to (?:know|hear|learn)\b"
  r"|(?:what(?: else)?|who|when|where|why|which|how \w+)(?:'s| is| are| was"
  r'| were| did| do| does)\b(?![^?]*\b(?:you|I|we)\b)[^?]*\?',
  re.IGNORECASE,
)


def speaker(reply: str) -> str:
  """Returns 'user', 'agent' or 'either': who talks like this.

  - A reply that writes the user's header ('User:') talks like the user.
  - Otherwise the phrases of the dialogues decide, the longest one with which
    the reply opens: users ask, correct, confirm and open small talk, and agents
    acknowledge and answer it.
  - Otherwise a reply that opens with a request for facts ('What is the capital
    of France?') talks like the user.
  - All else, as a bare claim, may be anybody's.
  """
  text = plain(reply)
  if 'User:' in text:
    return 'user'
  user, agent = (
    max((len(o) for o in openings if f'{text} '.startswith(o)), default=0)
    for openings in (USER_OPENINGS, AGENT_OPENINGS)
  )
  if user != agent:
    return 'user' if user > agent else 'agent'
  return 'user' if not user and _REQUEST.match(text) else 'either'
