"""Page sections on first and second tries, controls and increments.

Statements are computed from the figures, for any direction of an effect.
"""

from collections.abc import Mapping, Sequence

from isft_jax.report.deployment import charts
from isft_jax.report.document import Block
from isft_jax.report.evidence import charts as evidence_charts
from isft_jax.report.evidence.words import (
  Interval,
  Section,
  difference,
  points,
  text,
)
from isft_jax.report.plots import Chart
from isft_jax.report.tables import Table

PAPER = 'interventional_paper'
# Figure -> header of its column: problems that are solved.
SOLVED = {
  'asked_again': 'deployed problems it had wrong, first try',
  'first': 'evaluated problems, first try',
  'again': 'or a second sample',
  'second': 'or a second try after the verdict',
  'after_sft': "or after the first policy's answer",
}
# Figure -> header of its column: second tries that are right.
_REPAIRED = {
  'repaired_again': 'second sample',
  'repaired_second': 'after own answer and verdict',
  'repaired_after_sft': "after the first policy's answer and verdict",
}
# Endings of the names of controls, and the heading of their tables.
_CONTROLS = {
  '_wrong': 'A share of the corrections is wrong',
  '_tokens': 'As many scored tokens as interventional_paper',
}

Arms = Mapping[str, Mapping]


def share(figure: Mapping) -> str:
  """Returns 'mean % [Wilson interval]' of a share."""
  if not figure['wilson']:
    return 'none'
  lo, hi = (100 * figure['wilson'][end] for end in ('lo', 'hi'))
  return f'{100 * figure["mean"]:.1f} % [{lo:.1f}, {hi:.1f}]'


def points_text(value: Interval) -> str:
  """Returns a difference of shares in points: '+1.2 [-0.3, +2.7]'."""
  return text(points(value), '+.1f')


def plain_statement(arms: Arms) -> str:
  """Returns what the paper's interventional arm adds, in plain words."""
  ours, sft = arms[PAPER], arms['sft']
  first = ours['against']['sft']['first']
  sentences = [
    'On a first try, training on corrections after own answers (x, y^, v, y*; '
    f'only y* scored) solves {share(ours["first"])} of the problems, the first '
    f'policy {share(sft["first"])}: {difference(first, shares=True)}.'
  ]
  if 'oracle' in arms:
    against = ours['against']['oracle']['first']
    sentences.append(
      'The same corrections without the own answers (x, y*) solve '
      f'{share(arms["oracle"]["first"])} on a first try: the stream minus '
      f'these is {difference(against, shares=True)}.'
    )
  again = ours['against']['sft']['asked_again']
  sentences.append(
    'Asked again about the problems that the deployment corrected, it solves '
    f'{share(ours["asked_again"])} on a first try, the first policy '
    f'{share(sft["asked_again"])}: {difference(again, shares=True)}.'
  )
  repaired = ours['against']['sft']['repaired_second']
  sentences.append(
    'On repair, after its own wrong answer and the verdict, it is right in '
    f'{share(ours["repaired_second"])} of second tries, the first policy in '
    f'{share(sft["repaired_second"])}: {difference(repaired, shares=True)}. '
    'A second sample for the bare question is right in '
    f'{share(ours["repaired_again"])}. With the verdict, two tries solve '
    f'{share(ours["second"])}; with a second sample, {share(ours["again"])}: '
    f'{difference(ours["second_minus_again"], shares=True)}.'
  )
  return ' '.join(sentences)


def tries(arms: Arms) -> Section:
  """Returns the section on first and second tries of the main arms."""
  main = {
    arm: figures
    for arm, figures in arms.items()
    if not any(ending in arm for ending in _CONTROLS)
  }
  rows = [(arm, figures['first']) for arm, figures in main.items()]
  blocks = [
    Block(_dots('first', rows, 'First tries that are right')),
    Block(_solved(main), heading='Problems solved'),
    Block(
      _repaired(main),
      heading='Second tries that are right',
      note='Shares of the problems whose first try was wrong. In the last '
      "column, all arms continue the first policy's first tries.",
    ),
    *_differences(main),
  ]
  best = max(main, key=lambda arm: main[arm]['first']['mean'])
  two = max(main, key=lambda arm: main[arm]['second']['mean'])
  return Section(
    'First and second tries',
    blocks,
    f'Most first tries are right for {best} ({share(main[best]["first"])}). '
    f'With a second try after a verdict, {two} solves most '
    f'({share(main[two]["second"])}).',
    'Whether an agent gets a second try in use: it needs a verifier then. All '
    'columns with a second try use it at test time, so compare arms within a '
    'column.',
  )


def controls(arms: Arms) -> Section:
  """Returns the section on controls: wrong corrections, scored tokens."""
  blocks = []
  for ending, heading in _CONTROLS.items():
    changed = [arm for arm in arms if ending in arm]
    # The arms that are changed, beside their controls.
    names = dict.fromkeys(
      name for arm in changed for name in (arm.split(ending)[0], arm)
    )
    chosen = {name: arms[name] for name in sorted(names) if name in arms}
    if chosen:
      blocks.append(Block(_solved(chosen), heading=heading))
  sentences = [
    f'{arm}: {share(arms[arm]["first"])} on a first try and '
    f'{share(arms[arm]["second"])} with a second after the verdict.'
    for arm in ('verdict_only', 'truth_only', 'both')
    if arm in arms
  ]
  return Section(
    'Controls',
    blocks,
    'Verdicts without corrections: ' + ' '.join(sentences)
    if sentences
    else 'No control without corrections was run.',
    'Errors of the verifier: its verdicts are always right here, also if a '
    'correction is wrong.',
  )


def budgets(arms: Arms) -> Section:
  """Returns the section on what each arm is trained on."""
  rows = [
    (
      arm,
      f'{figures["turns"]:,}',
      f'{figures["corrections"]:,}',
      f'{figures["wrong_corrections"]:,}',
      f'{figures["steps"]:.1f}',
      f'{figures["scored_tokens"]:,.0f}',
      f'{figures["unreadable"]:,}',
    )
    for arm, figures in arms.items()
  ]
  header = (
    'arm',
    'turns, all seeds',
    'wrong answers in them',
    'wrong corrections',
    'steps per seed',
    'scored tokens per seed',
    'unreadable first tries',
  )
  return Section(
    'What each arm is trained on',
    [Block(Table('Budgets of the arms', header, rows))],
    'All arms have the same number of steps with the same number of records '
    'each, but for those named _tokens, which stop after as many scored tokens '
    f'as {PAPER} has. reinforce has its own steps and batches.',
    'Equal computing time: reinforce and rest also sample answers.',
  )


def continual(arms: Arms) -> Section:
  """Returns the section on increments; `arms` is `continual` of the file."""
  rows = []
  for arm, figures in arms.items():
    new = [value['mean'] for value in figures.get('new', ())]
    against = figures['against'].get('observational', {})
    forgotten = figures['forgetting']
    rows.append(
      (
        arm,
        text(points(figures['all'][0]), '.1f'),
        f'{100 * sum(new) / len(new):.1f}' if new else '-',
        text(points(figures['final']), '.1f'),
        text(points(forgotten), '.1f') if forgotten else '-',
        points_text(against['final']) if 'final' in against else '-',
        points_text(against['forgetting']) if 'forgetting' in against else '-',
      )
    )
  header = (
    'arm',
    'all skills, before, %',
    'skill of the increment, after it, %',
    'all skills, at the end, %',
    'forgetting, points',
    'end minus observational',
    'forgetting minus observational',
  )
  # Old, new and future skills after each increment.
  tables = [
    Block(
      _by_increment({a: f for a, f in arms.items() if kind in f}, kind),
      heading=heading,
    )
    for kind, heading in (
      ('old', 'Skills of earlier increments, %'),
      ('unseen', 'Skills of later increments, %'),
    )
  ]
  ends = {arm: figures['final'] for arm, figures in arms.items()}
  shows = '; '.join(
    f'{arm} {text(points(value), ".1f")} %' for arm, value in ends.items()
  )
  return Section(
    'Increments: one skill after the other',
    [
      Block(charts.increments(arms)),
      Block(Table('Increments', header, rows)),
      *tables,
    ],
    f'Right first tries on all skills at the end: {shows}. Forgetting is the '
    'mean drop of a skill from its best accuracy since its increment.',
    'Skills that the first policy has never met: it has seen other problems of '
    'all of them. Brackets are intervals over few seeds.',
  )


def _by_increment(arms: Arms, kind: str) -> Table:
  number = max((len(figures[kind]) for figures in arms.values()), default=0)
  rows = [
    (arm, *('-' if v is None else f'{100 * v["mean"]:.1f}' for v in f[kind]))
    for arm, f in arms.items()
  ]
  header = ('arm', *(f'after {t}' for t in range(1, number + 1)))
  return Table(f'Accuracy on {kind} skills', header, rows)


def _solved(arms: Arms) -> Table:
  rows = [
    (arm, *(share(figures[name]) for name in SOLVED))
    for arm, figures in arms.items()
  ]
  return Table('Problems solved', ('arm', *SOLVED.values()), rows)


def _repaired(arms: Arms) -> Table:
  rows = [
    (arm, *(share(figures[name]) for name in _REPAIRED))
    for arm, figures in arms.items()
  ]
  return Table(
    'Second tries that are right', ('arm', *_REPAIRED.values()), rows
  )


def _differences(arms: Arms) -> list[Block]:
  """Returns a table of differences in points per reference arm."""
  blocks = []
  for other in ('sft', 'oracle'):
    rows = [
      (arm, *(points_text(figures['against'][other][n]) for n in SOLVED))
      for arm, figures in arms.items()
      if other in figures['against']
    ]
    if rows:
      heading = f'Problems solved minus those of {other}, points'
      table = Table(heading, ('arm', *SOLVED.values()), rows)
      blocks.append(Block(table, heading=heading))
  return blocks


def _dots(name: str, rows: Sequence[tuple[str, Interval]], label: str) -> Chart:
  # The bar is the interval over seeds.
  return evidence_charts.dots(
    name, [(arm, points(value)) for arm, value in rows], f'{label}.', '%'
  )
