"""Checks that a rendering holds all that was written, and nothing twice.

Allowed and counted: white space stripped at the ends of a message, and
thinking that a template drops from earlier turns. Anything else that is missing
rejects the trajectory: it would be trained on as if it had not been said.
"""

import collections
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from isft_jax.data.rendering.chat_template import PROTOCOL, Stretch
from isft_jax.data.rendering.rejection import Rejected
from isft_jax.types import Trajectory

_END_OF_THINKING = '</think>'
_THINKING = '<think>'
# What may stand between the values of arguments.
_SYNTAX = re.compile(r'(?:[\s{}\[\]()",:=\']|[tT]rue|[fF]alse|null|None)*')


def count_losses(
  trajectory: Trajectory,
  messages: Sequence[Mapping],
  stretches: Sequence[Stretch],
) -> dict[str, int]:
  """Counts what the template leaves out and may.

  Args:
    trajectory: the conversation.
    messages: its messages, as the template got them.
    stretches: what the template made of them.

  Returns:
    Characters of 'thinking' and of 'whitespace'; 'tools' is 1 if there are tool
    schemas and the template shows none of them.

  Raises:
    Rejected: text of unknown origin, words of the agent outside of its turn,
      and words that are missing or stand there twice.
  """
  _check_origins(trajectory, stretches)
  said: dict[tuple[int, str, int], str] = collections.defaultdict(str)
  for text, origin, home in stretches:
    assert origin is not None  # as has been checked
    is_elsewhere = origin.field == 'name' and home != origin.turn
    number = origin.number if origin.field in ('name', 'call') else 0
    said[
      origin.turn, 'elsewhere' if is_elsewhere else origin.field, number
    ] += text

  lost = {'thinking': 0, 'whitespace': 0, 'tools': 0}
  for turn, message in enumerate(messages):
    where = f'turn {turn} ({message["role"]})'
    may_think = trajectory.segments[turn].in_agents_slot
    thinking = _reasoning(message)
    thought = said[turn, 'thinking', 0]
    if thought:
      _add(lost, _missing(thinking, thought, False), where, thinking, thought)
    else:
      lost['thinking'] += len(thinking)
    written, shown = message['content'], said[turn, 'content', 0]
    _add(lost, _missing(written, shown, may_think), where, written, shown)
    for number, call in enumerate(message.get('tool_calls', ())):
      name, arguments = said[turn, 'name', number], said[turn, 'call', number]
      _check_call(call, name, arguments, where)
  lost['tools'] = int(bool(trajectory.tools) and not said[-1, 'tools', 0])
  return lost


def check_names(trajectory: Trajectory, special: re.Pattern) -> None:
  """Raises Rejected if a role, a name or an id holds a special token's text.

  Templates print these as they print their own text, which may.
  """
  for turn, segment in enumerate(trajectory.segments):
    found = special.search(' '.join([segment.role, *_names(segment.fields)]))
    if found:
      raise Rejected(
        'special_text',
        f'turn {turn}: a name or an id holds the text of the special token '
        f'{found[0]!r}, which would end or forge a turn',
      )


def _names(fields: Mapping) -> Iterable[str]:
  for key, value in fields.items():
    if key == 'tool_calls':
      for call in value or ():
        yield from _names(call) if isinstance(call, Mapping) else ()
    elif key == 'function' and isinstance(value, Mapping):
      yield from _names(value)
    elif key in PROTOCOL:
      yield str(value)


def _check_origins(
  trajectory: Trajectory, stretches: Sequence[Stretch]
) -> None:
  for text, origin, home in stretches:
    if origin is None:
      raise Rejected(
        'unknown_origin',
        f'turn {home}: the template makes {text[:60]!r} in a way that hides '
        'whose words these are',
      )
    is_value = origin.turn >= 0 and origin.field != 'literal'
    if is_value and home != origin.turn:
      segment = trajectory.segments[origin.turn]
      # A call may be named elsewhere, in the turn of its result.
      if segment.in_agents_slot and origin.field != 'name':
        raise Rejected(
          'unknown_origin',
          f'turn {origin.turn} ({segment.role}): the template shows '
          f'{text[:60]!r} outside of the turn, so that where the turn ends is '
          'unknown',
        )


def _reasoning(message: Mapping) -> str:
  for name in ('reasoning_content', 'thinking', 'reasoning'):
    if isinstance(message.get(name), str):
      return message[name]
  return ''


def _add(
  lost: dict[str, int],
  missing: tuple[int, int] | None,
  where: str,
  written: str,
  shown: str,
) -> None:
  if missing is None:
    raise Rejected(
      'content_dropped',
      f'{where}: of {_short(written)} the template shows {_short(shown)}',
    )
  thinking, whitespace = missing
  lost['thinking'] += thinking
  lost['whitespace'] += whitespace


def _missing(
  written: str, shown: str, may_think: bool
) -> tuple[int, int] | None:
  """Returns characters of thinking and white space that are not shown.

  None if anything else is missing, or if anything is there twice.

  may_think: whether text before </think> is thinking, which may be dropped.
  """
  if shown == written:
    return 0, 0
  bare = written.strip()
  if shown.strip() == bare:
    return 0, len(written) - len(shown)
  for text in (written, bare):
    if shown in _json_forms(text):
      return 0, len(written) - len(text)
  head, tag, answer = bare.partition(_END_OF_THINKING)
  thought = head.removeprefix(_THINKING).strip()
  answer = answer.strip()
  speaks = _THINKING in thought or _END_OF_THINKING in answer
  if not may_think or not tag or speaks:
    return None
  if shown.strip() == answer:
    return len(thought), len(written) - len(thought) - len(shown)
  # The template writes the tags itself, and white space of its own.
  apart = shown.strip().removeprefix(thought).removesuffix(answer)
  if not apart.strip() and len(shown) <= len(written):
    return 0, len(written) - len(shown)
  return None


def _json_forms(text: str) -> Iterable[str]:
  for ensure_ascii in (False, True):
    quoted = json.dumps(text, ensure_ascii=ensure_ascii)
    yield quoted
    yield quoted[1:-1]


def _check_call(call: object, name: str, arguments: str, where: str) -> None:
  """Checks what a template shows of a call: its name and its arguments."""
  function = call.get('function', call) if isinstance(call, Mapping) else None
  function = function if isinstance(function, Mapping) else {}
  named = function.get('name')
  if not isinstance(named, str) or not named:
    raise Rejected('malformed', f'{where}: a tool call without a name')
  # Some templates show it twice: in the header of the call, and in the call.
  left = name
  for form in _json_forms(named):
    left = left.replace(form, '')
  if left or not name:
    does = f'shows the name {_short(name)}' if name else 'leaves out the name'
    raise Rejected(
      'content_dropped',
      f'{where}: of the call of {named!r} the template {does}',
    )
  given = function.get('arguments')
  if arguments == json.dumps(given, ensure_ascii=False):
    return  # as nearly every template shows them
  # Templates keep the order of arguments, or sort them.
  if not any(_spells(arguments, _leaves(given, by)) for by in (list, sorted)):
    missing = [
      leaf for leaf in _leaves(given, list) if not _has(arguments, leaf)
    ]
    does = f'shows the arguments {_short(arguments)}'
    if missing:
      does = f'leaves out {_short(str(missing[0]))}'
    raise Rejected(
      'content_dropped',
      f'{where}: of the call of {named!r} the template {does}',
    )


def _has(shown: str, leaf: object) -> bool:
  return any(form in shown for form in _forms(leaf))


def _spells(shown: str, leaves: Iterable) -> bool:
  """Whether text is these values in this order, and syntax between them."""
  done = 0
  for leaf in leaves:
    # The longest first: text may be the beginning of its own JSON.
    for form in sorted(_forms(leaf), key=len, reverse=True):
      start = shown.find(form, done)
      if start >= 0 and _SYNTAX.fullmatch(shown, done, start):
        done = start + len(form)
        break
    else:
      return False
  return _SYNTAX.fullmatch(shown, done) is not None


def _leaves(
  value: object, order: Callable[[Iterable[str]], list[str]]
) -> Iterable[object]:
  if isinstance(value, Mapping):
    for key in order(value):
      yield key
      yield from _leaves(value[key], order)
  elif isinstance(value, list | tuple):
    for item in value:
      yield from _leaves(item, order)
  # Templates spell true, false and null as they like.
  elif value is not None and not isinstance(value, bool):
    yield value


def _forms(leaf: object) -> Iterable[str]:
  if not isinstance(leaf, str):
    yield str(leaf)
    yield json.dumps(leaf)
    return
  for text in (leaf, leaf.strip()):
    yield text
    yield from _json_forms(text)


def _short(text: str) -> str:
  return repr(text if len(text) <= 60 else f'{text[:40]} ... {text[-15:]}')
