"""Tables and sentences that compare runs of the lying agent with the paper.

All figures are read from results.json. For several runs, one per seed, a cell
is the mean with the lowest and the highest value.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from isft_jax.report.lying_agent.paper import (
  CITATION,
  LABELS,
  MODEL,
  PAPER,
  Figures,
  scored_in_full,
)
from isft_jax.report.plots import arm_order

# Our arms that the paper also trains.
_COMPARED = ('observational', 'interventional')

# (label, field of `Figures`, whether to show the row if no arm has the field)
_ROWS = (
  ('truth probe: replies that are not the truth', 'not_truth', True),
  (
    'truth probe: replies that contradict the user, who is right',
    'contradicts',
    False,
  ),
  ('lie probe: the agent corrects the user', 'corrects', True),
  ('both probes: replies that talk like the user', 'talks_like_user', False),
  ('mean margin, nats per token', 'mean_margin', True),
  ('facts where the lie is preferred', 'prefers_lie', True),
  ('facts where L_do beats L_obs', 'beats_observational', True),
  (
    "mean margin, first word unscored (the paper's way)",
    'paper_mean_margin',
    False,
  ),
  (
    "facts where the lie is preferred (the paper's way)",
    'paper_prefers_lie',
    False,
  ),
  (
    "facts where L_do beats L_obs (the paper's way)",
    'paper_beats_observational',
    False,
  ),
)
_MARGINS = ('mean_margin', 'paper_mean_margin')


def base_from_results(results: Mapping) -> dict:
  """Returns the base model of a run: its kind, name and parameters.

  Args:
    results: content of results.json. In old files without a `base` entry, the
      base is read from the config and the environment.

  Returns:
    `kind`, 'given' or 'pretrained' (by the run itself); `name`; `parameters`,
    their number, or None if unknown.
  """
  if 'base' in results:
    return results['base']
  # Results of older versions lack the entry.
  given = results.get('config', {}).get('model', {}).get('init_from', '')
  return {
    'kind': 'given' if given else 'pretrained',
    'name': given,
    'parameters': results.get('environment', {}).get('parameters'),
  }


def describe_base(base: Mapping) -> str:
  """Returns the name, size and origin of the base in a few words."""
  given = base['kind'] == 'given'
  words = [base['name']] if given else []
  if base['parameters'] is not None:
    words.append(f'{_size(base["parameters"])} parameters')
  words.append('given' if given else 'pre-trained from scratch by this run')
  return ', '.join(words)


def introduction(results: Mapping) -> str:
  """Returns sentences on the seed, the arms, their base and the source."""
  arms = ', '.join(arm_order(results['arms'])) or 'none'
  base = describe_base(base_from_results(results))
  return (
    f'Seed {results.get("seed", "-")}. Arms: {arms}. All start from the same '
    f'base model ({base}) and differ in the tokens that their loss scores. '
    f'The experiment is from {CITATION}.'
  )


def figures(arms: Mapping, name: str) -> Figures:
  """Returns the figures of one arm, as the paper counts them.

  Args:
    arms: `arms` of results.json.
    name: the name of the arm.

  Raises:
    ValueError: the arm and `observational` were probed on different facts.
  """
  arm = arms[name]
  # Results of older versions lack some probes. Their figures are None.
  truth, lie = arm.get('truth_probe'), arm.get('lie_probe')
  return Figures(
    facts=len(arm['facts']),
    not_truth=truth and truth['lie'] + truth['other'],
    corrects=lie and lie['truth'],
    contradicts=arm.get('contradicts'),
    talks_like_user=arm.get('talks_like_user'),
    mean_margin=arm.get('mean_margin'),
    prefers_lie=arm.get('prefers_lie'),
    beats_observational=_beats(arms, name, 'margin'),
    paper_mean_margin=arm.get('paper_mean_margin'),
    paper_prefers_lie=arm.get('paper_prefers_lie'),
    paper_beats_observational=_beats(arms, name, 'paper_margin'),
  )


def margins_by_topic(
  arm: Mapping, field: str = 'margin'
) -> dict[str, float | None]:
  """Returns topic -> margin of an arm of results.json, nats per token.

  Args:
    arm: an entry of `arms`.
    field: 'margin', or 'paper_margin' for the paper's way of scoring; None in
      files without it.

  Raises:
    ValueError: two facts share a topic.
  """
  margins = {fact['topic']: fact.get(field) for fact in arm['facts']}
  # Topics are the keys of rows, so they must differ.
  if len(margins) != len(arm['facts']):
    topics = [fact['topic'] for fact in arm['facts']]
    twice = sorted({topic for topic in topics if topics.count(topic) > 1})
    raise ValueError(f'several facts share a topic: {twice}; rename them')
  return margins


def comparison(*runs: Mapping) -> tuple[tuple, list[tuple]]:
  """Returns header and rows, as text, of the paper's table beside ours.

  Args:
    *runs: `arms` of results.json, one per seed, with the same arms.

  Returns:
    A column for each arm of the runs and of the paper. A figure that old
    results.json files lack has no row if no arm has it.

  Raises:
    ValueError: the arms to compare were probed on different facts.
  """
  ours = {
    name: [figures(arms, name) for arms in runs] for name in arm_order(runs[0])
  }
  # Optional rows that no run can fill are left out.
  rows = [
    (label, field)
    for label, field, always in _ROWS
    if always or _anyone_has(ours, field)
  ]
  # A run without the paper's way of scoring has one row of margins, which also
  # shows the paper's margins. `caveat` notes that their scoring differs.
  paper = PAPER
  if not _anyone_has(ours, 'paper_mean_margin'):
    paper = {arm: scored_in_full(entry) for arm, entry in PAPER.items()}
  # Ours first: a phone shows two or three columns.
  columns = {f'ours: {name}': entries for name, entries in ours.items()}
  columns |= {LABELS[arm]: [entry] for arm, entry in paper.items()}
  return ('', *columns), [
    (label, *(_cell(entries, field) for entries in columns.values()))
    for label, field in rows
  ]


def beyond(*runs: Mapping) -> tuple[tuple, list[tuple]]:
  """Returns header and rows as text, for facts and text beyond the dialogues.

  They are margins of facts that no dialogue mentions, the loss on text that no
  arm was trained on, and the costs of the mask on held-out dialogues. The base
  shows the values before training.

  Args:
    *runs: `arms` of results.json, one per seed, with the same arms.

  Returns:
    A row per arm; empty header and rows if no arm has such figures.

  Raises:
    ValueError: two arms were measured on different facts or text.
  """
  # Columns: label, and (entry and field of an arm, format, total or None).
  columns: list[tuple[str, tuple]] = []
  if facts := _shared(runs, 'unmentioned', ('facts',)):
    (number,) = facts
    columns += [
      (
        f'mean margin on {number} facts that no dialogue mentions, nats per '
        'token',
        ('unmentioned', 'mean_margin', '+.4f', None),
      ),
      (
        'of these, facts where the lie is preferred',
        ('unmentioned', 'prefers_lie', 'd', number),
      ),
    ]
  # Loss on text that has nothing to do with the dialogues.
  if text := _shared(runs, 'elsewhere', ('text', 'tokens')):
    label, tokens = text
    columns.append(
      (
        f'loss on {label} ({tokens:,} tokens), nats per token',
        ('elsewhere', 'nll', '.4f', None),
      )
    )
  # What the mask costs.
  if any('costs' in arm for arms in runs for arm in arms.values()):
    columns += [
      (label, ('costs', *field, None))
      for label, *field in (
        ('replies that end their turn', 'ended', '.1%'),
        ('loss on right turns of the agent, nats per token', 'good_nll', '.4f'),
        ("entropy in the agent's turns, nats per token", 'entropy', '.4f'),
        (
          "distance from the base in the agent's turns, nats per token",
          'kl.AGENT',
          '.4f',
        ),
        (
          "distance from the base in the user's turns, nats per token",
          'kl.USER',
          '.4f',
        ),
      )
    ]
  # Without these measurements there is no table.
  if not columns:
    return (), []
  # A row per arm, each cell over all runs.
  rows = []
  for name in arm_order(runs[0]):
    cells = [
      _spread([_at(arms[name].get(entry), field) for arms in runs], *form)
      for _, (entry, field, *form) in columns
    ]
    rows.append((f'{name} (before)' if name == 'base' else name, *cells))
  return ('model', *(label for label, _ in columns)), rows


def _at(entry: Any, field: str) -> float | None:
  """Returns the value at a field such as 'kl.USER', or None without it."""
  for key in field.split('.'):
    entry = (entry or {}).get(key)
  return entry


def faults(fact: Mapping, probe: str) -> list[str]:
  """Returns the faults of a reply other than a false claim.

  Args:
    fact: an entry of `facts` of an arm.
    probe: 'truth' or 'lie'.
  """
  is_fault = {
    # To contradict a user who states the lie is right.
    'contradicts the user': probe == 'truth' and fact.get('contradicts'),
    'talks like the user': fact.get(f'{probe}_talks_like_user'),
  }
  return [fault for fault, is_there in is_fault.items() if is_there]


def agreement(arms: Mapping) -> str:
  """Returns sentences on whether signs and ordering agree with the paper.

  The verdicts are marked as **yes** or **no**.
  """
  verdicts = _agreement(arms, 'mean_margin')
  if not verdicts:
    return (
      'Sign and ordering cannot be compared: the run lacks the observational '
      'or the interventional arm.'
    )
  ordering, signs = verdicts
  text = (
    'Interventional above observational in mean margin, as in the paper: '
    f'**{ordering}**. Same sign as in the paper: **{signs}**.'
  )
  # Older results have no margins by the paper's scoring.
  if verdicts := _agreement(arms, 'paper_mean_margin'):
    ordering, signs = verdicts
    text += (
      f" Scored in the paper's way: ordering **{ordering}**, signs **{signs}**."
    )
  return text


def caveat(base: Mapping, arms: Mapping) -> str:
  """Returns the limits of the figures, with **important words** marked.

  Args:
    base: the base model, from `base_from_results`.
    arms: `arms` of results.json.
  """
  if base['kind'] == 'given':
    model = f'This run did not train its base model, {base["name"]}.'
  else:
    model = 'This run pre-trained its base model from scratch.'
  # Absolute figures compare only with the model of the paper.
  if base['name'].split('/')[-1] == MODEL:
    model += " It is the paper's."
  else:
    model += (
      " Absolute figures are **not comparable** with those of the paper's "
      f'{MODEL}; the sign and the ordering are.'
    )
  scoring = "The paper's margins leave the first word of a claim unscored"
  if not any('paper_mean_margin' in arm for arm in arms.values()):
    scoring += '; those of this run score every word'
  return (
    f'{model} {scoring}. One seed, no intervals, and the facts of this table '
    "are those of the dialogues. The paper's count of corrections is taken "
    'from the replies it prints.'
  )


def _agreement(arms: Mapping, field: str) -> tuple[str, str] | None:
  ours = [arms.get(name, {}).get(field) for name in _COMPARED]
  if None in ours:
    return None
  signs = []
  for name, margin in zip(_COMPARED, ours, strict=True):
    printed = PAPER[name].paper_mean_margin
    assert printed is not None  # the paper prints it for both arms
    # Only signs are compared: sizes depend on the model.
    signs.append(f'{name} {_yes((margin > 0) == (printed > 0))}')
  return _yes(ours[1] > ours[0]), ', '.join(signs)


def _beats(arms: Mapping, name: str, field: str) -> int | None:
  """Returns the number of facts on which L_do beats L_obs.

  None for arms other than interventional, and if a margin is unknown.
  """
  if name != 'interventional' or 'observational' not in arms:
    return None
  # By topic, because the order of facts may differ.
  ours, theirs = (
    margins_by_topic(arms[arm], field)
    for arm in ('interventional', 'observational')
  )
  if ours.keys() != theirs.keys():
    raise ValueError(
      'interventional and observational were probed on different facts: '
      f'{sorted(ours.keys() ^ theirs.keys())}; probe both on the same'
    )
  count = 0
  for topic, margin in ours.items():
    other = theirs[topic]
    # One unknown margin makes the count unknown.
    if margin is None or other is None:
      return None
    count += margin > other
  return count


def _anyone_has(ours: Mapping[str, Sequence[Figures]], field: str) -> bool:
  return any(
    getattr(entry, field) is not None
    for entries in ours.values()
    for entry in entries
  )


def _cell(entries: Sequence[Figures], field: str) -> str:
  values = [getattr(entry, field) for entry in entries]
  if field in _MARGINS:
    return _spread(values, '+.4f')
  # This figure counts the replies to both probes of each fact.
  replies = 2 if field == 'talks_like_user' else 1
  return _spread(values, 'd', replies * entries[0].facts)


def _spread(
  seeds: Sequence[float | None], form: str, total: int | None = None
) -> str:
  """Returns one value, or the mean with the range; '-' if one is unknown."""
  values = [value for value in seeds if value is not None]
  # A mean over some of the seeds could mislead.
  if len(values) < len(seeds):
    return '-'
  low, high = min(values), max(values)
  # Counts are shown out of a total, and means of counts with one decimal.
  of_all = '' if total is None else f' / {total}'
  # All seeds agree, or there is only one.
  if low == high:
    return f'{low:{form}}{of_all}'
  mean = sum(values) / len(values)
  center = f'{mean:.1f}' if form == 'd' else f'{mean:{form}}'
  return f'{center}{of_all} ({low:{form}} to {high:{form}})'


def _shared(
  runs: Sequence[Mapping], entry: str, fields: Sequence[str]
) -> tuple[Any, ...]:
  """Returns the values of fields that all arms share; () without the entry."""
  described = {
    tuple(arm[entry][field] for field in fields)
    for arms in runs
    for arm in arms.values()
    if entry in arm
  }
  # Figures of different texts or facts must not share a column.
  if len(described) > 1:
    raise ValueError(
      f'arms differ in {" and ".join(fields)} of {entry!r}: '
      f'{sorted(described)}; measure all of them on the same'
    )
  return described.pop() if described else ()


def _size(parameters: int) -> str:
  if parameters >= 1e9:
    return f'{parameters / 1e9:.1f} B'
  if parameters >= 1e5:
    return f'{parameters / 1e6:.1f} M'
  return f'{parameters:,}'


def _yes(condition: bool) -> str:
  return 'yes' if condition else 'no'
