"""Joins the thoughts, texts and calls that a log lists one by one into turns.

    thought  'Look first.'     one turn of the agent: reasoning_content,
    text     'I look.'         content and tool_calls
    call     look(city=Rome)
    message  'warm'            a turn of the tool ends the agent's turn
    text     'It is warm.'     the agent's next turn

Chat templates show thoughts, text and calls of a turn in this order, so an item
out of this order begins a new turn of the agent. No word is moved.
"""

import json
from collections.abc import Iterable, Mapping

from isft_jax.data.messages.annotations import is_flag, is_mark
from isft_jax.data.messages.conversation import Malformed, Turn, kind, quoted
from isft_jax.data.messages.normalize import normalised
from isft_jax.types import Provenance

# Kinds of an agent's items, in the order in which chat templates show them.
_ORDER = ('thought', 'text', 'call')
# A text of a log and its author, or None if the role decides.
Piece = tuple[str, Provenance | None]


class Items:
  """Collects the items of a log, in order; `turns` returns the turns.

  Each method takes the raw item too. A turn's `raw` has the keys of all its
  items, for author rules.

  Args:
    joined: whether neighbouring texts are pieces of one text. Otherwise each
      text is a message, and an agent's second text begins a new turn.
  """

  def __init__(self, joined: bool = True) -> None:
    self._joined = joined
    self._turns: list[Turn] = []
    self._texts: dict[str, list] = {}  # items of the agent's open turn, by kind
    self._raws: list[Mapping] = []
    self._author: Provenance | None = None
    self._spans: object = None  # of the turn before

  def thought(self, text: object, raw: Mapping) -> None:
    """Adds a thought of the agent; other values than text are malformed."""
    if not isinstance(text, str):
      raise Malformed(f'{self.place}: a thought is {kind(text)}, expected text')
    self._add('thought', text, raw, None)

  def text(
    self, text: object, raw: Mapping, author: Provenance | None = None
  ) -> None:
    """Adds words in the agent's slot; `author` if another one wrote them."""
    if not isinstance(text, str):
      raise Malformed(f'{self.place}: a text is {kind(text)}, expected text')
    self._add('text', text, raw, author)

  def call(
    self, id: object, name: object, arguments: object, raw: Mapping
  ) -> None:
    """Adds a tool call of the agent."""
    function = {'name': name, 'arguments': arguments}
    call: dict = {'type': 'function', 'function': function}
    # Some APIs have no ids.
    call = call if id is None else {'id': id, **call}
    self._add('call', call, raw, None)

  def result(
    self, id: object, name: object, content: object, raw: Mapping
  ) -> None:
    """Adds a tool's result as a turn."""
    message = {'role': 'tool', 'content': content}
    message |= {'tool_call_id': id, 'name': name}
    self.message(message, raw)

  def pieces(self, role: str, pieces: Iterable[Piece], raw: Mapping) -> None:
    """Adds a message whose texts have different authors.

    Args:
      role: role of the message.
      pieces: texts and their authors. If all of them have the same author, it
        is the turn's; otherwise the turn has spans.
      raw: the item. Its own spans are kept instead.
    """
    # An empty text would add an author without words.
    pieces = [piece for piece in pieces if piece[0]]
    authors = {author for _, author in pieces}
    text = ''.join(words for words, _ in pieces)
    message = {'role': role, 'content': text}
    if len(authors) < 2 or raw.get('spans') is not None:
      self.message(message, raw, authors.pop() if len(authors) == 1 else None)
      return
    # Spans count characters of the joined text.
    spans: list[list] = []
    start = 0
    for words, author in pieces:
      if author is not None:
        spans.append([start, start + len(words), author.name])
      start += len(words)
    self.message(message, {**raw, 'spans': spans})

  def message(
    self, message: Mapping, raw: Mapping, author: Provenance | None = None
  ) -> None:
    """Adds a message of any other role as a turn.

    Args:
      message: the message in OpenAI's form.
      raw: the item.
      author: its author, or None if the role decides.
    """
    self.end_turn()
    # Spans count characters of one text, but the item became several turns.
    spans = raw.get('spans')
    if spans is not None and spans is self._spans:
      raise self._several_texts()
    self._spans = spans
    # Annotations of the item hold for the turn.
    marks = {k: v for k, v in raw.items() if is_mark(k, v)}
    turn = normalised({**marks, **message}, len(self._turns))
    view = {**raw, 'role': turn['role'], 'content': turn['content']}
    self._turns.append(Turn(turn, author, view))

  def end_turn(self) -> None:
    """Ends the agent's turn, if it is open."""
    if not self._raws:
      return
    texts, raws, author = self._texts, self._raws, self._author
    self._texts, self._raws, self._author = {}, [], None
    # Author rules see the keys of all items of the turn.
    raw: dict = {}
    for item in raws:
      raw |= item
    if raw.get('spans') is not None and len(texts.get('text', ())) != 1:
      raise self._several_texts()
    # Thoughts, text and calls, as one message in OpenAI's form.
    content = ''.join(texts.get('text', ()))
    message: dict = {'role': 'assistant', 'content': content}
    if any(texts.get('thought', ())):
      between = '' if self._joined else '\n\n'
      message['reasoning_content'] = between.join(texts['thought'])
    if 'call' in texts:
      message['tool_calls'] = texts['call']
    self.message(message, raw, author)

  def turns(self) -> list[Turn]:
    """Returns the turns, after ending the last one."""
    self.end_turn()
    return self._turns

  def cut(self, turns: int) -> int:
    """Removes all turns but the first ones; returns the number removed."""
    removed = len(self._turns) - turns
    del self._turns[turns:]
    return removed

  @property
  def place(self) -> str:
    """The turn that the next item belongs to, for error messages."""
    return f'turn {len(self._turns)}'

  def _several_texts(self) -> Malformed:
    # Spans count characters of one text, and cannot be assigned to several.
    return Malformed(
      f'{self.place}: spans count characters of one text, and its message does '
      'not have exactly one'
    )

  def _add(
    self, name: str, item: object, raw: Mapping, author: Provenance | None
  ) -> None:
    # A new turn begins if chat templates would show this item before the last
    # one, if it is a second message, or if its annotations or author differ.
    last = list(self._texts)[-1] if self._texts else name
    marks = [_marks(r) for r in self._raws[-1:]]
    if (
      _ORDER.index(name) < _ORDER.index(last)
      or (name == last == 'text' and self._texts and not self._joined)
      or (marks and marks != [_marks(raw)])
      or (self._raws and author != self._author)
    ):
      self.end_turn()
    self._texts.setdefault(name, []).append(item)
    self._raws.append(raw)
    self._author = author


def _marks(raw: Mapping) -> dict:
  """Returns an item's annotations; items of one turn must have the same."""
  return {
    key: value
    for key, value in raw.items()
    if key != 'spans' and (is_mark(key, value) or is_flag(key, value))
  }


def json_text(value: object) -> str:
  """Returns a result that is JSON as text, and text unchanged.

  Raises:
    Malformed: it holds a value that JSON does not have, such as NaN.
  """
  if isinstance(value, str):
    return value
  try:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
  except (TypeError, ValueError):
    raise Malformed('a result holds a value that JSON does not have') from None


def hidden(where: str, name: str) -> Malformed:
  """Returns the error for words of an agent that a log does not have.

  Args:
    where: place in the row.
    name: key or type of the item.
  """
  return Malformed(
    f'{where}: {quoted(name)} has no text: the words of the agent are not in '
    'the row'
  )


def not_text(where: str, name: object) -> Malformed:
  """Returns the error for an item that has no text form.

  Args:
    where: place in the row.
    name: key or type of the item.
  """
  return Malformed(
    f'{where}: {quoted(name)} has no text form, and no chat template can show '
    'it'
  )
