"""Escapes control characters in text from data, for terminals and pages."""


def visible(text: str) -> str:
  """Returns text with ↵ before each line break and escapes such as \\xNN.

  Escaped text cannot move a cursor, color a terminal or reverse its direction.
  """
  return ''.join(
    '↵\n'
    if char == '\n'
    else char
    if char.isprintable()
    else char.encode('unicode_escape').decode()
    for char in text
  )


def visible_line(text: str) -> str:
  """Returns `visible(text)` on one line."""
  return visible(text).replace('\n', ' ')
