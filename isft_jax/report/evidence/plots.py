"""The flywheel as a PNG, for Markdown."""

import io
import os

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, PercentFormatter

from isft_jax.report import plots
from isft_jax.report.evidence.charts import ends


def flywheel(wheel: dict, path: str | os.PathLike) -> None:
  """Draws the accuracy of each arm by rounds, with its 95 % band.

  wheel: `flywheel` of results.json. path: of the PNG, replaced atomically.
  """
  figure = Figure(figsize=(8, 4.6), dpi=120, layout='constrained')
  axes = figure.add_subplot()
  for arm, color in plots.arm_colors(wheel).items():
    accuracy = wheel[arm]['accuracy']
    rounds = range(len(accuracy))
    low, high = zip(*map(ends, accuracy), strict=True)
    means = [value['mean'] for value in accuracy]
    axes.fill_between(rounds, low, high, color=color, alpha=0.1, linewidth=0)
    axes.plot(rounds, means, color=color, marker='o', linewidth=2.2, label=arm)
  axes.xaxis.set_major_locator(MultipleLocator(1))
  axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
  axes.grid(axis='y', color='0.9')
  axes.spines[['top', 'right']].set_visible(False)
  axes.set_xlabel('rounds of training on conversations about its own answers')
  axes.set_ylabel('sampled answers that are right')
  figure.legend(loc='outside upper center', ncols=4, frameon=False)
  png = io.BytesIO()
  FigureCanvasAgg(figure).print_png(png, metadata={'Software': None})
  plots.replace_file(path, png.getvalue())
