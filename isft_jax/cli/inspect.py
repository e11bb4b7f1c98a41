"""Shows who wrote each token of a record, and what an objective scores of it.

  isft-inspect --records=DIR [--index=3] [--objective=error_masked]
  isft-inspect --config=configs/lying_agent_tiny.py --html=dialogue.html

In a terminal: colors, and below each line a ruler that says the same in
letters. In a pipe: a line a token. --html writes one page that needs no network
and has a button for each objective. An experiment's config stands for the
dialogues in its --workdir; where there are none yet, they are made for now.
"""

import os
import pathlib
import sys

from absl import app, flags, logging
from absl.flags import DEFINE_enum, DEFINE_integer, DEFINE_string

from isft_jax.cli import main

RECORDS = DEFINE_string('records', '', 'A folder of records, if no --config.')
TOKENIZER = DEFINE_string('tokenizer', '', 'Its folder, if not beside them.')
INDEX = DEFINE_integer('index', 0, 'Which record, from 0.')
OBJECTIVE = DEFINE_string('objective', 'interventional', 'Whose weights.')
HTML = DEFINE_string('html', '', 'Write a page to this file, and no more.')
_COLORS = ['auto', 'always', 'never']
COLOR = DEFINE_enum('color', 'auto', _COLORS, 'auto: in a terminal only.')


def _inspect(_):
  # Imported late: --help need not wait for them.
  from isft_jax.cli import sources
  from isft_jax.objectives import NAMES, weight_table
  from isft_jax.report import viewer, viewer_html, viewer_terminal

  logging.set_verbosity(logging.WARNING)
  objective = OBJECTIVE.value
  try:
    tables = {name: weight_table(name) for name in (*NAMES, objective)}
    source = main.CONFIG, main.WORKDIR, RECORDS, TOKENIZER, INDEX
    example, encoder = sources.read(*(flag.value for flag in source))
    shown = viewer.dialogue(example, encoder.decode, tables)
    if HTML.value:
      page = viewer_html.page(shown, objective)
      pathlib.Path(HTML.value).write_bytes(page)
      print(f'the page is in {HTML.value}')
    else:
      viewer_terminal.show(shown, objective, COLOR.value, os.environ)
  except (ValueError, OSError) as error:
    main.fail(error)


def run():
  """The console script isft-inspect."""
  sys.modules['__main__'].__doc__ = __doc__  # what absl prints for --help
  ours = (RECORDS, TOKENIZER, INDEX, OBJECTIVE, HTML, COLOR)
  for flag in (main.CONFIG, main.WORKDIR, *ours):
    flag = flags.FLAGS[flag.name]
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
  app.run(_inspect, flags_parser=main.parse)
