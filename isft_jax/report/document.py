"""Renders HTML pages from Jinja templates, as single files without network."""

import functools
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

  Args:
    template: path of a template in this folder.
    title: the title of the page.
    **content: values for the template. Text is escaped; Markup is not.
  """
  text = (
    environment()
    .get_template(template)
    .render(
      title=title,
      light=colors.LIGHT,
      dark=colors.DARK,
      style=Markup((_HERE / 'page.css').read_text(encoding='utf-8')),
      script=Markup((_HERE / 'viewer.js').read_text(encoding='utf-8')),
      **content,
    )
  )
  # A reply of a byte-level model can end in the middle of a character, which
  # UTF-8 cannot encode.
  return text.encode('utf-8', 'backslashreplace')


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
