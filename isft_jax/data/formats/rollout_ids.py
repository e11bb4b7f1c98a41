"""Token ids of rollouts: a prompt and a completion for each call of the model.

    {"trajectory": [                                           verifiers 0.1
       {"prompt": [...], "completion": [...],
        "tokens": {"prompt_ids": [1, 5], "completion_ids": [9, 2]}}]}

    {"turns": [{"prompt_ids": [1, 5], "completion_ids": [9, 2]}]}    OpenEnv

    {"prompt_ids": [1, 5], "completion_ids": [9, 7, 8, 2],   TRL, one call
     "completion_mask": [1, 0, 0, 1]}

The prompt of a call must begin with the prompt and the completion of the call
before; see `token_ids.join`. Completions are the agent's, except tokens with a
mask of 0, which are those of its other messages. Without messages, these are
the environment's, a first prompt is context, and what is new in a later prompt
is the environment's.

    {"turns": [{"role": "user", "token_ids": [1, 5]},     the ids of each turn
               {"role": "assistant", "token_ids": [9, 2]}]}

Source: verifiers 0.1.14, types.py; openenv-core 0.3, core/harness.
"""

import itertools
from collections.abc import Mapping

from isft_jax.data.formats.token_ids import (
  Piece,
  Sample,
  TokenChat,
  check_ids,
  join,
  stand_in,
)
from isft_jax.data.messages import model_messages, normalize
from isft_jax.data.messages.conversation import Chat, Malformed, Turn, kind
from isft_jax.data.messages.normalize import find, normalised

KEYS = ('trajectory', 'turns', 'steps', 'messages')  # of a row
WANTS = 'prompt_ids and completion_ids, of the row or of each of its turns'
USES = normalize.USES | {'token_ids'}
_IDS = 'token_ids'  # of a turn with a role
# Names of the two lists, and of the mask of the completion: 1 is the model's.
_PROMPT = ('prompt_ids', 'prompt_token_ids')
_COMPLETION = ('completion_ids', 'completion_token_ids', 'response_ids')
_NAMES = frozenset((*_PROMPT, 'tokens'))  # one is in every call
_MASK = ('completion_mask', 'env_mask', 'response_mask', 'tool_mask')


def matches(value: object) -> bool:
  """Returns whether a row has this format."""
  return bool(_calls(value)[1]) or _turns(value) is not None


def read(value: object) -> TokenChat:
  """Reads a row.

  Raises:
    Malformed: the row does not follow the format, or the calls are not one
      sequence.
  """
  # Some rows have the role and the ids of each turn, instead of calls.
  key_turns = _turns(value)
  if key_turns is not None:
    return _read_turns(*key_turns, value)
  key, calls = _calls(value)
  if not calls or not isinstance(value, dict):
    raise Malformed(f'expected {WANTS}')
  # OpenEnv joins the prompts of all calls, which cannot be taken apart again.
  messages = value.get('messages')
  if key is None and isinstance(messages, list):
    roles = [m.get('role') for m in messages if isinstance(m, dict)]
    if roles.count('assistant') > 1 and _first(value, _MASK) is None:
      raise Malformed(
        'the agent has several turns, but prompt_ids is one list without a '
        'mask: the authors of its tokens are unknown'
      )
  # Turns are the messages of the calls, or stand-ins for unknown texts.
  turns: list[Turn] = []
  samples: list[Sample] = []
  known = 0  # messages of the calls so far
  has_messages = all(map(_has_messages, calls))
  for i, call in enumerate(calls):
    where = 'row' if key is None else f'{key} {i}'
    if not isinstance(call, dict):
      raise Malformed(f'{where}: is {kind(call)}, expected an object')
    start = len(turns)
    if has_messages:
      turns += _new_messages(call, known, start, where)
      known = len(call['prompt']) + len(call['completion'])
    else:
      turns.append(stand_in('environment' if samples else 'system'))
    before = tuple(range(start, len(turns)))
    samples.append(_sample(call, turns, before, where))
  # Bookkeeping of the row, for author rules.
  used = {'tools', 'tool_defs'}
  used |= {key} if key else {*_PROMPT, *_COMPLETION, *_MASK}
  if key is None and has_messages:
    used |= {'prompt', 'completion'}
  metadata = {k: v for k, v in value.items() if k not in used}
  tools = model_messages.schemas(value.get('tools') or value.get('tool_defs'))
  pieces = join(samples, bool(tools))
  return TokenChat(Chat(turns, tools, metadata), pieces)


def _turns(value: object) -> tuple[str, list] | None:
  """Returns the key and the turns with a role and ids, or None."""
  # A bare list has no key.
  for key in KEYS if isinstance(value, dict) else ():
    match = find(value, (key,), ('role', _IDS))
    if match is not None and any(
      isinstance(turn, dict) and turn.get(_IDS) for turn in match[1]
    ):
      return match
  return None


def _read_turns(key: str, items: list, value: object) -> TokenChat:
  """Reads a row whose turns have a role and ids."""
  turns: list[Turn] = []
  pieces: list[Piece] = []
  for i, item in enumerate(items):
    if not isinstance(item, dict):
      raise Malformed(f'turn {i}: is {kind(item)}, expected an object')
    # The text is not used: the ids are.
    keys = ('role', 'author', 'verdict', 'spans')
    message = {k: item[k] for k in keys if k in item}
    turns.append(Turn(normalised({**message, 'content': ''}, i), None, item))
    pieces.append(Piece(check_ids(item.get(_IDS), f'turn {i}: {_IDS}'), (i,)))
  row = value if isinstance(value, dict) else {}
  metadata = {k: v for k, v in row.items() if k != key}
  return TokenChat(Chat(turns, None, metadata), pieces)


def _calls(value: object) -> tuple[str | None, list]:
  """Returns the key and the list of calls; no key: the row is one call."""
  if not isinstance(value, dict):
    return None, []
  for key in KEYS:
    match = find(value, (key,), ())
    if match is not None and any(map(_is_call, match[1])):
      return match
  return None, [value] if _is_call(value) else []


def _is_call(value: object) -> bool:
  # Most values have none of the names; this is the fastest test.
  if not isinstance(value, dict) or _NAMES.isdisjoint(value):
    return False
  lists = [_first(_tokens(value), names) for names in (_PROMPT, _COMPLETION)]
  return all(isinstance(ids, list) for ids in lists)


def _tokens(call: Mapping) -> Mapping:
  """Returns the object with the lists: `tokens` of the call, or the call."""
  tokens = call.get('tokens')
  return tokens if isinstance(tokens, dict) else call


def _first(fields: Mapping, names: tuple[str, ...]) -> object:
  """Returns the first field that is not null, or None."""
  return next((fields[n] for n in names if fields.get(n) is not None), None)


def _has_messages(call: object) -> bool:
  return isinstance(call, dict) and all(
    isinstance(call.get(key), list)
    and call[key]
    and all(isinstance(m, dict) and 'role' in m for m in call[key])
    for key in ('prompt', 'completion')
  )


def _new_messages(
  call: Mapping, known: int, start: int, where: str
) -> list[Turn]:
  """Returns the turns of a call's prompt that no call before had.

  Args:
    call: the call.
    known: number of messages of the calls before.
    start: index of the first new turn, for messages.
    where: name of the call, for messages.
  """
  messages = call['prompt'][known:]
  if len(call['prompt']) < known:
    raise Malformed(
      f'{where}: its prompt has {len(call["prompt"])} messages, the calls '
      f'before have {known}: its history was rewritten'
    )
  return [
    Turn(normalised(message, start + i), None, message)
    for i, message in enumerate(messages)
  ]


def _sample(
  call: Mapping, turns: list[Turn], before: tuple[int, ...], where: str
) -> Sample:
  """Returns the tokens of a call, and adds the turns of its completion."""
  tokens = _tokens(call)
  prompt = check_ids(_first(tokens, _PROMPT), f'{where}: prompt_ids')
  ids = check_ids(_first(tokens, _COMPLETION), f'{where}: completion_ids')
  mask = _first(tokens, _MASK)
  # Without a mask, the model wrote the whole completion.
  if mask is None:
    mask = [1] * len(ids)
  if not isinstance(mask, list) or len(mask) != len(ids):
    raise Malformed(f'{where}: the mask must be a list with a value per token')
  if not all(isinstance(x, (bool, int, float)) for x in mask):
    raise Malformed(f'{where}: the mask must have 0 and 1')

  # The turns of the agent, and those of others for tokens with mask 0.
  start = len(turns)
  if _has_messages(call):
    turns += [
      Turn(normalised(message, start + i), None, message)
      for i, message in enumerate(call['completion'])
    ]
  # Tokens whose author has no message get a stand-in for it.
  is_agents = [turn.message['role'] == 'assistant' for turn in turns[start:]]
  for flag, role in ((True, 'assistant'), (False, 'environment')):
    if flag not in is_agents and flag in map(bool, mask):
      turns.append(stand_in(role))
      is_agents.append(flag)
  # Each run of equal mask values is a piece of the turns that may have it.
  completion: list[tuple[list[int], tuple[int, ...]]] = []
  at = 0
  for is_sampled, group in itertools.groupby(map(bool, mask)):
    end = at + len([*group])
    numbered = enumerate(is_agents, start)
    writers = tuple(i for i, flag in numbered if flag == is_sampled)
    completion.append((ids[at:end], writers))
    at = end
  return Sample(where, prompt, completion, before)
