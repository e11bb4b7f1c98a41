"""Colors of pages and terminals: legible in light and in dark."""

import pathlib
import re

import numpy as np
import pytest

from isft_jax.report import colors, document
from isft_jax.report.viewer import terminal
from isft_jax.types import Provenance

PALETTES = {'light': colors.LIGHT, 'dark': colors.DARK}
CSS = (pathlib.Path(document.__file__).parent / 'page.css').read_text()


def contrast(one, other):
  """The contrast of two colors '#rrggbb': WCAG 2.2, relative luminance."""

  def luminance(color):
    c = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]

  low, high = sorted((luminance(one), luminance(other)))
  return (high + 0.05) / (low + 0.05)


def test_contrast_of_known_pairs():
  assert contrast('#000000', '#ffffff') == pytest.approx(21)
  assert contrast('#767676', '#ffffff') == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize('mode', ['light', 'dark'])
def test_text_passes_wcag_aa(mode):
  color = PALETTES[mode]
  authors = [a.name.lower() for a in Provenance if a != Provenance.PAD]
  pairs = [('ink', f'{author}-tint') for author in authors]  # scored tokens
  pairs += [('paper', author) for author in authors]  # letter marks
  for ground in ('paper', 'card'):
    pairs += [
      (text, ground) for text in ('ink', 'quiet', 'link', 'lie', 'truth')
    ]
  too_low = {
    pair: round(contrast(color[pair[0]], color[pair[1]]), 2)
    for pair in pairs
    if contrast(color[pair[0]], color[pair[1]]) < 4.5
  }
  assert too_low == {}


@pytest.mark.parametrize('mode', ['light', 'dark'])
def test_lines_and_bars_pass_wcag_aa(mode):
  color = PALETTES[mode]
  arms = [f'arm-{index}' for index in range(9)]
  assert min(contrast(color[a], color['paper']) for a in arms) >= 3
  assert min(contrast(color[a], color['card']) for a in arms) >= 3
  assert len({color[a] for a in arms}) == 9


def test_the_dark_page_defines_what_the_light_one_does():
  assert colors.LIGHT.keys() == colors.DARK.keys()
  used = set(re.findall(r'var\(--([a-z0-9-]+)', CSS))
  assert used <= colors.LIGHT.keys() | {'author', 'tint', 'weight'}


def test_no_color_is_written_into_the_style_sheet():
  assert not re.search(r'#[0-9a-fA-F]{3,8}\b', CSS)


def test_a_page_has_the_colors_of_both_schemes():
  text = document.page('viewer/page.html.j2', 'x', viewer='').decode()
  light, dark = text.split('@media (prefers-color-scheme: dark)')[:2]
  for palette, css in (colors.LIGHT, light), (colors.DARK, dark):
    defined = re.findall(r'--([a-z0-9-]+): (#[0-9a-f]{6});', css)
    assert dict(defined) == palette


def test_the_terminals_fills_pass_wcag_aa():
  """Black on xterm's color cube (16 to 231) and its grays (232 to 255)."""

  def color(index):
    if index >= 232:
      return (
        f'#{8 + 10 * (index - 232):02x}' + f'{8 + 10 * (index - 232):02x}' * 2
      )
    levels = (0, 95, 135, 175, 215, 255)
    cube = index - 16
    return '#' + ''.join(f'{levels[cube // 6**k % 6]:02x}' for k in (2, 1, 0))

  fills = terminal.FILLS
  assert list(fills) == list(Provenance)
  assert min(contrast('#000000', color(f)) for f in fills.values()) > 4.5
