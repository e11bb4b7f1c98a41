"""How a row was read, as short lists to compare with."""

from isft_jax.data.formats import registry
from isft_jax.data.messages.author_rules import Rules
from isft_jax.types import Provenance


def segments(row, format='auto', rules=None):
  """(role, text, author) of each turn."""
  rules = rules or Rules.default()
  found = registry.read(row, 'x', format, rules).segments
  return [(s.role, s.text, s.provenance.name) for s in found]


def fields(row, format='auto'):
  """The other fields of each turn, without those that have none."""
  found = registry.read(row, 'x', format, Rules.default()).segments
  return [dict(s.fields) for s in found if s.fields]


def columns(row, format='auto', rules=None):
  """(author, ids) of each run of one author, in order."""
  rules = rules or Rules.default()
  example = registry.read(row, 'x', format, rules)
  runs = []
  for id, code in zip(example.tokens_T, example.provenance_T, strict=True):
    name = Provenance(code).name
    if not runs or runs[-1][0] != name:
      runs.append((name, []))
    runs[-1][1].append(int(id))
  return runs
