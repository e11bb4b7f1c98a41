"""Format of mini-swe-agent's trajectories, versions 1 and 2.

    {"trajectory_format": "mini-swe-agent-1.1", "info": {...},
     "messages": [
       {"role": "system", "content": "Use bash."},
       {"role": "user", "content": "Fix it."},
       {"role": "assistant", "content": "...", "tool_calls": [...]},
       {"role": "tool", "content": "<returncode>0</returncode>", ...},
       {"role": "exit", "content": "diff --git a b"}]}

The model never saw how the run ended: messages with the role exit, and in
version 1 the last message if it is the submission. They are left out.

After the first action, the scaffold sends the output of commands with the role
user too. They are the tool's, complaints about a bad format are the scaffold's,
and what the user typed into a running agent is the user's. Runs with OpenAI's
Responses API have whole responses and outputs of calls among the messages.

Source: mini-swe-agent 2.4, agents/default.py; version 1, agents/default.py.
"""

from collections import Counter
from collections.abc import Mapping

from isft_jax.data.formats import response_items
from isft_jax.data.messages import model_messages, normalize
from isft_jax.data.messages.agent_items import Items
from isft_jax.data.messages.conversation import Chat, Malformed, Turn, kind
from isft_jax.data.messages.normalize import find, normalised, take
from isft_jax.types import Provenance

KEYS = ('messages',)  # of a row
HAS = ('role', 'content')  # keys of a message
WANTS = 'trajectory_format: mini-swe-agent-..., and messages'
USES = normalize.USES | response_items.USES | {'thinking_blocks', 'extra'}
PARTS = normalize.PARTS  # keys of a part of a content
_LEAST = 10  # characters by which a complaint is recognized


def matches(value: object) -> bool:
  """Returns whether a row has this format."""
  match = find(value, KEYS, HAS)
  if match is None:
    return False
  name = value.get('trajectory_format') if isinstance(value, dict) else None
  if isinstance(name, str) and name.startswith('mini-swe-agent'):
    return True
  # Data sets keep the messages only.
  return any(isinstance(m, dict) and m.get('role') == 'exit' for m in match[1])


def read(value: object) -> Chat:
  """Reads a row; its messages give the authors of most turns.

  Raises:
    Malformed: the row does not follow the format.
  """
  messages, tools, metadata = take(value, KEYS, HAS)
  info = metadata.get('info')
  info = info if isinstance(info, dict) else {}
  # Identifies complaints of the scaffold in the role of the user.
  complaint = _complaint(info)
  left_out: Counter[str] = Counter()
  # Runs on the Responses API store its items.
  if any(_is_item(message) for message in messages):
    return _read_items(messages, complaint, Chat([], tools, metadata))
  turns: list[Turn] = []
  acted = False
  for i, raw in enumerate(messages):
    is_last = i == len(messages) - 1
    # The end of a run is no message that the agent saw.
    if raw.get('role') == 'exit' or (
      acted and is_last and _is_submission(raw, info)
    ):
      left_out['exit'] += 1
      continue
    message = normalised(model_messages.known(raw, f'turn {i}'), len(turns))
    turns.append(Turn(message, _author(raw, acted, complaint), raw))
    acted |= raw.get('role') == 'assistant'
  return Chat(turns, tools, metadata, left_out)


def _is_item(message: Mapping) -> bool:
  """Returns whether a message is a response or an item of the Responses API."""
  return message.get('object') == 'response' or (
    isinstance(message.get('type'), str) and message.get('role') is None
  )


def _read_items(messages: list[dict], complaint: str | None, row: Chat) -> Chat:
  """Reads a run that used the Responses API.

  Args:
    messages: messages, whole responses and outputs of calls.
    complaint: as in `_author`.
    row: the tools and the metadata.

  Raises:
    Malformed: an item does not follow its format, or its words are hidden.
  """
  left_out: Counter[str] = Counter()
  items: list = []
  acted = False
  for i, raw in enumerate(messages):
    if raw.get('role') == 'exit':
      left_out['exit'] += 1
    # A response of the API has several items of the agent.
    elif raw.get('object') == 'response':
      output = raw.get('output')
      if not isinstance(output, list):
        raise Malformed(f'turn {i}: output is {kind(output)}, expected a list')
      items += output
      acted = True
    else:
      # An item has no place for the author, except the annotation.
      author = _author(raw, acted, complaint)
      mark = {} if author is None else {'author': author.name}
      items.append({**mark, **raw})
  turns, tools = Items(joined=False), [*(row.tools or [])]
  response_items.read(items, turns, tools, left_out)
  return Chat(turns.turns(), tools or None, row.metadata, left_out)


def _author(
  raw: Mapping, acted: bool, complaint: str | None
) -> Provenance | None:
  """Returns the author of a message, or None if its role decides.

  Args:
    raw: the message.
    acted: whether the agent has acted before this message.
    complaint: beginning of the scaffold's words about a bad format.
  """
  if raw.get('role') != 'user' or not acted:
    return None
  extra = raw.get('extra')
  extra = extra if isinstance(extra, dict) else {}
  interrupt = extra.get('interrupt_type')
  if isinstance(interrupt, str):
    is_users = interrupt.startswith('User')
    return Provenance.USER if is_users else Provenance.HARNESS
  # Version 1 has no types.
  content = raw.get('content')
  if complaint and isinstance(content, str) and content.startswith(complaint):
    return Provenance.HARNESS
  return Provenance.TOOL


def _is_submission(raw: Mapping, info: Mapping) -> bool:
  """Returns whether a last message is how a run of version 1 ended."""
  ends = (info.get('submission'), info.get('exit_status'))
  return (
    raw.get('role') == 'user'
    and 'extra' not in raw
    and raw.get('content') in [end for end in ends if isinstance(end, str)]
  )


def _complaint(info: Mapping) -> str | None:
  """Returns the beginning of the scaffold's words about a bad format."""
  config = info.get('config')
  template = None
  for key in ('agent', 'model'):
    place = config.get(key) if isinstance(config, dict) else None
    if isinstance(place, dict) and template is None:
      template = place.get('format_error_template')
  if not isinstance(template, str):
    return None
  # It is a template in Jinja: only the text before its first tag is fixed.
  fixed = template.split('{{')[0].split('{%')[0]
  return fixed if len(fixed.strip()) >= _LEAST else None
