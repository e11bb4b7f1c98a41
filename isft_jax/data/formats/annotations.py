"""Our own marks on a message: its author, its verdict, spans of other authors.

    {"role": "assistant", "content": "Yes. Observation: 4", "author": "agent",
     "verdict": "wrong", "spans": [[5, 19, "tool"]]}

A value that is not one of ours belongs to the data and is left alone; only
`spans`, which says where characters begin and end, has to be right.
"""

from collections.abc import Mapping

from isft_jax.data.formats.conversation import Malformed, kind
from isft_jax.types import Part, Provenance, Verdict

PROVENANCES = {member.name: member for member in Provenance}
VERDICTS = {member.name: member for member in Verdict}
AUTHORS = {
  name: member
  for name, member in PROVENANCES.items()
  if member not in (Provenance.PAD, Provenance.TEMPLATE)
}
_SPAN = ('start', 'stop', 'author', 'verdict')


def provenance(value: object) -> Provenance | None:
  """Returns the member that a value names, in any case, or None."""
  return PROVENANCES.get(value.upper()) if isinstance(value, str) else None


def verdict(value: object) -> Verdict | None:
  """Returns the verdict that a name, a code, true or false means, or None."""
  if isinstance(value, bool):
    return Verdict.RIGHT if value else Verdict.WRONG
  if isinstance(value, str):
    return VERDICTS.get(value.upper())
  return Verdict(value) if value in (0, 1, 2) and type(value) is int else None


def is_mark(key: str, value: object) -> bool:
  """Whether a field of a message is ours, and so none of a template's."""
  if key == 'author':
    return provenance(value) is not None
  return key == 'spans' or (key == 'verdict' and verdict(value) is not None)


def author(found: Mapping, i: int) -> Provenance | None:
  """Returns what message i says of its author, or None.

  Raises Malformed for PAD and TEMPLATE, which write no message.
  """
  named = provenance(found.get('author'))
  if named is not None and named.name not in AUTHORS:
    raise Malformed(
      f'turn {i}: {named.name} is no author; expected {", ".join(AUTHORS)}'
    )
  return named


def parts(found: Mapping, text: str, i: int) -> tuple[Part, ...]:
  """Returns the spans of message i, in order.

  text: the content that they count characters of.
  Raises Malformed where they are not spans, overlap or leave the text.
  """
  spans = found.get('spans')
  if spans is None:
    return ()
  if not isinstance(spans, list):
    raise Malformed(f'turn {i}: spans is {kind(spans)}, expected a list')
  ordered = sorted(
    _part(span, f'turn {i}: span {j}') for j, span in enumerate(spans)
  )
  end = 0
  for part in ordered:
    if part.start < end:
      raise Malformed(f'turn {i}: spans overlap at character {part.start}')
    end = part.stop
  if end > len(text):
    raise Malformed(
      f'turn {i}: a span ends at {end}, the text is {len(text)} characters'
    )
  return tuple(ordered)


def _part(span: object, where: str) -> Part:
  if isinstance(span, list) and len(span) in (3, 4):
    span = dict(zip(_SPAN, span, strict=False))
  if not isinstance(span, dict) or not set(_SPAN[:3]) <= set(span) <= set(
    _SPAN
  ):
    raise Malformed(f'{where} is not [start, stop, author] or with a verdict')
  start, stop = span['start'], span['stop']
  if type(start) is not int or type(stop) is not int or not 0 <= start < stop:
    raise Malformed(
      f'{where}: expected 0 <= start < stop, counted in characters'
    )
  named = provenance(span['author'])
  if named is None or named.name not in AUTHORS:
    raise Malformed(f'{where}: expected an author of {", ".join(AUTHORS)}')
  judged = verdict(span.get('verdict', Verdict.UNKNOWN.name))
  if judged is None:
    raise Malformed(f'{where}: expected a verdict of {", ".join(VERDICTS)}')
  return Part(start, stop, named, judged)
