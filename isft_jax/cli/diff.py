"""Shows which tokens another trainer would score, and where ours differ.

  isft-diff --input=RUNS --tokenizer=PLACE --against=trl
  isft-diff --input=RUNS --tokenizer=PLACE --against=renderers --renderer=qwen3
  isft-diff --input=RUNS --tokenizer=PLACE --against=assistant_mask
  isft-diff --input=RUNS --tokenizer=PLACE --index=3 --limit=1 --html=page.html

Both masks are computed for your own rows: ours by --objective, the other by the
other trainer's own code. The tables count the tokens by author, row by row and
in total, and list the most frequent differences. --html writes one page with
both masks side by side. Rows that one side cannot render are counted with the
reason.

  trl             SFTTrainer with assistant_only_loss=True
  renderers       build_training_sample of Prime Intellect's renderers
  assistant_mask  return_assistant_tokens_mask of transformers, for a template
                  with generation marks

renderers needs pip install -e '.[renderers]', and trl, which brings torch,
pip install -e '.[diff]'.
"""

import collections
import functools
import itertools
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from absl.flags import DEFINE_enum, DEFINE_integer, DEFINE_string

from isft_jax.cli import main, trajectories

if TYPE_CHECKING:
  from isft_jax.data.preparation.outcomes import Task
  from isft_jax.data.rendering.renderer import Renderer
  from isft_jax.types import Trajectory

AGAINST = DEFINE_enum(
  'against',
  'trl',
  ['trl', 'renderers', 'assistant_mask'],
  'Trainer whose mask is compared with ours.',
)
RENDERER = DEFINE_string(
  'renderer',
  'auto',
  'Name of a renderer of the renderers package, as in qwen3; auto chooses it '
  'by the hub id of the tokenizer.',
)
OBJECTIVE = DEFINE_string(
  'objective', 'interventional', 'Objective whose scored tokens are ours.'
)
INDEX = DEFINE_integer('index', 0, 'Index of the first row to compare, from 0.')
LIMIT = DEFINE_integer(
  'limit', 100, 'Maximum number of rows to compare; 0 means all.'
)
HTML = DEFINE_string('html', '', 'File for an HTML page with both masks.')
SHOWN = DEFINE_integer('shown', 20, 'Maximum number of rows on the HTML page.')


def _diff() -> None:
  # Imported late: --help need not wait for them.
  from isft_jax.data.comparison import alignment, other_masks
  from isft_jax.data.rendering import tokenizer as tokenizer_lib
  from isft_jax.data.rendering.rejection import Rejected
  from isft_jax.objectives import weight_table
  from isft_jax.report import tables as tables_lib
  from isft_jax.report.diff import compared, page, tables

  # Check all flags before the first row is read.
  for flag, least in ((INDEX, 0), (LIMIT, 0), (SHOWN, 1)):
    if flag.value < least:
      raise ValueError(f'--{flag.name}={flag.value} must be {least} or more')
  trajectories.input()
  table_PV = weight_table(OBJECTIVE.value)
  render = trajectories.renderer()
  trainer = other_masks.load(AGAINST.value, render, RENDERER.value)

  @functools.cache
  def decode(id: int) -> str:
    return tokenizer_lib.decode(render.tokenizer, [id])

  # Compare row by row. `reasons` counts the rows that one side cannot render.
  rows: list[compared.Row] = []
  reasons: collections.Counter[str] = collections.Counter()
  for parsed in _parsed(render):
    if isinstance(parsed, str):
      reasons[parsed] += 1
      continue
    try:
      may_drop = trajectories.ON_DROPPED.value != 'reject'
      example = render.render(parsed, may_drop).example
      tokens_T, scored_T = trainer.mask(parsed)
    except Rejected as error:
      reasons[f'isft-prepare: {error.reason}'] += 1
      continue
    except other_masks.CannotRender as error:
      reasons[f'{AGAINST.value}: {error}'] += 1
      continue
    pairs_A2 = alignment.align(
      example.tokens_T.tolist(), tokens_T.tolist(), decode
    )
    rows.append(
      compared.row(example, table_PV, tokens_T, scored_T, pairs_A2, decode)
    )

  # Show the counts, and write the page.
  total = len(rows) + reasons.total()
  if not total:
    raise ValueError(
      f'--index={INDEX.value}: {trajectories.input()} has no row of this index'
    )
  print(
    f'{len(rows):,} of {total:,} rows compared; ours: objective '
    f'{OBJECTIVE.value}; {AGAINST.value}: {trainer.name}\n'
  )
  shown = [tables.not_compared(reasons)] if reasons else []
  if rows:
    name = AGAINST.value
    shown += [tables.by_author(rows, name), tables.by_row(rows, name)]
    if compared.differences(rows):
      shown.append(tables.differences(rows, name))
  tables_lib.show(*shown)
  if HTML.value:
    content = page.page(
      rows[: SHOWN.value],
      rows,
      reasons,
      page.Settings(OBJECTIVE.value, AGAINST.value, trainer.name),
    )
    pathlib.Path(HTML.value).write_bytes(content)
    print(f'\nthe page is in {HTML.value}')


def _parsed(render: 'Renderer') -> 'Iterator[Trajectory | str]':
  """Yields the rows of --input as trajectories, or the reason for none."""
  from isft_jax.data.files import rows
  from isft_jax.data.formats import registry
  from isft_jax.data.messages.conversation import Malformed
  from isft_jax.data.preparation import outcomes
  from isft_jax.data.rendering.rejection import Rejected
  from isft_jax.types import Trajectory

  rules = trajectories.rules()
  paths = rows.files(trajectories.input(), trajectories.SPLIT.value)
  files = outcomes.files(paths)
  tasks: Iterator[Task] = itertools.chain.from_iterable(
    map(outcomes.tasks, files)
  )
  stop = INDEX.value + LIMIT.value if LIMIT.value else None
  for task in itertools.islice(tasks, INDEX.value, stop):
    value, format = task.row.value, trajectories.FORMAT.value
    # The same checks as in isft-prepare, in the same order.
    try:
      if task.row.error:
        raise Malformed(task.row.error)
      outcomes.check_text(value, format, render)
      id = registry.id_of(value, task.stem, task.row.number)
      parsed = registry.read(value, id, format, rules)
      if isinstance(parsed, Trajectory):
        outcomes.check_length(parsed)
    except (Malformed, Rejected) as error:
      yield f'isft-prepare: {getattr(error, "reason", "malformed")}'
      continue
    if isinstance(parsed, Trajectory):
      yield parsed
    else:
      yield f'{AGAINST.value}: the row has token ids and no messages'


def run() -> None:
  """Runs the console script isft-diff."""
  ours = (AGAINST, RENDERER, OBJECTIVE, INDEX, LIMIT, HTML, SHOWN)
  main.run(_diff, __doc__, (*trajectories.FLAGS, *ours))
