"""A chat template that tells where each character of a conversation is from.

transformers renders a conversation with a Jinja program. The same program is
run here over tracked text (see `tracked_str.py` and `jinja_env.py`):

    Trajectory --wrap--> tracked messages --template--> stretches of one origin
"""

import datetime
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import numpy as np

from isft_jax.data.rendering import tracked_str
from isft_jax.data.rendering.jinja_env import Environment, Message
from isft_jax.data.rendering.tracked_str import Tracked
from isft_jax.types import Segment, Trajectory

# The paper's format: a prefix and a line a turn.
PLAIN = """\
{%- for message in messages -%}
  {%- if '\\n' in message.content -%}
    {{- raise_exception('turn ' ~ loop.index0 ~ ': the plain format holds one '
        ~ 'line a turn, and this has a line break: '
        ~ message.content[:60] | tojson) -}}
  {%- elif message.role == 'system' -%}
    {{- message.content + '\\n' -}}
  {%- elif message.role == 'user' -%}
    {{- 'User: ' + message.content + '\\n' -}}
  {%- elif message.role == 'tool' -%}
    {{- 'Tool: ' + message.content + '\\n' -}}
  {%- elif message.role == 'assistant' -%}
    {{- 'Agent: ' + message.content + '\\n' -}}
  {%- else -%}
    {{- raise_exception('turn ' ~ loop.index0
        ~ ': the plain format knows no role ' ~ message.role | tojson) -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'Agent: ' -}}{%- endif -%}
"""

# What a template that prints today's date prints: the same ids on every day.
TODAY = datetime.datetime(2024, 7, 26)

# Names of reasoning: transformers gives templates each of them.
_THINKING = ('reasoning_content', 'thinking', 'reasoning')
# Protocol, whoever chose it: as good as a literal of the turn that prints it.
PROTOCOL = ('role', 'name', 'tool_call_id', 'id', 'type')


class Origin(NamedTuple):
  """Where characters come from.

  turn: the message, or -1 outside of all.
  field: 'literal' for the template's own text in that turn, else whose value
    it is: 'content', 'thinking', 'name' and 'call' of a tool call, 'other';
    'tools' are the schemas.
  number: of a call; of content: 0, or 1, 2, ... in its parts.
  """

  turn: int
  field: str
  number: int = 0


class Stretch(NamedTuple):
  """Characters of one origin, None where it is unknown.

  home: the turn that the template was at when it wrote them, or -1.
  """

  text: str
  origin: Origin | None
  home: int


class ChatTemplate:
  """A compiled template, with the values that it is given beside messages."""

  def __init__(self, template: str, values: Mapping | None = None) -> None:
    """Compiles a template. Raises ValueError if it is not one."""
    self.source = freeze(template)
    self._values = dict(values or {})
    self._environment = Environment()
    # Some templates ask whether there is a clock, and go on.
    self._environment.globals['strftime_now'] = TODAY.strftime
    try:
      self._template = self._environment.from_string(self.source)
    except jinja2.TemplateError as error:
      raise ValueError(f'the chat template is not one: {error}') from error

  def render(
    self, trajectory: Trajectory, messages: Sequence[dict] | None = None
  ) -> list[Stretch]:
    """Returns the rendered conversation, in stretches.

    Args:
      trajectory: the conversation.
      messages: its `messages_of`, if they are known already.

    Raises:
      Exception: whatever the template raises.
    """
    origins = _Origins(len(trajectory.segments))
    tracked = [
      _wrap(message, segment, turn, origins)
      for turn, (message, segment) in enumerate(
        zip(
          messages_of(trajectory) if messages is None else messages,
          trajectory.segments,
          strict=True,
        )
      )
    ]
    tools = None
    if trajectory.tools is not None:
      code = origins.code(Origin(-1, 'tools'))
      tools = [tracked_str.track(dict(t), code) for t in trajectory.tools]
    context = {
      'messages': tracked,
      'tools': tools,
      'documents': None,
      'add_generation_prompt': False,
      **self._values,
    }
    text, homes = self._environment.render(
      self._template, context, origins.literals
    )
    return [
      Stretch(
        str.__getitem__(text, slice(start, stop)),
        origins.of(text.origins[start]),
        origins.known(homes[start]).turn,
      )
      for start, stop in _stretches(text.origins, homes)
    ]

  def text(self, trajectory: Trajectory) -> str:
    """Returns the rendered conversation, for which no tokenizer is needed."""
    return ''.join(stretch.text for stretch in self.render(trajectory))


def freeze(template: str) -> str:
  """Returns a template that prints `TODAY` wherever it would print the date.

  Raises ValueError where it prints a date whose format it computes.
  """

  def day(call: re.Match) -> str:
    return json.dumps(TODAY.strftime(call[2]), ensure_ascii=False)

  frozen = re.sub(r'strftime_now\(\s*([\'"])(.*?)\1\s*\)', day, template)
  if 'strftime_now(' in frozen:
    raise ValueError(
      'the chat template prints the date in a format that it computes; write '
      'a fixed date into a copy of it and name that with --chat_template'
    )
  return frozen


def messages_of(trajectory: Trajectory) -> list[dict]:
  """Returns the messages as transformers' apply_chat_template takes them."""
  return [
    {key: v for key, v in segment.message().items() if v is not None}
    for segment in trajectory.segments
  ]


class _Origins:
  """The code of each origin in one rendering."""

  def __init__(self, turns: int) -> None:
    self._origins: list[Origin] = []
    # By turn; the last, -1, is outside of all turns.
    self.literals = [
      self.code(Origin(turn, 'literal')) for turn in (*range(turns), -1)
    ]

  def code(self, origin: Origin) -> str:
    self._origins.append(origin)
    return chr(len(self._origins) + 1)  # after UNKNOWN and LITERAL

  def known(self, code: str) -> Origin:
    return self._origins[ord(code) - 2]

  def of(self, code: str) -> Origin | None:
    return None if code == tracked_str.UNKNOWN else self.known(code)


def _stretches(*codes: str) -> Iterator[tuple[int, int]]:
  """Returns (start, stop) of each stretch in which no code changes."""
  changes = np.zeros(len(codes[0]) + 1, bool)
  changes[[0, -1]] = True
  for each in codes:
    code_T = np.frombuffer(each.encode('utf-32-le', 'surrogatepass'), np.uint32)
    changes[1:-1] |= code_T[1:] != code_T[:-1]
  return itertools.pairwise(np.flatnonzero(changes).tolist())


def _wrap(
  message: dict, segment: Segment, turn: int, origins: _Origins
) -> Message:
  """Returns a message as the template sees it, its values tracked."""
  wrapped = Message(turn)
  thinking = next((message[k] for k in _THINKING if k in message), None)
  if thinking is not None:  # as transformers does
    message = {'thinking': thinking, **message, 'reasoning_content': thinking}
  for key, value in message.items():
    if key == 'content':
      wrapped[key] = _content(segment, turn, origins)
    elif key == 'tool_calls':
      wrapped[key] = [
        _call(
          call,
          origins.code(Origin(turn, 'name', number)),
          origins.code(Origin(turn, 'call', number)),
        )
        for number, call in enumerate(value)
      ]
    elif key in PROTOCOL:
      wrapped[key] = value
    else:
      origin = Origin(turn, 'thinking' if key in _THINKING else 'other')
      wrapped[key] = tracked_str.track(value, origins.code(origin))
  return wrapped


def _content(segment: Segment, turn: int, origins: _Origins) -> Tracked:
  codes = origins.code(Origin(turn, 'content')) * len(segment.text)
  for number, part in enumerate(segment.parts, start=1):
    code = origins.code(Origin(turn, 'content', number))
    of_part = code * (part.stop - part.start)
    codes = codes[: part.start] + of_part + codes[part.stop :]
  return Tracked(segment.text, codes)


def _call(call: object, name: str, arguments: str) -> Any:
  """Returns a tool call as the template sees it; two codes of origin."""
  if not isinstance(call, Mapping):
    return tracked_str.track(call, arguments)
  seen = {}
  for key, value in call.items():
    if key == 'function':
      seen[key] = _call(value, name, arguments)
    elif key == 'name':
      seen[key] = tracked_str.track(value, name)
    elif key in PROTOCOL:
      seen[key] = value
    else:
      seen[key] = tracked_str.track(value, arguments)
  return seen
