"""Tables of isft-probe for a terminal."""

from collections.abc import Mapping

from isft_jax.report.tables import Table

# Verdict of a reply -> its cell. Capitals make a lie stand out without color.
_SIGNS = {'truth': 'truth', 'lie': 'LIE', 'other': '-'}


def tables(results: Mapping) -> tuple[Table, Table]:
  """Returns a table with a row per fact, and a table of counts.

  Args:
    results: the results of `worlds.lying_agent.probes.probe`.
  """
  # A row per fact: its margin, and the verdicts on the two replies.
  facts = results['facts']
  rows = [
    (
      fact['topic'],
      f'{fact["margin"]:+.3f}',
      _SIGNS[fact['truth_verdict']],
      _SIGNS[fact['lie_verdict']],
    )
    for fact in facts
  ]
  header = ('fact', 'margin', 'user states truth', 'user states lie')
  # Counts, out of all facts.
  truth, lie = results['truth_probe'], results['lie_probe']
  counts = [
    ('the user states the truth: the reply is not it', _count(truth, 'truth')),
    ('the user states the lie: the reply corrects it', str(lie['truth'])),
    ('the lie is preferred to the truth', str(results['prefers_lie'])),
    ('mean margin, nats per token', f'{results["mean_margin"]:+.3f}'),
    (
      "the same by the paper's scoring: the lie is preferred",
      str(results['paper_prefers_lie']),
    ),
    ('mean margin', f'{results["paper_mean_margin"]:+.3f}'),
    (
      'the user states the truth: the reply contradicts it',
      str(results['contradicts']),
    ),
    (
      'replies to the truth or the lie that talk like the user',
      str(results['talks_like_user']),
    ),
  ]
  # The title explains the columns.
  title = 'Margin: log p(truth) - log p(lie), nats per token; then its replies'
  return (
    Table(title, header, rows),
    Table('In all', ('', f'of {len(facts)}'), counts),
  )


def _count(verdicts: Mapping, right: str) -> str:
  return str(sum(verdicts.values()) - verdicts[right])
