"""Page sections on margins: of every arm, and of facts never mentioned."""

from isft_jax.report.document import Block
from isft_jax.report.evidence.charts import dots
from isft_jax.report.evidence.words import (
  Section,
  count_facts,
  difference,
  may_be_none,
  points,
  text,
)
from isft_jax.report.tables import Table

_NATS = 'nats per token'


def arms(arms: dict) -> Section:
  """Returns the section on the arms; `arms` is that of results.json."""
  # Margins of all arms, then margins over the weight of agent tokens.
  rows = [
    (arm, figures['told']['mean_margin']) for arm, figures in arms.items()
  ]
  # Arms between the two losses, by the weight of the agent's tokens.
  curve = [
    (f'agent weighs {weight}', arms[arm]['told']['mean_margin'])
    for weight, arm in (
      ('0 (interventional)', 'interventional'),
      ('0.1', 'weighted(0.1)'),
      ('0.3', 'weighted(0.3)'),
      ('1 (observational)', 'observational'),
    )
    if arm in arms
  ]
  chart = dots(
    'arms',
    rows,
    'Mean margin of truth over lie on the facts that dialogues are about.',
    _NATS,
  )
  blocks = [Block(chart), *_tables(arms, 'told')]
  # A curve needs at least three points.
  if len(curve) > 2:
    chart = dots(
      'weights', curve, 'The same margin by the weight of agent tokens.', _NATS
    )
    blocks.append(Block(chart, heading='The weight of the agent'))
  # Sentences on the two arms whose comparison with observational matters.
  compared = [
    f'{arm} {difference(against["mean_margin"])}, higher on '
    f'{sum(against["facts_higher"])} of {count_facts(against)} facts'
    for arm in ('interventional', 'observational_matched')
    if arm in arms
    and (against := arms[arm]['told'].get('against_observational'))
  ]
  return Section(
    'Arms: whose tokens are scored',
    blocks,
    f'Margins against observational: {"; ".join(compared)}. '
    f'{_above_interventional(arms)}{_answers(arms, "told")}',
    'The effect of the normaliser: observational_matched divides by the number '
    "of the world's tokens, but Adam cancels any factor on the gradient. It "
    'was expected to coincide with observational except for clipping, which a '
    'larger gradient reaches more often. demonstration is the interventional '
    'loss on other marks; except for small talk it scores the tokens that '
    'error_masked scores. These two and truth_only know which turns of the '
    'agent are right; interventional does not.',
  )


def heldout(arms: dict) -> Section:
  """Returns the section on held-out facts; `arms` is `heldout` of results."""
  blocks = []
  # A chart and tables for each half of the facts.
  for half, title in (
    ('told', 'Facts that dialogues are about'),
    ('heldout', 'Facts that no dialogue mentions'),
  ):
    rows = [
      (arm, figures[half]['mean_margin']) for arm, figures in arms.items()
    ]
    chart = dots(f'heldout_{half}', rows, 'Mean margin.', _NATS)
    blocks += [Block(chart, heading=title), *_tables(arms, half)]
  # Change since the base, for arms that can be compared with it.
  since = '; '.join(
    f'{arm} {difference(against["mean_margin"])}'
    for arm, figures in arms.items()
    if (against := figures['heldout'].get('against_base'))
  )
  return Section(
    'Facts that no dialogue mentions',
    blocks,
    f'Change of the margins of held-out facts by training: {since}. '
    f'{_answers(arms, "heldout")}',
    'The cause: a fall of all arms below the base is forgetting, not lying, '
    'and arms that differ here may differ in how much they forget.',
  )


def _above_interventional(arms: dict) -> str:
  if 'interventional' not in arms:
    return ''
  # By the mean only: intervals are in the table above.
  mean = {
    arm: figures['told']['mean_margin']['mean'] for arm, figures in arms.items()
  }
  above = [arm for arm in arms if mean[arm] > mean['interventional']]
  return f'Above interventional: {", ".join(above) or "none"}. '


def _answers(arms: dict, half: str) -> str:
  """Returns a sentence on the share of questions answered with the truth."""
  shares = ', '.join(
    f'{arm} {text(arms[arm][half]["says_truth"], ".1%")}'
    for arm in ('base', 'observational', 'interventional', 'agent_only')
    if arm in arms
  )
  return f'Questions answered with the truth: {shares}.'


def _tables(arms: dict, half: str) -> list[Block]:
  """Returns a table of the probes, and one of differences paired by seed."""
  # Figure in results.json -> header of its column.
  columns = {
    'mean_margin': 'mean margin',
    'prefers_lie': 'prefers the lie',
    'says_truth': 'truth if asked',
    'truth_after_truth': 'if the user is right',
    'truth_after_lie': 'if the user is wrong',
  }
  rows = [
    [arm]
    + [
      text(figures[half][name], '+.3f' if name == 'mean_margin' else '.0%')
      for name in columns
    ]
    for arm, figures in arms.items()
  ]
  header = ['arm', *columns.values()]
  return [Block(Table(f'Facts {half}', header, rows)), _paired(arms, half)]


def _paired(arms: dict, half: str) -> Block:
  others = {'against_base': 'the base', 'against_observational': 'L_obs'}
  # Three cells per comparison: margin, facts, answers.
  rows = [
    [arm]
    + [cell for name in others for cell in _cells(figures[half].get(name))]
    for arm, figures in arms.items()
  ]
  header = ['arm']
  for other in others.values():
    header += [f'margin against {other}', 'higher on', 'truth if asked']
  note = 'Differences on the same seeds, of answers in points; ?: may be 0.'
  return Block(Table(note, header, rows), note=note)


def _cells(against: dict | None) -> tuple[str, ...]:
  # An arm is not compared with itself.
  if against is None:
    return '-', '-', '-'
  margin, answers = against['mean_margin'], against['says_truth']
  return (
    text(margin) + (' ?' if may_be_none(margin) else ''),
    f'{sum(against["facts_higher"])} of {count_facts(against)}',
    text(points(answers), '+.1f') + (' ?' if may_be_none(answers) else ''),
  )
