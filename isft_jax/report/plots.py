"""Charts, drawn once by matplotlib: SVG inside pages, PNG in files.

Drawn through the object API, so that no display, no pyplot state and no
matplotlibrc has a say: the same input gives the same bytes.
"""

import contextlib
import dataclasses
import io
import os
import pathlib
import re
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from isft_jax import files
from isft_jax.report.colors import CHART_ROLES, LIGHT
from isft_jax.report.escapes import visible_line

# In the order of all tables and charts; the place gives the color's role.
ARMS = (
  *('base', 'observational', 'interventional'),
  *('agent_only', 'error_masked', 'truth_only'),
)
# A dash pattern for each color, in line widths.
DASHES = (
  *('1 1.2', '3.2 1.2', '', '1.6 1.2', '5 1.6', '3.6 1.2 1 1.2'),
  *('2 2.4', '1 2.4', '6 1.2 1.2 1.2'),
)
# Inches: 360 units, about the pixels that a phone has, so that a point of text
# is a pixel there.
WIDTH = 5.0

_STYLE = {
  'font.family': 'DejaVu Sans',
  'font.size': 10.5,
  'text.parse_math': False,  # a dollar in a name is a dollar
  'axes.unicode_minus': False,  # the minus of Python's numbers beside it
  'axes.axisbelow': True,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'legend.frameon': False,
  'legend.fontsize': 9.5,
  'figure.facecolor': LIGHT['paper'],
  'figure.dpi': 144,
  'axes.facecolor': LIGHT['paper'],
  'axes.edgecolor': LIGHT['quiet'],
  'grid.color': LIGHT['line'],
  **{
    f'{name}color': LIGHT['ink']
    for name in ('text.', 'axes.label', 'xtick.', 'ytick.')
  },
  'svg.fonttype': 'none',  # text as text
  'svg.hashsalt': 'isft_jax',
}
_NO_METADATA = dict.fromkeys(('Date', 'Creator', 'Format', 'Type'))
_VARIABLES = {LIGHT[role]: f'var(--{role})' for role in CHART_ROLES}


@dataclasses.dataclass(frozen=True)
class Chart:
  """A drawn chart.

  name: of its file, and what its ids begin with in a page; letters, digits, _.
  label: what it shows, for those who cannot see it.
  caption, not_shown: what stands below it in a page.
  """

  name: str
  label: str
  figure: Figure
  caption: str = ''
  not_shown: str = ''

  def save_png(self, folder: str | os.PathLike) -> pathlib.Path:
    """Writes `<name>.png` into a folder, atomically; returns its path."""
    path = pathlib.Path(folder) / f'{self.name}.png'
    # matplotlib would sign the file with its version.
    files.write_atomically(path, self._saved('png', {'Software': None}))
    return path

  def svg(self) -> Markup:
    """Returns the chart as an element of a page, in the page's colors.

    Raises:
      KeyError: if it has a color that is no role's.
    """
    text = self._saved('svg', _NO_METADATA).decode()
    # The style is of all elements; the page's style sheet has one for charts.
    root = ElementTree.fromstring(
      re.sub('<style.*?</style>', '', text).encode()
    )
    kept = set(re.findall(r'(?:href="|url\()#([\w-]+)', text))
    for element in root.iter():
      _adapt(element, f'{self.name}-', kept)
    root.attrib = {
      'class': 'chart',
      'viewBox': root.attrib['viewBox'],
      'role': 'group',
      'aria-label': self.label,
    }
    return Markup(ElementTree.tostring(root, encoding='unicode').strip())

  def _saved(self, kind: str, metadata: dict) -> bytes:
    content = io.BytesIO()
    with _styled():
      self.figure.savefig(content, format=kind, metadata=metadata)
    return content.getvalue()


class ArmStyle(NamedTuple):
  """How an arm is drawn: a color '#rrggbb', and dashes for matplotlib."""

  color: str
  dashes: str | tuple


def arm_order(arms: Iterable[str]) -> list[str]:
  """Returns the names of arms: known ones in the order of ARMS, then others."""
  arms = list(arms)
  return [arm for arm in ARMS if arm in arms] + [
    arm for arm in arms if arm not in ARMS
  ]


def arm_styles(arms: Iterable[str]) -> dict[str, ArmStyle]:
  """Returns arm -> its style, in order; a known arm always has its own."""
  styles, others = {}, 0
  for arm in arm_order(arms):
    if arm in ARMS:
      index = ARMS.index(arm)
    else:
      index = len(ARMS) + others % (len(DASHES) - len(ARMS))
      others += 1
    styles[arm] = ArmStyle(LIGHT[f'arm-{index}'], dashes(DASHES[index]))
  return styles


def dashes(pattern: str) -> str | tuple:
  """Returns a line style of matplotlib; an empty pattern is a solid line."""
  return (0, tuple(map(float, pattern.split()))) if pattern else 'solid'


@contextlib.contextmanager
def drawing(height: float) -> Iterator[Figure]:
  """Yields a figure to draw on, `WIDTH` wide; its layout is fixed at the end.

  height: in inches.
  """
  with _styled():
    # Inches: tick labels must not touch the edge of the picture.
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06)
    figure = Figure(figsize=(WIDTH, height), layout=layout)
    yield figure
    # Each drawing would move the axes a little: PNG and SVG share one layout.
    figure.draw_without_rendering()
    figure.set_layout_engine('none')


def legend_above(figure: Figure, axes: Axes) -> None:
  """Puts the legend of the axes above them, outside."""
  handles, labels = axes.get_legend_handles_labels()
  figure.legend(
    handles,
    labels,
    loc='outside upper center',
    ncols=2 if max(map(len, labels)) <= 27 else 1,
    handlelength=2.4,
    columnspacing=1.4,
  )


def set_tooltip(artist: Artist, text: str) -> None:
  """Gives an artist a tooltip, which screen readers read out too."""
  artist.set_gid(f'{_TOOLTIP}{visible_line(text)}')


# The id of an artist with a tooltip begins with this.
_TOOLTIP = 'tooltip: '


def _styled() -> contextlib.AbstractContextManager[None]:
  return style.context(['default', _STYLE])


def _adapt(
  element: ElementTree.Element, prefix: str, kept: Collection[str]
) -> None:
  """Rewrites an element of matplotlib's SVG for a page.

  Colors become variables, numbers lose digits, ids get a prefix or go, and
  namespaces and fonts go.
  """
  element.tag = element.tag.split('}')[-1]
  element.tail = None
  attributes, element.attrib = element.attrib, {}
  for name, value in attributes.items():
    name = name.split('}')[-1]
    if name == 'id' and value.startswith(_TOOLTIP):
      title = ElementTree.Element('title')
      title.text = value.removeprefix(_TOOLTIP)
      element.insert(0, title)
      element.attrib |= {'role': 'img', 'aria-label': title.text}
    elif name == 'id':
      if value in kept:
        element.set('id', prefix + value)
    elif name == 'style':
      element.set('style', _adapted_style(value))
    elif name in ('href', 'clip-path'):
      element.set(name, value.replace('#', f'#{prefix}'))
    elif name in ('d', 'x', 'y', 'width', 'height', 'transform'):
      value = re.sub(r'-?\d+\.\d+', _short, value)
      if not value.startswith('rotate(-0'):
        element.set(name, ' '.join(value.split()))
    else:
      element.set(name, value)
  if element.tag != 'text' and element.tag != 'title':
    element.text = None


def _adapted_style(css: str) -> str:
  # The font is the page's; matplotlib 3.9 writes its weight, size and family
  # as one rule.
  css = re.sub(r'font: (\w+ )?([\d.]+px) [^;]*', _font_rules, css)
  css = re.sub(r'font-family: [^;]*(; )?', '', css)
  return re.sub(
    r'#[0-9a-f]{6}',
    lambda match: _VARIABLES[match[0]],
    re.sub('([:;]) ', r'\1', css),
  )


def _font_rules(match: re.Match[str]) -> str:
  weight = f'font-weight: {match[1].strip()}; ' if match[1] else ''
  return f'{weight}font-size: {match[2]}'


def _short(match: re.Match[str]) -> str:
  return f'{float(match[0]):.2f}'.rstrip('0').rstrip('.')
