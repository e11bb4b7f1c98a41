"""Text from data that must neither hide anything nor command a terminal."""


def visible(text: str) -> str:
  """Returns text with nothing hidden in it: ↵ before each line break, \\xNN.

  No token can then move a cursor, color a terminal or turn text around.
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
  """Returns text as `visible` does, on one line."""
  return visible(text).replace('\n', ' ')
