"""Shows the author of each token, and its weight under an objective.

  isft-inspect --records=DIR [--index=3] [--objective=error_masked]
  isft-inspect --input=RUNS --tokenizer=PLACE [--index=3]
  isft-inspect --config=configs/lying_agent_tiny.py --html=dialogue.html

A terminal shows authors as colors, and as letters below each line. A pipe gets
one line per token. --html writes one page that needs no network and has a
button for each objective. --input shows a row of agent runs before isft-prepare
makes records of it. With the config of an experiment, the dialogues in its
--workdir are shown. If there are none yet, they are generated temporarily.
"""

import functools
import os
import sys

from absl.flags import DEFINE_enum, DEFINE_integer, DEFINE_string

from isft_jax.cli import main, trajectories
from isft_jax.config import RunConfig
from isft_jax.experiments.config import LyingAgentConfig

RECORDS = DEFINE_string('records', '', 'Folder of records to read.')
INDEX = DEFINE_integer('index', 0, 'Index of the record or row, from 0.')
OBJECTIVE = DEFINE_string(
  'objective', 'interventional', 'Objective whose token weights are shown.'
)
HTML = DEFINE_string(
  'html', '', 'File for an HTML page, which replaces the text output.'
)
COLOR = DEFINE_enum(
  'color',
  'auto',
  ['auto', 'always', 'never'],
  'Use of colors; auto means in a terminal only.',
)


def _inspect() -> None:
  # Imported late: --help need not wait for them.
  from isft_jax import files
  from isft_jax.cli import sources
  from isft_jax.data.rendering import tokenizer
  from isft_jax.objectives import NAMES, weight_table
  from isft_jax.report import preparation
  from isft_jax.report.viewer import html, terminal
  from isft_jax.report.viewer import shown as viewer

  objective = OBJECTIVE.value
  if HTML.value:
    files.check_output(HTML.value)
  # Weights of every objective: the HTML page has a button for each.
  tables = {name: weight_table(name) for name in (*NAMES, objective)}
  # Read one example, from agent runs or from records.
  unread = ''
  if trajectories.INPUT.value:
    if RECORDS.value or main.CONFIG.value:
      raise ValueError(
        '--input cannot be combined with --records or --config; give one of '
        'them'
      )
    row = trajectories.inspected(INDEX.value)
    example, encoder = row.example, row.tokenizer
    unread = preparation.unread_lines(row.unused, row.left_out)
  else:
    example, encoder = sources.read(
      main.CONFIG.value,
      main.WORKDIR.value,
      RECORDS.value,
      trajectories.TOKENIZER.value,
      INDEX.value,
    )
  # Show it as a page or as text.
  decode = functools.partial(tokenizer.decode, encoder)
  shown = viewer.dialogue(example, decode, tables)
  if HTML.value:
    files.write_output(HTML.value, html.page(shown, objective))
    print(f'the page is in {HTML.value}')
  else:
    terminal.show(shown, objective, COLOR.value, os.environ)
  # stdout of a pipe has a line per token, and nothing else.
  if unread:
    print(unread, file=sys.stderr)


def run() -> None:
  """Runs the console script isft-inspect."""
  ours = (RECORDS, INDEX, OBJECTIVE, HTML, COLOR)
  main.run(
    _inspect,
    __doc__,
    (main.CONFIG, main.WORKDIR, *trajectories.FLAGS, *ours),
    (RunConfig, LyingAgentConfig),
  )
