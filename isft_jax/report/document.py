"""Renders HTML pages from Jinja templates, as single files without network."""

import base64
import functools
import hashlib
import pathlib
import re
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup, escape

from isft_jax.report import colors
from isft_jax.report.escapes import visible_line
from isft_jax.report.plots import Chart
from isft_jax.report.tables import Table

_HERE = pathlib.Path(__file__).parent


class Block(NamedTuple):
  """A chart or a table on a page, with a heading or a note above it."""

  content: Chart | Table
  heading: str = ''
  note: str = ''


def page(template: str, title: str, **content: Any) -> bytes:
  """Returns a page in UTF-8, with its style and script inline.

  Its Content-Security-Policy names both by their SHA-256, so that a browser
  runs no other script, even if one were in the data.

  Args:
    template: path of a template in this folder.
    title: the title of the page.
    **content: values for the template. Text is escaped; Markup is not.
  """
  # Files of this package, and therefore no data.
  style, script = _style(), _HERE.joinpath('viewer.js').read_text('utf-8')
  text = (
    environment()
    .get_template(template)
    .render(
      title=title,
      policy=Markup(_policy(style, script)),
      style=Markup(style),
      script=Markup(script),
      **content,
    )
  )
  # A reply of a byte-level model can end in the middle of a character, which
  # UTF-8 cannot encode.
  return text.encode('utf-8', 'backslashreplace')


def _style() -> str:
  """Returns the style sheet: the colors of both modes, and page.css."""
  light, dark = (
    ''.join(f'  --{role}: {color};\n' for role, color in roles.items())
    for roles in (colors.LIGHT, colors.DARK)
  )
  sheet = _HERE.joinpath('page.css').read_text('utf-8')
  return (
    f':root {{\n{light}}}\n@media (prefers-color-scheme: dark) {{\n'
    f':root {{\n{dark}}}\n}}\n{sheet}'
  )


def _policy(style: str, script: str) -> str:
  """Returns a Content-Security-Policy: nothing is fetched, and only our own
  script and style sheet apply.

  Attributes `style` of SVG and of tokens are allowed, because they cannot run
  or fetch anything. Browsers without style-src-attr ignore them.
  """
  sheet, code = (
    base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    for text in (style, script)
  )
  return '; '.join(
    [
      "default-src 'none'",
      'img-src data:',
      f"script-src 'sha256-{code}'",
      f"style-src 'sha256-{sheet}'",
      "style-src-attr 'unsafe-inline'",
      "base-uri 'none'",
      "form-action 'none'",
    ]
  )


@functools.cache
def environment() -> jinja2.Environment:
  """Returns the environment of all templates.

  It escapes text, and raises for an undefined name.
  """
  templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_HERE),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )
  templates.filters |= {'strong': strong, 'line': visible_line}
  return templates


def strong(text: str) -> Markup:
  """Returns text as HTML, with **words** in bold."""
  return Markup(re.sub(r'\*\*(.+?)\*\*', r'<strong>\1</strong>', escape(text)))
