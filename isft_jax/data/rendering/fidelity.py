"""Checks that a rendering contains every message exactly once.

Two losses are allowed and counted: white space that is stripped at the ends of
a message, and thinking that a template drops from earlier turns. Any other
missing text rejects the trajectory, because the model would be trained as if
that text had never been written.
"""

import collections
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from isft_jax.data.rendering.chat_template import PROTOCOL, Stretch
from isft_jax.data.rendering.rejection import Rejected
from isft_jax.types import Trajectory

# Tags around the thinking in a message's content.
_END_OF_THINKING = '</think>'
_THINKING = '<think>'
# Syntax between the values of a tool call's arguments, as JSON or as Python.
_SYNTAX = re.compile(r'(?:[\s{}\[\]()",:=\']|[tT]rue|[fF]alse|null|None)*')


def count_losses(
  trajectory: Trajectory,
  messages: Sequence[Mapping],
  stretches: Sequence[Stretch],
  may_drop: bool = False,
) -> dict[str, int]:
  """Counts the text that a template leaves out and is allowed to.

  Args:
    trajectory: the conversation.
    messages: its messages, as passed to the template.
    stretches: the template's rendering.
    may_drop: whether the template may leave out the whole content of a message.
      Llama 3 leaves out words beside a tool call.

  Returns:
    Number of lost characters of 'thinking' and of 'whitespace'; with `may_drop`
    also of 'words', for whole contents. 'tools' is 1 if there are tool schemas
    and the template shows none of them, else 0.

  Raises:
    Rejected: some text has an unknown origin, words of the agent are outside of
      its turn, or words are missing or duplicated.
  """
  # Text is compared by its origin, so that every origin must be known.
  _check_origins(trajectory, stretches)

  # Collect the rendered text of each value: (turn, field, number) -> text.
  rendered: dict[tuple[int, str, int], str] = collections.defaultdict(str)
  for text, origin, home in stretches:
    assert origin is not None  # checked above
    # A tool's result may repeat the name of its call; count that apart.
    is_elsewhere = origin.field == 'name' and home != origin.turn
    # The spans of a content are one text again, so that they share a number.
    number = origin.number if origin.field in ('name', 'call') else 0
    rendered[
      origin.turn, 'elsewhere' if is_elsewhere else origin.field, number
    ] += text

  # Compare it with the messages.
  lost = {'thinking': 0, 'whitespace': 0, 'tools': 0}
  if may_drop:
    lost['words'] = 0
  for turn, message in enumerate(messages):
    where = f'turn {turn} ({message["role"]})'
    may_think = trajectory.segments[turn].in_agents_slot
    thinking = _reasoning(message)
    shown = rendered[turn, 'thinking', 0]
    # Thinking may be dropped as a whole, but not in part.
    if shown:
      _add(lost, _missing(thinking, shown, False), where, thinking, shown)
    else:
      lost['thinking'] += len(thinking)
    # Content may be left out as a whole if the caller allows it.
    content, shown = message['content'], rendered[turn, 'content', 0]
    if may_drop and not shown:
      lost['words'] += len(content)
    else:
      _add(lost, _missing(content, shown, may_think), where, content, shown)
    for number, call in enumerate(message.get('tool_calls', ())):
      name = rendered[turn, 'name', number]
      arguments = rendered[turn, 'call', number]
      _check_call(call, name, arguments, where)
  # Schemas of tools belong to no turn: their number is -1.
  lost['tools'] = int(bool(trajectory.tools) and not rendered[-1, 'tools', 0])
  return lost


def check_names(trajectory: Trajectory, special: re.Pattern) -> None:
  """Checks that no role, name or id contains the text of a special token.

  These values have the origin of literals, so that `encode`, which checks
  messages, cannot tell them from the template's own special tokens.

  Args:
    trajectory: the conversation.
    special: pattern of the texts of the tokenizer's special tokens.

  Raises:
    Rejected: a value contains such a text, or `tool_calls` inside of a call is
      not a list.
  """
  for turn, segment in enumerate(trajectory.segments):
    names = [segment.role, *_names(segment.fields, f'turn {turn}')]
    match = special.search(' '.join(names))
    if match:
      raise Rejected(
        'special_text',
        f'turn {turn}: a name or an id holds the text of the special token '
        f'{match[0]!r}, which would end or forge a turn',
      )


def _names(fields: Mapping, where: str) -> Iterable[str]:
  """Yields the values of `PROTOCOL` keys in a message and its tool calls."""
  for key, value in fields.items():
    # Malformed calls are reported by `_check_call`.
    if key == 'tool_calls':
      # Formats check the calls of a message, but not calls inside of a call.
      if value is not None and not isinstance(value, (list, tuple)):
        raise Rejected(
          'malformed',
          f'{where}: tool_calls inside of a call or function is not a list',
        )
      for call in value or ():
        yield from _names(call, where) if isinstance(call, Mapping) else ()
    elif key == 'function' and isinstance(value, Mapping):
      yield from _names(value, where)
    elif key in PROTOCOL:
      yield str(value)


def _check_origins(
  trajectory: Trajectory, stretches: Sequence[Stretch]
) -> None:
  """Rejects unknown origins, and words of the agent outside of its turn."""
  for text, origin, home in stretches:
    if origin is None:
      raise Rejected(
        'unknown_origin',
        f'turn {home}: the template computes {text[:60]!r} in a way that loses '
        'its author',
      )
    # Each value must be shown inside its own turn.
    is_value = origin.turn >= 0 and origin.field != 'literal'
    if is_value and home != origin.turn:
      segment = trajectory.segments[origin.turn]
      # The turn of a tool's result may show the name of the call.
      if segment.in_agents_slot and origin.field != 'name':
        raise Rejected(
          'unknown_origin',
          f'turn {origin.turn} ({segment.role}): the template shows '
          f'{text[:60]!r} outside of the turn, so that the end of the turn is '
          'unknown',
        )


def _reasoning(message: Mapping) -> str:
  """Returns the reasoning of a message, '' if it has none."""
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
  """Adds `missing` characters to `lost`; rejects if it is None."""
  if missing is None:
    advice = '' if shown else '; see --on_dropped'
    raise Rejected(
      'content_dropped',
      f'{where}: the template shows {_short(shown)} instead of '
      f'{_short(written)}{advice}',
    )
  thinking, whitespace = missing
  lost['thinking'] += thinking
  lost['whitespace'] += whitespace


def _missing(
  written: str, shown: str, may_think: bool
) -> tuple[int, int] | None:
  """Compares a written text with the text that the template shows.

  Args:
    written: the text in the message.
    shown: the text in the rendering.
    may_think: whether text before </think> is thinking, which may be dropped.

  Returns:
    Number of missing characters of thinking and of white space; None if any
    other text is missing or duplicated.
  """
  if shown == written:
    return 0, 0
  # White space stripped at both ends.
  bare = written.strip()
  if shown.strip() == bare:
    return 0, len(written) - len(shown)
  # A template may show the content as a JSON string.
  for text in (written, bare):
    if shown in _json_forms(text):
      return 0, len(written) - len(text)
  # Content of the form <think>thought</think>answer: the thought may be
  # missing. A second pair of tags is ambiguous.
  head, tag, answer = bare.partition(_END_OF_THINKING)
  thought = head.removeprefix(_THINKING).strip()
  answer = answer.strip()
  has_more_tags = _THINKING in thought or _END_OF_THINKING in answer
  if not may_think or not tag or has_more_tags:
    return None
  if shown.strip() == answer:
    return len(thought), len(written) - len(thought) - len(shown)
  # The template writes both tags, and the white space around them, itself.
  apart = shown.strip().removeprefix(thought).removesuffix(answer)
  if not apart.strip() and len(shown) <= len(written):
    return 0, len(written) - len(shown)
  return None


def _json_forms(text: str) -> Iterable[str]:
  """Yields a text as a JSON string, with and without quotes."""
  # Characters outside of ASCII as they are, or escaped.
  for ensure_ascii in (False, True):
    quoted = json.dumps(text, ensure_ascii=ensure_ascii)
    yield quoted
    yield quoted[1:-1]


def _check_call(call: object, name: str, arguments: str, where: str) -> None:
  """Checks that a rendered tool call has its name and all its arguments.

  Args:
    call: the call in the message.
    name: the rendered text of its name.
    arguments: the rendered text of its arguments.
    where: the turn, for messages.
  """
  # Name and arguments may be nested in `function`, as in OpenAI's format.
  function = call.get('function', call) if isinstance(call, Mapping) else None
  function = function if isinstance(function, Mapping) else {}
  named = function.get('name')
  if not isinstance(named, str) or not named:
    raise Rejected('malformed', f'{where}: a tool call without a name')
  # Some templates show the name twice: in the header of the call, and in the
  # call. Nothing else may be left of the rendered name.
  left = name
  for form in _json_forms(named):
    left = left.replace(form, '')
  # A name that is missing, or anything besides the name.
  if left or not name:
    problem = (
      f'shows the name {_short(name)}' if name else 'leaves out the name'
    )
    raise Rejected(
      'content_dropped',
      f'{where}: in the call of {named!r} the template {problem}',
    )
  # Nearly every template shows the arguments as plain JSON.
  values = function.get('arguments')
  if arguments == json.dumps(values, ensure_ascii=False):
    return
  # Otherwise compare value by value. Templates keep the order of arguments or
  # sort them, and may show them as elements: <city>Rome</city>.
  if not any(
    _spells(arguments, _leaves(values, by, as_elements))
    for as_elements in (False, True)
    for by in (list, sorted)
  ):
    # Name one value that is missing, as the likely cause.
    missing = [
      leaf for leaf in _leaves(values, list, False) if not _has(arguments, leaf)
    ]
    problem = f'shows the arguments {_short(arguments)}'
    if missing:
      problem = f'leaves out {_short(str(missing[0]))}'
    raise Rejected(
      'content_dropped',
      f'{where}: in the call of {named!r} the template {problem}',
    )


def _has(shown: str, leaf: object) -> bool:
  return any(form in shown for form in _forms(leaf))


def _spells(shown: str, leaves: Iterable) -> bool:
  """Returns whether a text is these values in order, with syntax between."""
  done = 0
  for leaf in leaves:
    # The longest form first: a text may be a prefix of its own JSON form.
    for form in sorted(_forms(leaf), key=len, reverse=True):
      start = shown.find(form, done)
      if start >= 0 and _SYNTAX.fullmatch(shown, done, start):
        done = start + len(form)
        break
    else:
      return False
  return _SYNTAX.fullmatch(shown, done) is not None


def _leaves(
  value: object,
  order: Callable[[Iterable[str]], list[str]],
  as_elements: bool,
) -> Iterable[object]:
  """Yields the keys and the scalar values of nested arguments.

  Args:
    value: the arguments.
    order: list or sorted, of the keys.
    as_elements: yields each key before and after its value.
  """
  if isinstance(value, Mapping):
    for key in order(value):
      yield key
      yield from _leaves(value[key], order, as_elements)
      if as_elements:
        yield key
  elif isinstance(value, list | tuple):
    for item in value:
      yield from _leaves(item, order, as_elements)
  # true, false and null are part of `_SYNTAX`: templates spell them as JSON or
  # as Python.
  elif value is not None and not isinstance(value, bool):
    yield value


def _forms(leaf: object) -> Iterable[str]:
  """Yields the ways in which templates print a key or a scalar value."""
  # A number, as Python or as JSON prints it.
  if not isinstance(leaf, str):
    yield str(leaf)
    yield json.dumps(leaf)
    return
  # Templates may strip values of arguments.
  for text in (leaf, leaf.strip()):
    yield text
    yield from _json_forms(text)


# Shows both ends of a long text.
def _short(text: str) -> str:
  return repr(text if len(text) <= 60 else f'{text[:40]} ... {text[-15:]}')
