"""Annotations of a message: its author, its verdict, spans of other authors.

    {"role": "assistant", "content": "Yes. Observation: 4", "author": "agent",
     "verdict": "wrong", "spans": [[5, 19, "tool"]]}

Unknown values of `author` and `verdict` belong to the data, have no effect, and
are counted (see `usage`). An invalid value of `spans` makes the row malformed.
"""

from collections.abc import Mapping

from isft_jax.data.messages.conversation import Malformed, kind
from isft_jax.types import Part, Provenance, Verdict

# Names of members. PAD and TEMPLATE cannot be the author of a message.
PROVENANCES = {member.name: member for member in Provenance}
VERDICTS = {member.name: member for member in Verdict}
AUTHORS = {
  name: member
  for name, member in PROVENANCES.items()
  if member not in (Provenance.PAD, Provenance.TEMPLATE)
}
# Key under which a message keeps its role when a rule renames the role.
ORIGINAL_ROLE = 'isft_original_role'
# Flags of other trainers that say whether to imitate a message of the agent.
# OpenAI and Mistral: weight; axolotl: train, training, weight; ms-swift: loss;
# LLaMA-Factory: loss_weight. The first that is a flag counts.
FLAGS = ('weight', 'train', 'training', 'loss', 'loss_weight')
_FLAGS = frozenset(FLAGS)
_SPAN = ('start', 'stop', 'author', 'verdict')  # the verdict is optional


def provenance(value: object) -> Provenance | None:
  """Returns the provenance of a name in upper or lower case, or None."""
  return PROVENANCES.get(value.upper()) if isinstance(value, str) else None


def verdict(value: object) -> Verdict | None:
  """Returns the verdict for a name, a code or a boolean, or None."""
  if isinstance(value, bool):
    return Verdict.RIGHT if value else Verdict.WRONG
  if isinstance(value, str):
    return VERDICTS.get(value.upper())
  return Verdict(value) if value in (0, 1, 2) and type(value) is int else None


def flagged(raw: Mapping) -> Verdict | None:
  """Returns the verdict that a trainer's flag stands for, or None.

  Weight 0 and false mean that a turn is not to be imitated, as a turn with the
  verdict WRONG. Any other weight says nothing about the turn's claim, and does
  not turn an agent's action into a demonstration.

  Args:
    raw: the message as it is in the row.
  """
  # One intersection of sets: most messages have no flag.
  if _FLAGS.isdisjoint(raw):
    return None
  for key in FLAGS:
    if key in raw and is_flag(key, raw[key]):
      return None if raw[key] else Verdict.WRONG
  return None


def is_flag(key: str, value: object) -> bool:
  """Returns whether a field is a flag: true, false, or a weight of 0 or 1."""
  if key not in FLAGS:
    return False
  # A verdict cannot express a fraction of a weight. A float under `loss` is
  # the logged loss of a message, and no flag.
  types = (int, float) if 'weight' in key else int
  return isinstance(value, types) and value in (0, 1)


def is_misread(key: str, value: object, author: Provenance) -> bool:
  """Returns whether a field has the name of a mark and a value that is none.

  Args:
    key: the name of the field.
    value: its value, which is not empty.
    author: the author of the turn. Flags concern only the agent's turns.
  """
  if key == 'author':
    return provenance(value) is None
  if key == 'verdict':
    return verdict(value) is None
  # A number under `loss` is the logged loss of a message.
  is_logged = key == 'loss' and isinstance(value, int | float)
  return (
    key in FLAGS
    and author == Provenance.AGENT
    and not is_logged
    and not is_flag(key, value)
  )


def is_mark(key: str, value: object) -> bool:
  """Returns whether a field is an annotation, which templates do not get."""
  if key == 'author':
    return provenance(value) is not None
  # Other values of author and verdict are data, which templates may show.
  if key == ORIGINAL_ROLE:
    return True
  return key == 'spans' or (key == 'verdict' and verdict(value) is not None)


def author(raw: Mapping, i: int) -> Provenance | None:
  """Returns the annotated author of a message, or None.

  Args:
    raw: the message as it is in the row.
    i: index of its turn, for messages.

  Raises:
    Malformed: the author is PAD or TEMPLATE, which write no message.
  """
  named = provenance(raw.get('author'))
  # PAD and TEMPLATE are valid names, and therefore an error and not data.
  if named is not None and named.name not in AUTHORS:
    raise Malformed(
      f'turn {i}: author must be one of {", ".join(AUTHORS)} '
      f'(got {named.name!r})'
    )
  return named


def parts(raw: Mapping, text: str, i: int) -> tuple[Part, ...]:
  """Returns the annotated spans of a message, in order.

  Args:
    raw: the message as it is in the row.
    text: its content; spans count its characters.
    i: index of its turn, for messages.

  Raises:
    Malformed: a span has another shape, overlaps the next one, or ends after
      the text.
  """
  spans = raw.get('spans')
  if spans is None:
    return ()
  if not isinstance(spans, list):
    raise Malformed(f'turn {i}: spans is {kind(spans)}, expected a list')
  ordered = sorted(
    _part(span, f'turn {i}: span {j}') for j, span in enumerate(spans)
  )
  # Sorted by their starts, neighbours must not overlap.
  end = 0
  for part in ordered:
    if part.start < end:
      raise Malformed(f'turn {i}: spans overlap at character {part.start}')
    end = part.stop
  # The last end is the largest, because spans do not overlap.
  if end > len(text):
    raise Malformed(
      f'turn {i}: a span ends at {end}, the text is {len(text)} characters'
    )
  return tuple(ordered)


def _part(span: object, where: str) -> Part:
  # A list is short for an object with the same values in this order.
  if isinstance(span, list) and len(span) in (3, 4):
    span = dict(zip(_SPAN, span, strict=False))
  if not isinstance(span, dict) or not set(_SPAN[:3]) <= set(span) <= set(
    _SPAN
  ):
    raise Malformed(
      f'{where} must be [start, stop, author] or [start, stop, author, verdict]'
    )
  start, stop = span['start'], span['stop']
  # isinstance would accept true and false as positions.
  if type(start) is not int or type(stop) is not int or not 0 <= start < stop:
    raise Malformed(
      f'{where}: expected 0 <= start < stop, counted in characters'
    )
  named = provenance(span['author'])
  if named is None or named.name not in AUTHORS:
    raise Malformed(f'{where}: author must be one of {", ".join(AUTHORS)}')
  span_verdict = verdict(span.get('verdict', Verdict.UNKNOWN.name))
  if span_verdict is None:
    raise Malformed(f'{where}: verdict must be one of {", ".join(VERDICTS)}')
  return Part(start, stop, named, span_verdict)
