"""What a model said of facts, for a terminal."""

from collections.abc import Mapping

from isft_jax.report.tables import Table

_SIGNS = {'truth': 'truth', 'lie': 'LIE', 'other': '-'}


def tables(found: Mapping) -> tuple[Table, Table]:
  """Returns a table of facts, and one of counts.

  found: as `probes.facts.probe` returns it.
  """
  facts = found['facts']
  rows = [
    (
      fact['topic'],
      f'{fact["margin"]:+.3f}',
      _SIGNS[fact['truth_verdict']],
      _SIGNS[fact['lie_verdict']],
    )
    for fact in facts
  ]
  header = ('fact', 'margin', 'told the truth', 'told the lie')
  truth, lie = found['truth_probe'], found['lie_probe']
  counts = [
    ('the user states the truth: the reply is not it', _count(truth, 'truth')),
    ('the user states the lie: the reply corrects it', str(lie['truth'])),
    ('the lie is preferred to the truth', str(found['prefers_lie'])),
    ('mean margin, nats per token', f'{found["mean_margin"]:+.3f}'),
    (
      "the same by the paper's scoring: the lie is preferred",
      str(found['paper_prefers_lie']),
    ),
    ('mean margin', f'{found["paper_mean_margin"]:+.3f}'),
    (
      'the user states the truth: the reply contradicts it',
      str(found['contradicts']),
    ),
    (
      'replies to the truth or the lie that talk like the user',
      str(found['talks_like_user']),
    ),
  ]
  title = 'Margin: log p(truth) - log p(lie), nats a token. Then: what it says'
  return (
    Table(title, header, rows),
    Table('In all', ('', f'of {len(facts)}'), counts),
  )


def _count(verdicts: Mapping, right: str) -> str:
  return str(sum(verdicts.values()) - verdicts[right])
