"""Layout of rows in a format that no module reads, given in a rules file.

{"messages": "trajectory.steps", "role": "speaker", "content": "said",
 "rules": [{"when": {"role": "bot"}, "role": "assistant"}]}

{"trajectory": {"steps": [{"speaker": "bot", "said": "Hello."}]}, "id": 1}
-> {"messages": [{"role": "assistant", "content": "Hello."}], "id": 1}
"""

import dataclasses
from collections.abc import Mapping

from isft_jax.data.messages import predicates
from isft_jax.data.messages.conversation import Malformed, kind, outline
from isft_jax.data.messages.tools import json_or_text

# Keys of a rules file that describe the layout.
KEYS = ('messages', 'role', 'content', 'tools')
_TARGET = 'messages'  # where formats look for messages


@dataclasses.dataclass(frozen=True)
class Layout:
  """Paths of messages in a row, and of role and content in a message.

  Attributes:
    messages: path of the list; '' leaves rows as they are.
    role: path of the role in a message.
    content: path of the content in a message.
    tools: path of the schemas of tools; '' leaves them where they are.
  """

  messages: str = ''
  role: str = 'role'
  content: str = 'content'
  tools: str = ''

  @classmethod
  def from_json(cls, file: Mapping) -> 'Layout':
    """Returns the layout of a rules file.

    Args:
      file: its JSON object.

    Raises:
      ValueError: a path is not text, or the path of the messages is missing.
    """
    paths = {key: file[key] for key in KEYS if key in file}
    for key, path in paths.items():
      if not isinstance(path, str) or not path:
        raise ValueError(f'{key} is {kind(path)}, expected a path of keys')
    # Without a path, messages are under their usual key.
    return cls(**({'messages': _TARGET} | paths)) if paths else cls()

  def to_json(self) -> dict[str, str]:
    """Returns the paths that differ from the defaults."""
    return {
      field.name: path
      for field in dataclasses.fields(self)
      if (path := getattr(self, field.name)) != field.default
    }

  def moved(self, row: object) -> dict:
    """Returns a row with its messages under `messages`, in OpenAI's form.

    Args:
      row: the JSON value of the row. It is not changed.

    Raises:
      Malformed: the path does not lead to a list of messages.
    """
    # Find the list, which may be nested or be JSON in a text.
    fields = row if isinstance(row, dict) else {}
    messages = _at(fields, self.messages)
    if not isinstance(messages, list):
      raise Malformed(
        f'{self.messages} is {kind(messages)}, expected a list of messages; '
        f'the row has {outline(row)}'
      )
    # Move the list to the key at which formats look for it.
    moved = _without(fields, self.messages)
    if self.tools:
      tools = _at(moved, self.tools)
      moved = {**_without(moved, self.tools), 'tools': tools}
    return {**moved, _TARGET: [*map(self._message, messages)]}

  def message_keys(self) -> frozenset[str]:
    """Returns keys of a moved message that are read, besides the usual ones."""
    return frozenset([self.role.partition('.')[0]])

  def _message(self, message: object) -> object:
    # Formats report items that are no messages.
    if not isinstance(message, dict):
      return message
    moved = message
    if self.content != 'content':
      content = predicates.value_at(message, self.content)
      moved = {**_without(message, self.content), 'content': content}
    # Rules may test the role under its own key, which therefore stays.
    role = predicates.value_at(message, self.role)
    if self.role != 'role' and role is not None:
      moved = {**moved, 'role': role}
    return moved


def _parsed(value: object) -> object:
  # Columns of tables may hold objects and lists as JSON.
  if isinstance(value, str) and value.lstrip()[:1] in ('[', '{'):
    return json_or_text(value)
  return value


def _at(value: object, path: str) -> object:
  """Returns the value at a path, through JSON in texts; or None."""
  for key in path.split('.'):
    value = predicates.value_at(_parsed(value), key)
  return _parsed(value)


def _without(holder: Mapping, path: str) -> dict:
  """Returns an object without the value at a path, and without empty parents.

  Args:
    holder: the object. It is not changed.
    path: keys and indices of lists, joined with dots.
  """
  key, _, rest = path.partition('.')
  others = {k: v for k, v in holder.items() if k != key}
  child = _parsed(holder.get(key)) if rest else None
  left: object = None
  if isinstance(child, dict):
    left = _without(child, rest)
  elif isinstance(child, list):
    number, _, rest = rest.partition('.')
    # What is left of the element, if it is an object, and the other elements.
    left = [item for i, item in enumerate(child) if str(i) != number]
    item = predicates.value_at(child, number)
    if rest and isinstance(item, dict):
      left += filter(None, [_without(item, rest)])
  return {**others, key: left} if left else others
