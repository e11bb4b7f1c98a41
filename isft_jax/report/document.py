"""What every page shares: one file that needs no other, and no network."""

import functools
import pathlib
from collections.abc import Iterable, Sequence
from html import escape

_HERE = pathlib.Path(__file__).parent

# The browser is told, too, that nothing may be fetched.
_POLICY = (
  "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)


def page(title: str, body: str) -> bytes:
  """Returns a whole HTML page, in UTF-8, with style and script inside.

  title: text. body: HTML.
  """
  text = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
{_read('page.css')}</style>
</head>
<body>
<main>
{body}</main>
<script>
{_read('viewer.js')}</script>
</body>
</html>
"""
  # A byte-level model can be cut in the middle of a character.
  return text.encode('utf-8', 'backslashreplace')


def table(
  header: Sequence[str],
  rows: Iterable[Sequence[str]],
  label: str,
  kind: str = 'figures',
) -> str:
  """Returns a table that scrolls inside its own box where it is too wide.

  header, rows: cells of HTML; a row's first cell is its header. A cell that
    starts with '<td' is taken as it is.
  label: what it shows, for those who cannot see it.
  kind: its CSS class: 'figures' are set to the right, 'texts' to the left.
  """
  head = ''.join(f'<th scope="col">{cell}</th>' for cell in header)
  lines = []
  for first, *cells in rows:
    line = ''.join(
      cell if cell.startswith('<td') else f'<td>{cell}</td>' for cell in cells
    )
    lines.append(f'<tr><th scope="row">{first}</th>{line}</tr>\n')
  # A box that scrolls must be reachable by keyboard.
  return (
    f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">'
    f'<table class="{kind}">\n<thead><tr>{head}</tr></thead>\n'
    f'<tbody>\n{"".join(lines)}</tbody></table></div>'
  )


@functools.cache
def _read(name):
  return (_HERE / name).read_text(encoding='utf-8')
