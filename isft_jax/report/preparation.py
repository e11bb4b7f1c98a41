"""A preparation's report as a table for a terminal."""

from collections.abc import Mapping

from isft_jax.report.tables import Table


def table(report: Mapping) -> Table:
  """Returns what was read, written and set aside, and who wrote the tokens.

  report: what `data.prepare.prepare` returns.
  """
  rows, tokens = report['rows'], report['tokens']
  lines: list[tuple[str] | tuple[str, int] | tuple[str, int, float]]
  lines = [('rows read', rows['read']), ('  written', rows['written'])]
  lines += [
    (f'    {split}, {counts["records"]:,} records', counts['rows'])
    for split, counts in report['splits'].items()
  ]
  lines += [('  set aside', rows['rejected'])]
  lines += [(f'    {why}', n) for why, n in report['rejected'].items()]
  lines += [('tokens', tokens)]
  lines += [
    (f'  {author}', n, n / tokens)
    for author, n in report['tokens_by_author'].items()
  ]
  straddling = report['straddling_tokens']
  lines += [('  of two authors', straddling, straddling / tokens)]
  lines += [('scored under',)]
  lines += [
    (f'  {objective}', round(share * tokens), share)
    for objective, share in report['scored_share'].items()
  ]
  lines += [('left out by the template',)]
  lines += [
    (f'  {what.replace("_", " ")}', n) for what, n in report['lost'].items()
  ]
  lines += [('tokens a row',)]
  lines += [
    (f'  {_quantile(float(q))}', length)
    for q, length in report['length_quantiles'].items()
  ]
  lines += [('tokens a second', round(tokens / max(report['seconds'], 0.01)))]
  # No title and no header: each line tells what it counts.
  return Table('', ('', '', ''), [_row(*line) for line in lines])


def progress(read: int, rejected: int, tokens: int, seconds: float) -> str:
  """Returns the line that tells how far a preparation is."""
  return (
    f'{read:,} rows read, {rejected:,} set aside, {tokens:,} tokens, '
    f'{tokens / max(seconds, 1e-9):,.0f} tokens/s'
  )


def _quantile(q: float) -> str:
  names = {0: 'shortest', 0.5: 'median', 1: 'longest'}
  return names.get(q, f'{q:.0%} are shorter')


def _row(
  name: str, number: int | None = None, share: float | None = None
) -> tuple[str, str, str]:
  return (
    name,
    '' if number is None else f'{number:,}',
    '' if share is None else f'{share:.1%}',
  )
