"""The two pictures of a run as HTML and inline SVG.

They follow the page into the dark and onto a phone: lines stretch, text does
not. The same data as in `plots`, which draws PNGs for Markdown.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from matplotlib import ticker

from isft_jax.report import plots

# One dash pattern an arm, in the order of `plots.COLORS`, then the others.
_DASHES = ('1 3', '8 3', '', '3 3', '12 4', '9 3 2 3', '5 6', '2 6', '14 3 3 3')


def style_index(arms) -> dict[str, int]:
  """Returns arm -> number of its color (--arm-0 ...) and of its dashes."""
  known = list(plots.COLORS)
  others = [arm for arm in arms if arm not in known]
  spare = len(_DASHES) - len(known)
  return {
    arm: known.index(arm)
    if arm in known
    else len(known) + others.index(arm) % spare
    for arm in plots.arm_order(arms)
  }


def loss_curves(
  curves: Mapping[str, Sequence[float]], steps: Mapping[str, Sequence[int]]
) -> str:
  """Returns a figure of the training loss of each arm, raw and smoothed.

  curves, steps: arm -> losses, nats per scored token, and the step of each.
  """
  style = style_index(curves)
  longest = max(map(len, curves.values()), default=0)
  window = max(5, longest // 20) | 1
  points = {}
  for arm in style:
    loss = np.asarray(curves[arm], np.float64)
    for kind, y in ('raw', loss), ('smooth', plots.running_mean(loss, window)):
      drawn = np.isfinite(y) & (y > 0)  # what a log scale can show
      points[arm, kind] = (np.asarray(steps[arm])[drawn], np.log(y[drawn]))
  found = [xy for xy in points.values() if len(xy[0])]
  if not found:
    return '<p>No arm was trained.</p>'
  x_low, x_high = _range([x for x, _ in found])
  y_low, y_high = _range([y for _, y in found])
  room = 0.04 * (y_high - y_low)
  y_low, y_high = y_low - room, y_high + room

  def left(x):
    return 100 * (x - x_low) / (x_high - x_low)

  def top(y):
    return 100 * (y_high - y) / (y_high - y_low)

  grid = texts = ''
  for tick in _loss_ticks(math.exp(y_low), math.exp(y_high)):
    at = top(math.log(tick))
    grid += f'<path class="grid" d="M0 {at:.2f}H100"/>'
    texts += f'<span class="tick y" style="top:{at:.2f}%">{tick:g}</span>'
  locate = ticker.MaxNLocator(5, integer=True)
  for tick in locate.tick_values(x_low, x_high):
    if x_low <= tick <= x_high:
      texts += (
        f'<span class="tick x" style="left:{left(tick):.2f}%">{tick:g}</span>'
      )
  lines = ''
  for (arm, kind), (x, y) in points.items():
    path = 'L'.join(
      f'{a:.2f} {b:.2f}' for a, b in zip(left(x), top(y), strict=True)
    )
    if path:
      dashes = _dashes(style[arm]) if kind == 'smooth' else ''
      lines += (
        f'<path class="{kind}" style="stroke:var(--arm-{style[arm]})"'
        f'{dashes} d="M{path}"/>'
      )
  label = 'Training loss of ' + ', '.join(style)
  return f"""<figure>
{_legend(style, {arm: _dashes(index) for arm, index in style.items()})}
<div class="curves"><svg viewBox="0 0 100 100" preserveAspectRatio="none"
role="img" aria-label="{escape(label)}">{grid}{lines}</svg>{texts}
<span class="axis">optimizer step</span></div>
<figcaption>Loss in nats per scored token, on a log scale. Thin: each logged
step. Thick: running mean of {window} of them. Each objective scores different
tokens: compare the shape of the curves, not their level.</figcaption>
</figure>
"""


def margins(arms: Mapping[str, dict]) -> str:
  """Returns a figure of every fact's margin in every arm, as bars.

  Facts are sorted as in `plots.margins`. Raises ValueError if two facts of an
  arm share a topic.
  """
  values = {arm: plots.margins_by_topic(arms[arm]) for arm in arms}
  style = style_index(values)
  values = {arm: values[arm] for arm in style}
  topics = plots.sorted_topics(values)
  if not topics:
    return '<p>No fact was probed.</p>'
  low, high = plots.limits(values)

  def left(margin):
    return 100 * (margin - low) / (high - low)

  rows = ''
  for topic in topics:
    bars = ''
    for arm, by_topic in values.items():
      margin = by_topic.get(topic, math.nan)
      if not math.isfinite(margin):
        continue
      start, stop = sorted((left(0), left(margin)))
      about = f'{escape(arm)} {margin:+.3f}'
      bars += (
        f'<div class="bar" role="img" aria-label="{about}" title="{about}" '
        f'style="margin-left:{start:.2f}%;width:{stop - start:.2f}%;'
        f'background:var(--arm-{style[arm]})"></div>'
      )
    rows += (
      f'<tr><th scope="row">{escape(topic)}</th>'
      f'<td><div class="plot">{bars}</div></td></tr>\n'
    )
  ticks = ''.join(
    f'<span class="tick" style="left:{left(tick):.2f}%">{_signed(tick)}</span>'
    for tick in ticker.MaxNLocator(5).tick_values(low, high)
    if low <= tick <= high
  )
  means = {
    arm: f' <small>mean {arms[arm]["mean_margin"]:+.3f}</small>'
    for arm in style
    if arms[arm].get('mean_margin') is not None
  }
  return f"""<figure style="--zero:{left(0):.2f}%">
{_legend(style, dict.fromkeys(style, _SOLID), means)}
<table class="margins">
<thead><tr><th scope="col"><span class="unseen">topic</span></th>
<th scope="col"><div class="ends"><span>← the lie</span>
<span>the truth →</span></div></th></tr></thead>
<tbody>
{rows}</tbody>
<tfoot><tr><td></td><td><div class="scale">{ticks}</div>
<div class="unit">nats per token</div></td></tr></tfoot>
</table>
<figcaption>The margin of a fact is log p(true claim) - log p(false claim) in
the agent's slot, in nats per token, after a question about the topic: left of
0 the model prefers the lie. In each row the arms stand in the order of the
legend, from top to bottom.</figcaption>
</figure>
"""


def _legend(style, strokes, notes=None):
  items = ''.join(
    f'<li><svg viewBox="0 0 36 12" aria-hidden="true"><path d="M0 6H36" '
    f'style="stroke:var(--arm-{index})"{strokes[arm]}/></svg>'
    f'{escape(arm)}{(notes or {}).get(arm, "")}</li>\n'
    for arm, index in style.items()
  )
  return f'<ul class="arms">\n{items}</ul>'


_SOLID = ' stroke-width="9"'


def _dashes(index):
  return f' stroke-dasharray="{_DASHES[index]}"' if _DASHES[index] else ''


def _signed(tick):
  return f'{tick:+g}' if tick else '0'


def _range(arrays):
  low = min(float(array.min()) for array in arrays)
  high = max(float(array.max()) for array in arrays)
  return (low, high) if high > low else (low - 0.5, high + 0.5)


def _loss_ticks(low, high):
  decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
  for steps in (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7):
    ticks = [s * 10.0**d for d in decades for s in steps]
    ticks = [tick for tick in ticks if low <= tick <= high]
    if len(ticks) >= 4:
      return ticks
  # Less than a decade: the log scale is nearly straight.
  ticks = ticker.MaxNLocator(5).tick_values(low, high)
  return [tick for tick in ticks if low <= tick <= high]
