"""Shows who wrote each token, and what an objective scores of it.

  isft-inspect --records=DIR [--index=3] [--objective=error_masked]
  isft-inspect --input=RUNS --tokenizer=PLACE [--index=3]
  isft-inspect --config=configs/lying_agent_tiny.py --html=dialogue.html

In a terminal: colors, and below each line a ruler that says the same in
letters. In a pipe: a line a token. --html writes one page that needs no
network and has a button for each objective. --input shows a row of agent runs
before isft-prepare makes records of it. An experiment's config stands for the
dialogues in its --workdir; where there are none yet, they are made for now.
"""

import functools
import os
import pathlib

from absl.flags import DEFINE_enum, DEFINE_integer, DEFINE_string

from isft_jax.cli import main, trajectories

RECORDS = DEFINE_string('records', '', 'A folder of records.')
INDEX = DEFINE_integer('index', 0, 'Which record or row, from 0.')
OBJECTIVE = DEFINE_string('objective', 'interventional', 'Whose weights.')
HTML = DEFINE_string('html', '', 'Write a page to this file, and no more.')
_COLORS = ['auto', 'always', 'never']
COLOR = DEFINE_enum('color', 'auto', _COLORS, 'auto: in a terminal only.')


def _inspect() -> None:
  # Imported late: --help need not wait for them.
  from isft_jax.cli import sources
  from isft_jax.data.rendering import tokenizer
  from isft_jax.objectives import NAMES, weight_table
  from isft_jax.report.viewer import html, terminal
  from isft_jax.report.viewer import shown as viewer

  objective = OBJECTIVE.value
  tables = {name: weight_table(name) for name in (*NAMES, objective)}
  if trajectories.INPUT.value:
    if RECORDS.value or main.CONFIG.value:
      raise ValueError('--input goes with neither --records nor --config')
    example, encoder = trajectories.example(INDEX.value)
  else:
    example, encoder = sources.read(
      main.CONFIG.value,
      main.WORKDIR.value,
      RECORDS.value,
      trajectories.TOKENIZER.value,
      INDEX.value,
    )
  decode = functools.partial(tokenizer.decode, encoder)
  shown = viewer.dialogue(example, decode, tables)
  if HTML.value:
    pathlib.Path(HTML.value).write_bytes(html.page(shown, objective))
    print(f'the page is in {HTML.value}')
  else:
    terminal.show(shown, objective, COLOR.value, os.environ)


def run() -> None:
  """The console script isft-inspect."""
  ours = (RECORDS, INDEX, OBJECTIVE, HTML, COLOR)
  main.run(
    _inspect,
    __doc__,
    (main.CONFIG, main.WORKDIR, *trajectories.FLAGS, *ours),
  )
