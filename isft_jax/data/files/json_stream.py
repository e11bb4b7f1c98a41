"""The values of one JSON text of any length, without holding all of it."""

import json
import re
from collections.abc import Iterator
from typing import TextIO

from isft_jax.data.files import strict_json

_CHUNK = 1 << 16  # characters
# This near to the end of what was read, an error may be for want of the rest.
_LONGEST_TOKEN = 16
_BLANK = re.compile(r'[ \t\r\n]*')


def values(stream: TextIO) -> Iterator[tuple[object, str]]:
  """Yields the elements of an array, or the one value, of a text.

  Each is a value and '' or an error. Where the text is broken the last error
  stands for all that would have followed.
  """
  text = _Text(stream)
  try:
    if not text.peek():
      yield None, 'The file is empty'
    elif text.peek() == '[':
      yield from _elements(text)
    else:
      yield text.value()
    if text.peek():
      raise text.error('More text after the end')
  except json.JSONDecodeError as error:
    said = strict_json.said(error, text.before)
    yield None, f'{said}; nothing is read from there on'


def _elements(text: '_Text') -> Iterator[tuple[object, str]]:
  text.skip()
  if text.peek() != ']':
    yield text.value()
    while text.peek() == ',':
      text.skip()
      yield text.value()
  if text.peek() != ']':
    raise text.error("Expecting ',' or ']'")
  text.skip()


class _Text:
  """The part of a text that is being read; it grows while a value needs it.

  before: characters that came before that part.
  """

  def __init__(self, stream: TextIO) -> None:
    self.before = 0
    self._stream = stream
    self._text = ''
    self._at = 0

  def peek(self) -> str:
    """Returns the next character that is not blank; '' at the end."""
    while True:
      blank = _BLANK.match(self._text, self._at)
      assert blank is not None  # it may be empty
      self._at = blank.end()
      if self._at < len(self._text) or not self._grow():
        return self._text[self._at : self._at + 1]

  def skip(self) -> None:
    """Goes past the character that `peek` gave."""
    self._at += 1

  def error(self, what: str) -> json.JSONDecodeError:
    return json.JSONDecodeError(what, self._text, self._at)

  def value(self) -> tuple[object, str]:
    """Returns the next value and its flaw; raises json.JSONDecodeError."""
    self.peek()
    while True:
      try:
        value, end, flaw = strict_json.scan(self._text, self._at, self.before)
      except json.JSONDecodeError as error:
        if _final(error) or not self._grow():
          raise
        continue
      # A number that ends here may go on: 1 may be 1.5, and 1.5e- 1.5e-7.
      if end + _LONGEST_TOKEN < len(self._text) or not self._grow():
        self._at = end
        return value, flaw

  def _grow(self) -> bool:
    # What is kept is read anew: doubling it keeps the work linear.
    kept = len(self._text) - self._at
    more = self._stream.read(max(_CHUNK, kept))
    if more:
      self.before += self._at
      self._text = self._text[self._at :] + more
      self._at = 0
    return bool(more)


def _final(error: json.JSONDecodeError) -> bool:
  """Whether more text would not mend it."""
  if error.msg.startswith('Unterminated string'):
    return False
  return error.pos + _LONGEST_TOKEN < len(error.doc)
