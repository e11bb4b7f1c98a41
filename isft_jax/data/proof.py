"""Proves that a rendering holds what was written, and nothing unaccounted for.

Allowed and counted: white space stripped at the ends of a message, and
thinking that a template drops from earlier turns. Anything else that is missing
rejects the trajectory: it would be trained on as if it had not been said.
"""

import collections
import json
import re
from collections.abc import Iterable, Mapping, Sequence

from isft_jax.data.chat import PROTOCOL, Stretch, messages_of
from isft_jax.data.rejection import Rejected
from isft_jax.types import Trajectory

_END_OF_THINKING = '</think>'
_THINKING = '<think>'


def prove(trajectory: Trajectory, stretches: Sequence[Stretch]) -> dict:
  """Returns what is lost: characters of 'thinking' and 'whitespace', 'tools'.

  'tools' is 1 if there are tool schemas and the template shows none of them.

  Raises Rejected for text of unknown origin, for words of the agent outside of
  its turn, and for words that are missing or stand there twice.
  """
  _check_origins(trajectory, stretches)
  said = collections.defaultdict(str)
  turn_text = collections.defaultdict(str)
  for text, origin, home in stretches:
    number = origin.number if origin.field == 'call' else 0
    said[origin.turn, origin.field, number] += text
    turn_text[home] += text

  lost = {'thinking': 0, 'whitespace': 0, 'tools': 0}
  for turn, message in enumerate(messages_of(trajectory)):
    where = f'turn {turn} ({message["role"]})'
    thinking = _reasoning(message)
    thought, content = said[turn, 'thinking', 0], said[turn, 'content', 0]
    if not thought:
      lost['thinking'] += len(thinking)
    else:
      _add(lost, _missing(thinking, thought), where, thinking, thought)
    _add(
      lost,
      _missing(message['content'], content),
      where,
      message['content'],
      content,
    )
    for number, call in enumerate(message.get('tool_calls', ())):
      _check_call(call, said[turn, 'call', number], turn_text[turn], where)
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
      for call in value:
        yield from _names(call)
    elif key == 'function' and isinstance(value, Mapping):
      yield from _names(value)
    elif key in PROTOCOL:
      yield str(value)


def _check_origins(trajectory, stretches):
  for text, origin, home in stretches:
    if origin is None:
      raise Rejected(
        'unknown_origin',
        f'turn {home}: the template makes {text[:60]!r} in a way that hides '
        'whose words these are',
      )
    is_value = origin.turn >= 0 and origin.field != 'literal'
    if is_value and home != origin.turn:
      role = trajectory.segments[origin.turn].role
      if role == 'assistant':
        raise Rejected(
          'unknown_origin',
          f'turn {origin.turn} ({role}): the template shows {text[:60]!r} '
          'outside of the turn, so that where the turn ends is unknown',
        )


def _reasoning(message: Mapping) -> str:
  for name in ('reasoning_content', 'thinking', 'reasoning'):
    if isinstance(message.get(name), str):
      return message[name]
  return ''


def _add(lost, missing, where, written, shown):
  if missing is None:
    raise Rejected(
      'content_dropped',
      f'{where}: of {_short(written)} the template shows {_short(shown)}',
    )
  thinking, whitespace = missing
  lost['thinking'] += thinking
  lost['whitespace'] += whitespace


def _missing(written: str, shown: str) -> tuple[int, int] | None:
  """Returns characters of thinking and white space that are not shown.

  None if anything else is missing, or if anything is there twice.
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
  if not tag or _END_OF_THINKING in answer:
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


def _check_call(call: Mapping, shown: str, turn_text: str, where: str):
  function = call.get('function', call)
  missing = [
    leaf
    for leaf in _leaves(function.get('arguments'))
    if not any(form in shown for form in _forms(leaf))
  ]
  name = function.get('name', '')
  if name not in turn_text:
    missing.append(name)
  if missing:
    raise Rejected(
      'content_dropped',
      f'{where}: of the call of {name!r} the template leaves out '
      f'{_short(str(missing[0]))}',
    )


def _leaves(value) -> Iterable:
  if isinstance(value, Mapping):
    for key, item in value.items():
      yield key
      yield from _leaves(item)
  elif isinstance(value, list | tuple):
    for item in value:
      yield from _leaves(item)
  # Templates spell true, false and null as they like.
  elif value is not None and not isinstance(value, bool):
    yield value


def _forms(leaf) -> Iterable[str]:
  if not isinstance(leaf, str):
    yield str(leaf)
    yield json.dumps(leaf)
    return
  for text in (leaf, leaf.strip()):
    yield text
    yield from _json_forms(text)


def _short(text: str) -> str:
  return repr(text if len(text) <= 60 else f'{text[:40]} ... {text[-15:]}')
