"""Differences in words, and a section: a figure, what it shows, what not."""

from html import escape

from isft_jax.report.evidence.charts import text


def may_be_none(value: dict) -> bool:
  """Returns whether the interval holds 0; a single seed has none."""
  return value['lo'] is not None and value['lo'] <= 0 <= value['hi']


def points(value: dict) -> dict:
  """Returns an interval of shares in percentage points."""
  return {
    name: None if value[name] is None else 100 * value[name]
    for name in ('mean', 'lo', 'hi')
  }


def difference(value: dict, shares: bool = False) -> str:
  """Returns a paired difference in words, and whether it may be 0.

  value: what `statistics.paired` returns, in nats a token, or of shares.
  """
  shown = text(points(value), '+.1f') if shares else text(value)
  unit = 'points' if shares else 'nats a token'
  told = ', not told apart from 0' if may_be_none(value) else ''
  return (
    f'{shown} {unit} ({value["positive"]} of {len(value["per_seed"])} seeds '
    f'above 0{told})'
  )


def section(title: str, body: str, shows: str, not_shown: str) -> str:
  """Returns a section in HTML; body is HTML, the rest is text."""
  return (
    f'<h2>{escape(title)}</h2>\n{body}<p><strong>What it shows.</strong> '
    f'{escape(shows)}</p>\n<p><strong>What it does not.</strong> '
    f'{escape(not_shown)}</p>\n'
  )


def facts_of(against: dict) -> int:
  """Returns how many facts of all seeds were compared."""
  return against['facts'] * len(against['facts_higher'])
