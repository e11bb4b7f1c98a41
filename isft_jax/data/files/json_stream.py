"""Streams the elements of large JSON arrays in bounded memory."""

import json
import re
from collections.abc import Collection, Iterator
from typing import TextIO

from isft_jax.data.files import strict_json, text_lines

_CHUNK = 1 << 16  # characters per read
# An error this close to the end of the buffer may disappear with more text.
_LONGEST_TOKEN = 16
_BLANK = re.compile(r'[ \t\r\n]*')


def values(stream: TextIO) -> Iterator[tuple[object, str]]:
  """Parses a text that is an array or a single value.

  Args:
    stream: the text.

  Yields:
    (value, '') or (None, error) for each element of the array, or for the
    single value. NaN and Infinity are `strict_json.NoJson`. A syntax error ends
    the iteration, because the rest of the text cannot be read; it is yielded
    last.
  """
  text = _Text(stream)
  try:
    if not text.peek():
      yield None, 'The file is empty'
    elif text.peek() == '[':
      yield from _elements(text)
    else:
      yield text.value()
    # A file with several values is no JSON document.
    if text.peek():
      raise text.error('More text after the end')
  except json.JSONDecodeError as error:
    yield None, _said(error, text)


def fields(
  stream: TextIO, arrays: Collection[str]
) -> Iterator[tuple[str, object, str]]:
  """Parses a text that is an object, and streams some arrays in it.

  Args:
    stream: the text.
    arrays: keys of the object. If their value is an array, it is streamed.

  Yields:
    (key, value, '') or (key, None, error) for each field, and for each element
    of the arrays. A syntax error ends the iteration; it is yielded last, with
    the key ''.
  """
  text = _Text(stream)
  try:
    # One field per round of the loop. A comma means that another follows.
    _skip(text, '{')
    comma = text.peek() != '}'
    while comma:
      if text.peek() != '"':
        raise text.error('Expecting property name enclosed in double quotes')
      key, _ = text.value()
      _skip(text, ':')
      # Elements of large arrays are yielded one by one.
      if key in arrays and text.peek() == '[':
        for value, error in _elements(text):
          yield str(key), value, error
      else:
        yield (str(key), *text.value())
      comma = text.peek() == ','
      if comma:
        text.skip()
    _skip(text, '}')
    if text.peek():
      raise text.error('More text after the end')
  except json.JSONDecodeError as error:
    yield '', None, _said(error, text)


def _skip(text: '_Text', character: str) -> None:
  """Skips a character, which must be the next."""
  if text.peek() != character:
    raise text.error(f'Expecting {character!r} delimiter')
  text.skip()


def _said(error: json.JSONDecodeError, text: '_Text') -> str:
  message = strict_json.describe_error(error, text.before)
  return f'{message}; the rest of the file is not read'


def _elements(text: '_Text') -> Iterator[tuple[object, str]]:
  """Yields the elements of an array whose bracket is the next character."""
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
  """A buffer over a stream that grows until it holds the next value."""

  def __init__(self, stream: TextIO) -> None:
    self.before = 0  # number of characters before the buffer
    self._stream = stream
    self._text = ''  # the buffer
    self._position = 0  # of the next character, in the buffer

  def peek(self) -> str:
    """Returns the next character that is not blank; '' at the end."""
    while True:
      blank = _BLANK.match(self._text, self._position)
      assert blank is not None  # the pattern also matches an empty text
      self._position = blank.end()
      if self._position < len(self._text) or not self._grow():
        return self._text[self._position : self._position + 1]

  def skip(self) -> None:
    """Skips the character that `peek` returned."""
    self._position += 1

  def error(self, message: str) -> json.JSONDecodeError:
    return json.JSONDecodeError(message, self._text, self._position)

  def value(self) -> tuple[object, str]:
    """Returns the next value and its error; raises json.JSONDecodeError."""
    self.peek()
    while True:
      try:
        value, end, flaw = strict_json.scan(
          self._text, self._position, self.before, True
        )
      except json.JSONDecodeError as error:
        if _final(error) or not self._grow():
          raise
        continue
      # A number at the end of the buffer may be incomplete: 1 may be 1.5, and
      # 1.5e- may be 1.5e-7.
      if end + _LONGEST_TOKEN < len(self._text) or not self._grow():
        self._position = end
        return value, flaw

  def _grow(self) -> bool:
    """Drops text before the position and reads more; False at the end."""
    # The kept text is parsed again from its beginning. Doubling the buffer
    # keeps the total work linear.
    kept = len(self._text) - self._position
    if kept > text_lines.LONGEST:
      raise self.error(text_lines.TOO_LONG)
    more = self._stream.read(max(_CHUNK, kept))
    if more:
      self.before += self._position
      self._text = self._text[self._position :] + more
      self._position = 0
    return bool(more)


def _final(error: json.JSONDecodeError) -> bool:
  """Returns whether an error would remain if more text was read."""
  # The position is the beginning of the string, which may be far back.
  if error.msg.startswith('Unterminated string'):
    return False
  return error.pos + _LONGEST_TOKEN < len(error.doc)
