"""Page sections on the flywheel, worlds and costs.

Statements are computed from the figures, for any direction of an effect. They
mark intervals that contain 0.
"""

from collections.abc import Mapping, Sequence

from isft_jax.report.document import Block
from isft_jax.report.evidence import charts
from isft_jax.report.evidence.words import (
  Interval,
  Section,
  difference,
  may_be_none,
  points,
  text,
)
from isft_jax.report.plots import Chart
from isft_jax.report.tables import Cell, Table

# Correction style -> heading of its table.
_STYLES = {
  'restate': 'A user who disagrees restates the claim',
  'content_free': 'A user who disagrees says only that it is wrong',
  'deny': 'A user who disagrees quotes the claim and denies it',
}


def flywheel(wheel: dict, chart: Chart, given: bool) -> Section:
  """Returns the section on the flywheel.

  Args:
    wheel: `flywheel` of results.json.
    chart: its chart, from `charts.flywheel`.
    given: whether all seeds start from one given model.
  """
  # Accuracy before and after, on told and on held-out facts.
  rounds = len(next(iter(wheel.values()))['accuracy']) - 1
  rows = [
    (
      arm,
      text(figures['accuracy'][0], '.1%'),
      text(figures['accuracy'][-1], '.1%'),
      text(figures['heldout']['accuracy'][0], '.1%'),
      text(figures['heldout']['accuracy'][-1], '.1%'),
      # Results of an old version have no manners.
      *(
        text(figures[name][-1], '.1%')
        for name in ('user_like', 'ended')
        if name in figures
      ),
    )
    for arm, figures in wheel.items()
  ]
  header = [
    'arm',
    'before',
    f'after {rounds}',
    'never asked: before',
    f'after {rounds}',
    'then talks like the user',
    'ends its turn',
  ]
  header = header[: len(rows[0])]
  table = Table('Accuracy before and after', header, rows)
  # The chart and the table, then a table of differences if there are any.
  blocks = [Block(chart), Block(table)]
  # Differences to observational, for every round.
  compared = {
    arm: figures['against_observational']
    for arm, figures in wheel.items()
    if 'against_observational' in figures and arm != 'observational'
  }
  if compared:
    blocks.append(_by_round(compared, rounds))
  # Accuracy of each seed before training; it is the same for all arms.
  first = [seed[0] for seed in next(iter(wheel.values()))['per_seed']]
  differences = '; '.join(
    f'{arm} {difference(values[-1], shares=True)}'
    for arm, values in compared.items()
  )
  after = f'After {rounds} rounds, against observational: {differences}. '
  return Section(
    'Own mistakes: the flywheel',
    blocks,
    (after if compared else '')
    + f'The seeds begin at {min(first):.1%} to {max(first):.1%}'
    + ('' if given else ', each with its own base')
    + '; differences are paired by seed.',
    (
      'Whether larger models do the same, also without a user who knows every '
      'answer. '
      if given
      else 'Whether a model that knows the world does the same: this one is '
      'tiny, the facts are invented, and the user is always right. '
    )
    + 'truth_only gets a verdict on every answer; no other arm needs one.',
  )


def _by_round(compared: dict, rounds: int) -> Block:
  # Round 0 is before training and equal for all arms, so it is left out.
  rows = [
    [arm] + [text(points(value), '+.1f') for value in values[1:]]
    for arm, values in compared.items()
  ]
  header = ['arm', *(f'round {round}' for round in range(1, rounds + 1))]
  label = 'Accuracy minus that of observational, in points'
  return Block(Table(label, header, rows), heading=label)


def worlds(worlds: list[dict]) -> Section:
  """Returns the section on worlds; `worlds` is that of results.json."""
  # A table per correction style, with one scale of colors for all.
  blocks, finished = [], [w for w in worlds if 'difference' in w]
  largest = max((abs(w['difference']['mean']) for w in finished), default=0)
  for style in dict.fromkeys(world['style'] for world in finished):
    in_style = [world for world in finished if world['style'] == style]
    cells = {(w['p_user_wrong'], w['p_lie']): w['difference'] for w in in_style}
    # The distinct values of both axes, in the order of results.json.
    wrong, lie = (
      list(dict.fromkeys(values)) for values in zip(*cells, strict=True)
    )
    table = heat(cells, ('user wrong', wrong), ('lies', lie), style, largest)
    blocks.append(Block(table, heading=_STYLES[style]))
  # Numbers of worlds by the sign of the difference and of its interval.
  above = [w for w in finished if w['difference']['mean'] > 0]
  surely_above = [w for w in finished if (w['difference']['lo'] or 0) > 0]
  surely_below = [w for w in finished if (w['difference']['hi'] or 0) < 0]
  # Worlds in which even L_do prefers the lie, in the mean.
  lies = [
    w
    for w in finished
    if w['arms']['interventional']['mean_margin']['mean'] < 0
  ]
  return Section(
    'Worlds: other corrections, other users',
    blocks,
    f'L_do minus L_obs in mean margin, nats per token: above 0 in {len(above)} '
    f'of {len(finished)} worlds, the interval wholly above 0 in '
    f'{len(surely_above)} and wholly below in {len(surely_below)} ("?": it '
    f'contains 0). {_where_not_above(finished)}In {len(lies)} worlds L_do '
    'itself prefers the lie.',
    'Whether a difference is useful: if both arms prefer the lie, the better '
    'one still lies. Few seeds give wide intervals.',
  )


def heat(
  cells: Mapping[tuple[float, float], Interval],
  rows: tuple[str, Sequence[float]],
  columns: tuple[str, Sequence[float]],
  label: str,
  largest: float,
) -> Table:
  """Returns a table whose cells are colored by sign and size.

  Args:
    cells: (row value, column value) -> interval.
    rows, columns: name and values of each axis.
    label: title of the table.
    largest: the absolute value that gets the full color.
  """

  def cell(value: Interval) -> Cell:
    side = 'truth' if value['mean'] > 0 else 'lie'
    # At most 55 % of the color, because text is on top of it.
    share = min(abs(value['mean']) / largest, 1) if largest else 0
    return Cell(
      text(value, '+.2f') + (' ?' if may_be_none(value) else ''),
      style=f'background:color-mix(in srgb, var(--{side}) {55 * share:.0f}%, '
      'var(--paper))',
    )

  body = [
    [f'{rows[0]} {row:g}', *(cell(cells[row, column]) for column in columns[1])]
    for row in rows[1]
  ]
  header = ['', *(f'{columns[0]} {column:g}' for column in columns[1])]
  return Table(label, header, body)


def _where_not_above(worlds: list[dict]) -> str:
  names = [
    f'{w["style"]}, user wrong {w["p_user_wrong"]:g}, lies {w["p_lie"]:g}'
    for w in worlds
    if w['difference']['mean'] <= 0
  ]
  return f'It is not above 0 in: {"; ".join(names)}. ' if names else ''


def costs(costs: dict, price: Chart | None) -> Section:
  """Returns the section on costs.

  Args:
    costs: `costs` of results.json.
    price: what `charts.price` returns.
  """
  # Costs of each arm: ends of turns, roles, and -log p by author.
  first = next(iter(costs.values()))
  authors = list(first['nll'])
  columns = [
    ('ends its turn', 'ended', '.1%'),
    ('talks like the user', 'user_like', '.1%'),
    ('contradicts a user who is right', 'contradicts', '.1%'),
    ('good agent turns', 'good_nll', '.3f'),
    ("entropy of the agent's turns", 'entropy', '.3f'),
    ('other text', 'elsewhere', '.3f'),
  ]
  # Results of an old version have fewer.
  columns = [column for column in columns if column[1] in first]
  header = ['arm', *(label for label, *_ in columns)]
  header += [f'{author.lower()} tokens' for author in authors]
  header += [
    f'{author.lower()}: from the base' for author in first.get('kl', ())
  ]
  rows = [
    [
      arm,
      *(text(figures[name], form) for _, name, form in columns),
      *(text(figures['nll'][author], '.3f') for author in authors),
      *(text(value, '.3f') for value in figures.get('kl', {}).values()),
    ]
    for arm, figures in costs.items()
  ]
  # Statements on the two main arms, and on demonstrations.
  good = [(arm, figures['good_nll']) for arm, figures in costs.items()]
  shows = ''
  if {'interventional', 'observational', 'base'} <= costs.keys():
    do, obs, base = (
      costs[arm] for arm in ('interventional', 'observational', 'base')
    )
    shows = (
      'Without gradient in its slot (interventional) the agent talks like the '
      f'user in {text(do["user_like"], ".1%")} of its turns, with gradient '
      f'(observational) in {text(obs["user_like"], ".1%")}, the base in '
      f'{text(base["user_like"], ".1%")}. A token of a good turn costs '
      f'{text(do["good_nll"], ".3f")} nats without gradient and '
      f'{text(obs["good_nll"], ".3f")} with it. '
    )
  if 'demonstration' in costs:
    demo = costs['demonstration']
    shows += (
      'With true turns marked as demonstrations it costs '
      f'{text(demo["good_nll"], ".3f")} nats, and '
      f'{text(demo["user_like"], ".1%")} of turns are like the user.'
    )
  # The chart compares good turns; the table has all costs.
  return Section(
    'Costs of the mask',
    [
      Block(
        charts.dots(
          'costs',
          good,
          '-log p of a token in held-out good turns.',
          'nats per token',
        )
      ),
      *([Block(price)] if price else []),
      Block(Table('Costs of each arm', header, rows)),
    ],
    shows,
    'Skill: the agent of these dialogues only states claims and says thanks. '
    'Tool calls and long answers would lose more than a phrase does.',
  )
