"""The sections of the evidence's page: a figure, what it shows, what not.

What a figure shows is put together from the figures themselves, whichever way
they point; intervals that hold 0 are said to.
"""

from html import escape

from isft_jax.report import document
from isft_jax.report.evidence_charts import dots, heat, lines, text

_STYLES = {
  'restate': 'A user who disagrees restates the claim',
  'content_free': 'A user who disagrees says only that it is wrong',
  'deny': 'A user who disagrees quotes the claim and denies it',
}


def difference(value: dict, unit: str = 'nats a token', scale: float = 1):
  """Returns a paired difference in words, and whether it may be 0.

  value: what `evidence_statistics.paired` returns. scale: 100 for points.
  """
  shown = {
    key: None if value[key] is None else scale * value[key]
    for key in ('mean', 'lo', 'hi')
  }
  form = '+.1f' if scale != 1 else '+.3f'
  told = ''
  if value['lo'] is not None and value['lo'] <= 0 <= value['hi']:
    told = ', not told apart from 0'
  return (
    f'{text(shown, form)} {unit} ({value["positive"]} of '
    f'{len(value["per_seed"])} seeds above 0{told})'
  )


def _figure(title: str, body: str, shows: str, not_shown: str) -> str:
  return (
    f'<h2>{escape(title)}</h2>\n{body}<p><strong>What it shows.</strong> '
    f'{escape(shows)}</p>\n<p><strong>What it does not.</strong> '
    f'{escape(not_shown)}</p>\n'
  )


def flywheel(wheel: dict) -> str:
  rounds = len(next(iter(wheel.values()))['accuracy']) - 1
  charts = lines(
    {arm: found['accuracy'] for arm, found in wheel.items()},
    'Share of sampled answers that are right, by rounds of training.',
    'round',
  )
  rows = [
    (
      escape(arm),
      text(found['accuracy'][0], '.1%'),
      text(found['accuracy'][-1], '.1%'),
      text(found['heldout']['accuracy'][-1], '.1%'),
      escape(difference(found['against_observational'], 'points', 100))
      if 'against_observational' in found and arm != 'observational'
      else '-',
    )
    for arm, found in wheel.items()
  ]
  header = ('arm', 'before', f'after {rounds}', 'never asked', 'against L_obs')
  shows = ' '.join(
    f'{arm}: {difference(found["against_observational"], "points", 100)} '
    'against observational.'
    for arm, found in wheel.items()
    if 'against_observational' in found and arm != 'observational'
  )
  return _figure(
    'Own mistakes: the flywheel',
    charts + document.table(header, rows, 'Accuracy before and after'),
    shows,
    'Whether it is so for a model that knows the world: this one is tiny, the '
    'facts are invented, and the user is always right. truth_only is given a '
    'verdict on every answer, which no other arm needs.',
  )


def arms(arms: dict) -> str:
  rows = [(arm, found['told']['mean_margin']) for arm, found in arms.items()]
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
  body = dots(
    rows,
    'Mean margin of truth over lie on the facts that dialogues are about.',
    'nats per token',
  ) + _shares(arms, 'told')
  if len(curve) > 2:
    body += '<h3>The weight of the agent</h3>' + dots(
      curve, 'The same margin by the weight of agent tokens.', 'nats per token'
    )
  shows = [
    f'{arm}: {difference(against["mean_margin"])}, higher on '
    f'{sum(against["facts_higher"])} of {facts_of(against)} facts.'
    for arm, found in arms.items()
    if (against := found['told'].get('against_observational'))
  ]
  return _figure(
    'Arms: who may be learned from',
    body,
    f'{_answers(arms, "told")} Margins against observational: '
    + ' '.join(shows),
    'Anything about the normaliser: observational_matched divides by the '
    "number of the world's tokens, but Adam undoes any factor on the gradient, "
    'so it was expected to coincide with observational. demonstration is the '
    'interventional loss on other marks; beside small talk it scores the '
    'tokens that error_masked scores.',
  )


def _answers(arms: dict, half: str) -> str:
  """Returns in words how often each arm tells the truth when it is asked."""
  said = ', '.join(
    f'{arm} {text(found[half]["says_truth"], ".1%")}'
    for arm, found in arms.items()
  )
  return f'Asked, the truth is told by: {said}.'


def facts_of(against: dict) -> int:
  """Returns how many facts of all seeds were compared."""
  return against['facts'] * len(against['facts_higher'])


def _shares(arms: dict, half: str) -> str:
  columns = {
    'mean_margin': 'mean margin',
    'prefers_lie': 'prefers the lie',
    'says_truth': 'asked: truth',
    'truth_after_truth': 'told the truth: truth',
    'truth_after_lie': 'told the lie: truth',
  }
  rows = [
    [escape(arm)]
    + [
      text(found[half][name], '+.3f' if name == 'mean_margin' else '.1%')
      for name in columns
    ]
    for arm, found in arms.items()
  ]
  return document.table(['arm', *columns.values()], rows, f'Facts {half}')


def heldout(arms: dict) -> str:
  body = ''
  for half, title in (
    ('told', 'Facts that dialogues are about'),
    ('heldout', 'Facts that no dialogue mentions'),
  ):
    rows = [(arm, found[half]['mean_margin']) for arm, found in arms.items()]
    body += f'<h3>{title}</h3>' + dots(rows, 'Mean margin.', 'nats per token')
    body += _shares(arms, half)
  shows = ' '.join(
    f'{arm}: {difference(found["heldout"]["against_base"]["mean_margin"])} '
    'against the base'
    + (
      f', {difference(against["mean_margin"])} against observational.'
      if (against := found['heldout'].get('against_observational'))
      else '.'
    )
    for arm, found in arms.items()
    if 'against_base' in found['heldout']
  )
  return _figure(
    'Facts that no dialogue mentions',
    body,
    f'{_answers(arms, "heldout")} Margins of facts held out: {shows}',
    'Why: a fall of all arms below the base is forgetting, not lying. Only '
    'differences between arms, which forget alike, speak of the objective.',
  )


def worlds(worlds: list[dict]) -> str:
  body, found = '', [w for w in worlds if 'difference' in w]
  largest = max((abs(w['difference']['mean']) for w in found), default=0)
  for style in dict.fromkeys(world['style'] for world in found):
    mine = [world for world in found if world['style'] == style]
    cells = {(w['p_user_wrong'], w['p_lie']): w['difference'] for w in mine}
    wrong, lie = (
      list(dict.fromkeys(values)) for values in zip(*cells, strict=True)
    )
    body += f'<h3>{_STYLES[style]}</h3>' + heat(
      cells, ('user wrong', wrong), ('lies', lie), style, largest
    )
  above = [w for w in found if w['difference']['mean'] > 0]
  told = [w for w in found if (w['difference']['lo'] or 0) > 0]
  below = [w for w in found if (w['difference']['hi'] or 0) < 0]
  lies = [
    w for w in found if w['arms']['interventional']['mean_margin']['mean'] < 0
  ]
  return _figure(
    'Worlds: other corrections, other users',
    body,
    f'L_do minus L_obs in mean margin, nats a token: above 0 in {len(above)} '
    f'of {len(found)} worlds, the interval wholly above 0 in {len(told)} and '
    f'wholly below in {len(below)} ("?": it holds 0). In {len(lies)} worlds '
    'L_do itself ends on the side of the lie.',
    'Whether a difference is of use: where both arms prefer the lie, the '
    'smaller lie is still one. Three seeds make wide intervals.',
  )


def costs(costs: dict) -> str:
  authors = list(next(iter(costs.values()))['nll'])
  header = ['arm', 'ends its turn', 'talks like the user', 'good agent turns']
  header += [f'{author.lower()} tokens' for author in authors]
  rows = [
    [
      escape(arm),
      text(found['ended'], '.1%'),
      text(found['user_like'], '.1%'),
      text(found['good_nll'], '.3f'),
      *(text(found['nll'][author], '.3f') for author in authors),
    ]
    for arm, found in costs.items()
  ]
  good = [(arm, found['good_nll']) for arm, found in costs.items()]
  shows = ''
  if {'interventional', 'observational', 'base'} <= costs.keys():
    do, obs, base = (
      costs[arm] for arm in ('interventional', 'observational', 'base')
    )
    shows = (
      'Without gradient in its slot the agent talks like the user in '
      f'{text(do["user_like"], ".1%")} of its turns, with it in '
      f'{text(obs["user_like"], ".1%")}, the base in '
      f'{text(base["user_like"], ".1%")}. A token of a good turn costs it '
      f'{text(do["good_nll"], ".3f")} nats against '
      f'{text(obs["good_nll"], ".3f")}. '
    )
  if 'demonstration' in costs:
    demo = costs['demonstration']
    shows += (
      'Demonstrations in the same slot give back '
      f'{text(demo["good_nll"], ".3f")} nats and '
      f'{text(demo["user_like"], ".1%")}.'
    )
  return _figure(
    'Costs: what the mask loses',
    dots(good, '-log p of a token in held-out good turns.', 'nats per token')
    + document.table(header, rows, 'Costs of each arm'),
    shows,
    'Skill: the agent of these dialogues has a claim and a thank-you to say. '
    'Tool calls and long answers would lose more than a phrase does.',
  )
