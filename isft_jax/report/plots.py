"""Charts drawn by matplotlib: SVG inside pages, PNG in files.

Figures are made with the object API, independent of displays, pyplot state and
matplotlibrc, so that the same input gives the same bytes.
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

# Known arms, in the order of tables and charts. Arm i has the color 'arm-i'.
ARMS = (
  *('base', 'observational', 'interventional'),
  *('agent_only', 'error_masked', 'truth_only'),
)
# A dash pattern for each color: lengths of dashes and gaps, in line widths.
DASHES = (
  *('1 1.2', '3.2 1.2', '', '1.6 1.2', '5 1.6', '3.6 1.2 1 1.2'),
  *('2 2.4', '1 2.4', '6 1.2 1.2 1.2'),
)
# Inches. At 72 points per inch these are 360 points, about the width of a phone
# in CSS pixels: a point of text is then about a pixel.
WIDTH = 5.0

_STYLE = {
  'font.family': 'DejaVu Sans',
  'font.size': 10.5,
  'text.parse_math': False,  # a dollar in a name is no mathematics
  'axes.unicode_minus': False,  # the same minus as in Python's numbers
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
  'svg.fonttype': 'none',  # text stays text, not outlines
  'svg.hashsalt': 'isft_jax',  # ids do not change from run to run
}
# matplotlib leaves out metadata that are None; the date changes with every run.
_NO_METADATA = dict.fromkeys(('Date', 'Creator', 'Format', 'Type'))
# Elements and attributes of matplotlib's SVG that a page may hold. None of them
# can run a script or fetch anything.
_ELEMENTS = frozenset(
  (
    *('svg', 'defs', 'g', 'path', 'use', 'clipPath', 'rect'),
    *('text', 'tspan', 'title'),
  )
)
_ATTRIBUTES = frozenset(
  (
    *('d', 'height', 'transform', 'version', 'viewBox', 'width', 'x', 'y'),
    *('clip-path', 'href', 'id', 'style'),
  )
)
# Light color -> CSS variable, which a page redefines in dark mode.
_VARIABLES = {LIGHT[role]: f'var(--{role})' for role in CHART_ROLES}


@dataclasses.dataclass(frozen=True)
class Chart:
  """A drawn chart with its texts."""

  name: str  # of its file, and prefix of its ids in a page; letters, digits, _
  label: str  # alternative text for screen readers
  figure: Figure
  caption: str = ''  # shown below the chart
  not_shown: str = ''  # limits of the chart, shown after the caption

  def save_png(self, folder: str | os.PathLike) -> pathlib.Path:
    """Writes `<name>.png` into a folder, atomically; returns its path."""
    path = pathlib.Path(folder) / f'{self.name}.png'
    # Without Software, which has the version of matplotlib.
    files.write_atomically(path, self._saved('png', {'Software': None}))
    return path

  def svg(self) -> Markup:
    """Returns the chart as an SVG element in the colors of the page.

    Raises:
      KeyError: the chart has a color that belongs to no role, or an element or
        an attribute that pages do not allow.
    """
    text = self._saved('svg', _NO_METADATA).decode()
    # Remove the style sheet: its rules would apply to the whole page, which has
    # rules for charts itself.
    root = ElementTree.fromstring(
      re.sub('<style.*?</style>', '', text).encode()
    )
    # Keep only ids that something refers to.
    kept = set(re.findall(r'(?:href="|url\()#([\w-]+)', text))
    for element in root.iter():
      _adapt(element, f'{self.name}-', kept)
    # A screen reader announces the chart as one group with a label.
    root.attrib = {
      'class': 'chart',
      'viewBox': root.attrib['viewBox'],
      'role': 'group',
      'aria-label': self.label,
    }
    return Markup(ElementTree.tostring(root, encoding='unicode').strip())

  def _saved(self, kind: str, metadata: dict) -> bytes:
    content = io.BytesIO()
    # Settings such as svg.fonttype apply when the file is written.
    with _styled():
      self.figure.savefig(content, format=kind, metadata=metadata)
    return content.getvalue()


class ArmStyle(NamedTuple):
  """Color and line style of an arm."""

  color: str  # '#rrggbb'
  dashes: str | tuple  # a line style of matplotlib


def arm_order(arms: Iterable[str]) -> list[str]:
  """Returns arm names: known ones in the order of ARMS, then the others."""
  # The argument may be an iterator, and is read twice.
  arms = list(arms)
  return [arm for arm in ARMS if arm in arms] + [
    arm for arm in arms if arm not in ARMS
  ]


def arm_styles(arms: Iterable[str]) -> dict[str, ArmStyle]:
  """Returns arm -> style, in order. A known arm always has the same style."""
  styles, others = {}, 0
  for arm in arm_order(arms):
    if arm in ARMS:
      index = ARMS.index(arm)
    else:  # unknown arms share the remaining styles in turn
      index = len(ARMS) + others % (len(DASHES) - len(ARMS))
      others += 1
    styles[arm] = ArmStyle(LIGHT[f'arm-{index}'], dashes(DASHES[index]))
  return styles


def dashes(pattern: str) -> str | tuple:
  """Returns a line style of matplotlib; an empty pattern is a solid line."""
  return (0, tuple(map(float, pattern.split()))) if pattern else 'solid'


@contextlib.contextmanager
def drawing(height: float) -> Iterator[Figure]:
  """Yields a figure to draw on, `WIDTH` wide, and fixes its layout at the end.

  Args:
    height: height of the figure in inches.
  """
  with _styled():
    # Inches: tick labels must not touch the edge of the picture.
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06)
    figure = Figure(figsize=(WIDTH, height), layout=layout)
    yield figure
    # Each drawing would move the axes a little. With a fixed layout, PNG and
    # SVG are equal.
    figure.draw_without_rendering()
    figure.set_layout_engine('none')


def legend_above(figure: Figure, axes: Axes) -> None:
  """Puts the legend above the axes, outside."""
  handles, labels = axes.get_legend_handles_labels()
  figure.legend(
    handles,
    labels,
    loc='outside upper center',
    # Two columns fit if no label is longer than 27 characters.
    ncols=2 if max(map(len, labels)) <= 27 else 1,
    handlelength=2.4,
    columnspacing=1.4,
  )


def set_tooltip(artist: Artist, text: str) -> None:
  """Sets the tooltip of an artist, which screen readers also read."""
  artist.set_gid(f'{_TOOLTIP}{visible_line(text)}')


# Prefix of the id of an artist with a tooltip: matplotlib writes ids into SVG.
_TOOLTIP = 'tooltip: '


def _styled() -> contextlib.AbstractContextManager[None]:
  return style.context(['default', _STYLE])


def _adapt(
  element: ElementTree.Element, prefix: str, kept: Collection[str]
) -> None:
  """Rewrites an element of matplotlib's SVG for a page.

  Colors become CSS variables and numbers keep two decimals. Ids get a prefix,
  because a page has several charts. Unused ids, namespaces and fonts are
  removed.
  """
  # ElementTree writes names as {namespace}name.
  element.tag = element.tag.split('}')[-1]
  if element.tag not in _ELEMENTS:
    raise KeyError(f'SVG element {element.tag}')
  element.tail = None
  attributes, element.attrib = element.attrib, {}
  for name, value in attributes.items():
    name = name.split('}')[-1]
    if name not in _ATTRIBUTES:
      raise KeyError(f'SVG attribute {name}')
    # A tooltip is a <title> in SVG, and needs a role for screen readers.
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
      # References follow the renamed ids.
      element.set(name, value.replace('#', f'#{prefix}'))
    elif name in ('d', 'x', 'y', 'width', 'height', 'transform'):
      value = re.sub(r'-?\d+\.\d+', _short, value)
      # A rotation by zero does nothing.
      if not value.startswith('rotate(-0'):
        element.set(name, ' '.join(value.split()))
    else:
      element.set(name, value)
  # Only these two have text; the rest is white space.
  if element.tag != 'text' and element.tag != 'title':
    element.text = None


def _adapted_style(css: str) -> str:
  # The page sets the font family. matplotlib 3.9 writes weight, size and family
  # as one rule.
  css = re.sub(r'font: (\w+ )?([\d.]+px) [^;]*', _font_rules, css)
  css = re.sub(r'font-family: [^;]*(; )?', '', css)
  # KeyError for a color without a variable, which would not change in dark
  # mode.
  return re.sub(
    r'#[0-9a-f]{6}',
    lambda match: _VARIABLES[match[0]],
    re.sub('([:;]) ', r'\1', css),
  )


def _font_rules(match: re.Match[str]) -> str:
  weight = f'font-weight: {match[1].strip()}; ' if match[1] else ''
  return f'{weight}font-size: {match[2]}'


def _short(match: re.Match[str]) -> str:
  # '1.50' becomes '1.5', and '2.00' becomes '2'.
  return f'{float(match[0]):.2f}'.rstrip('0').rstrip('.')
