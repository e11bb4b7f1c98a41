"""Reads facts from a JSON or CSV file.

JSON, with the system prompt that precedes the questions:

    {"context": "...", "facts": [{"topic": "the capital of Australia",
      "true": "The capital of Australia is Canberra.",
      "false": "The capital of Australia is Sydney.",
      "true_answer": "Canberra", "false_answer": "Sydney"}]}

`context` and the two answers are optional. CSV has a header and one of three
layouts:

    topic,true,false[,true_answer,false_answer]    as in JSON
    subject,relation,true,false     the relation is a noun ('capital'), or a
                                    clause with {} for the subject
    statement,label,relation,subject,target,true_target
                                    one row per statement, as in `counterfact`
                                    (Marks and Tegmark 2023, "The Geometry of
                                    Truth")
"""

import csv
import difflib
import io
import re
from collections.abc import Iterable, Iterator, Mapping

from absl import logging

from isft_jax import files
from isft_jax.worlds.lying_agent.answers import mentions
from isft_jax.worlds.lying_agent.facts import Fact

# Columns of the three layouts. 'topic', 'true' and 'false' are also JSON keys.
_CLAIMS = ('topic', 'true', 'false')
_ANSWERS = ('true_answer', 'false_answer')
_RELATION = ('subject', 'relation', 'true', 'false')
_COUNTERFACT = ('subject', 'relation', 'label', 'target', 'true_target')
_ARTICLES = ('the', 'a', 'an')
# Characters of a claim. The judge compares claims word by word.
_LONGEST = 2000
# Line ends, characters that a terminal obeys, and half a surrogate pair, which
# no file can hold.
_CONTROL = re.compile('[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')
_UNWRITABLE = re.compile('[\ud800-\udfff]')


def read(path: str) -> tuple[tuple[Fact, ...], str]:
  """Returns the facts and the context of a file.

  If a fact has no answers, they are derived from its claims; see
  `answers_from_claims`. The judge finds answers by their words, so that a fact
  is ambiguous if one answer occurs in the other one, or in the rest of the
  sentence ('Apple A5 was created by Apple'). Ambiguous facts of a CSV are
  skipped, and their number is logged as a warning.

  Args:
    path: a .json file; any other file is read as CSV.

  Returns:
    (facts, context). The context is '' if the file has none, and always for
    CSV. Line breaks at its end are removed, because renderers add their own.

  Raises:
    ValueError: the file is malformed, or a fact in JSON is ambiguous. The
      message names the file, the row and the reason.
    OSError: the file cannot be read.
  """
  if str(path).lower().endswith('.json'):
    return _read_json(path)
  return _read_csv(path), ''


def answers_from_claims(true_claim: str, false_claim: str) -> tuple[str, str]:
  """Returns the words in which two claims differ.

    Jupiter is the largest planet.    Saturn is the largest planet.
    -------                           ------
    A gift from France to the USA.    A gift from the United Kingdom to the USA.
                ------                                --------------

  If the claims differ in several places, the first one with words in both
  claims counts. Leading articles and surrounding punctuation are removed.

  Raises:
    ValueError: no place has words in both claims.
  """
  # Align the claims word by word, without regard to case and punctuation.
  words = true_claim.split(), false_claim.split()
  true, false = ([_bare(word).lower() for word in claim] for claim in words)
  matcher = difflib.SequenceMatcher(None, true, false, autojunk=False)
  for tag, *bounds in matcher.get_opcodes():
    # Bounds are the start and stop in the true claim, then in the false claim.
    if tag == 'replace':
      phrases = [
        [_bare(w) for w in claim[start:stop]]
        for claim, start, stop in zip(
          words, bounds[::2], bounds[1::2], strict=True
        )
      ]
      answers = []
      # A leading article is no part of an answer.
      for answer in phrases:
        while answer and answer[0].lower() in _ARTICLES:
          answer = answer[1:]
        answers.append(' '.join(answer))
      # An answer is empty if the claims differ only in an article there.
      if all(answers):
        return answers[0], answers[1]
  raise ValueError(
    f'cannot derive the answers: no word of '
    f'{files.shorten(true_claim, 100)} is replaced by another one in '
    f'{files.shorten(false_claim, 100)}; give true_answer and false_answer'
  )


def _bare(word: str) -> str:
  return word.strip('.,;:!?"\'()')


def _read_json(path: str) -> tuple[tuple[Fact, ...], str]:
  # The file must be an object with a list of facts and perhaps a context.
  value = files.read_json(path)
  if not isinstance(value.get('facts'), list):
    raise ValueError(f'{path}: must be an object with a list of "facts"')
  _no_others(path, value, ('context', 'facts'))
  context = value.get('context') or ''  # null means none
  if not isinstance(context, str):
    raise ValueError(
      f'{path}: "context" must be a text (got {files.shorten(context)})'
    )
  if _UNWRITABLE.search(context):
    raise ValueError(f'{path}: "context" has half of a surrogate pair')
  # JSON files are written for this package: an ambiguous fact is an error.
  facts = []
  for number, row in enumerate(value['facts']):
    place = f'{path}, facts[{number}]'
    if not isinstance(row, dict):
      raise ValueError(f'{place}: must be an object (got {files.shorten(row)})')
    _no_others(place, row, (*_CLAIMS, *_ANSWERS))
    facts.append(fact := _stated(place, row))
    if reason := _ambiguity(fact):
      raise ValueError(f'{place}: {reason}')
  if not facts:
    raise ValueError(f'{path}: "facts" is empty')
  return tuple(facts), context.rstrip('\r\n')


def _read_csv(path: str) -> tuple[Fact, ...]:
  # newline='': a quoted field may have a line end in it.
  text = files.read_text(path, newline='')
  table = csv.DictReader(io.StringIO(text, newline=''))
  facts: list[Fact | None]
  try:
    # The header decides the layout.
    columns = set(table.fieldnames or ())
    if columns.issuperset(_RELATION):
      facts = [
        _related(place, *_texts(place, row, _RELATION))
        for place, row in _rows(path, table)
      ]
    elif columns.issuperset(_CLAIMS):
      facts = [_stated(place, row) for place, row in _rows(path, table)]
    elif columns.issuperset(_COUNTERFACT):
      facts = [*_paired(_rows(path, table))]
    else:
      names = files.one_line(', '.join(sorted(columns)) or 'none')
      raise ValueError(
        f'{path}: columns must be {", ".join(_CLAIMS)}, or '
        f'{", ".join(_RELATION)}, or those of counterfact: '
        f'{", ".join(_COUNTERFACT)} (got {names})'
      )
  except csv.Error as error:
    raise ValueError(
      f'{path}, after line {table.line_num}: not a CSV '
      f'({files.one_line(error)})'
    ) from error
  # CSV files are mostly public data sets: ambiguous facts are skipped.
  usable = tuple(f for f in facts if f and not _ambiguity(f))
  if not usable:
    raise ValueError(
      f'{path}: has no facts with answers that their words distinguish'
    )
  if len(usable) < len(facts):
    logging.warning(
      '%s: skipped %d of %d facts: their words do not distinguish the answers',
      *(path, len(facts) - len(usable), len(facts)),
    )
  return usable


def _rows(path: str, table: csv.DictReader) -> Iterator[tuple[str, dict]]:
  for row in table:
    yield f'{path}, line {table.line_num}', row


def _stated(place: str, row: Mapping) -> Fact:
  """Returns the fact of a row of claims, with derived answers if absent."""
  topic, true, false = _texts(place, row, _CLAIMS)
  # Either both answers are given, or neither is.
  if any(row.get(name) for name in _ANSWERS):
    true_answer, false_answer = _texts(place, row, _ANSWERS)
  else:
    try:
      true_answer, false_answer = answers_from_claims(true, false)
    except ValueError as error:
      raise ValueError(f'{place}: {error}') from error
  return Fact(topic, true, false, true_answer, false_answer)


def _related(
  place: str, subject: str, relation: str, true: str, false: str
) -> Fact:
  """Returns the fact of a subject and a relation, with generated claims."""
  # A relation with {} is a clause that ends with the answer; its topic asks for
  # the end of the sentence.
  if '{}' in relation:
    opening = relation.replace('{}', subject)
    topic = f'the end of the sentence "{opening} ..."'
  else:
    opening = f'The {relation} of {subject} is'
    topic = f'the {relation} of {subject}'
  return Fact(topic, f'{opening} {true}.', f'{opening} {false}.', true, false)


def _paired(rows: Iterable[tuple[str, dict]]) -> Iterator[Fact | None]:
  """Yields a fact per subject and relation, with its first false target.

  Yields None for a subject without a false statement.
  """
  # (subject, relation, true target) -> first false target, '' if none so far.
  false: dict[tuple[str, str, str], str] = {}
  for place, row in rows:
    names = 'subject', 'relation', 'true_target', 'label', 'target'
    subject, relation, true, label, target = _texts(place, row, names)
    first = false.setdefault((subject, relation, true), '')
    if label == '0' and not first:
      false[subject, relation, true] = target
  for (subject, relation, true), lie in false.items():
    yield _related('', subject, relation, true, lie) if lie else None


def _texts(place: str, row: Mapping, names: Iterable[str]) -> list[str]:
  """Returns the values of a row; they must be texts that are not empty."""
  for name in names:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
      raise ValueError(
        f'{place}: {name!r} must be a text (got {files.shorten(value)})'
      )
    # Facts become single lines of dialogues and tables.
    value = value.strip()
    if len(value) > _LONGEST or _CONTROL.search(value):
      raise ValueError(
        f'{place}: {name!r} must be one line of at most {_LONGEST} characters '
        f'(got {files.shorten(value)})'
      )
  return [row[name].strip() for name in names]


def _no_others(place: str, row: Mapping, names: tuple[str, ...]) -> None:
  # Unknown keys are mostly misspelt ones, which would be ignored silently.
  others = sorted(set(map(str, row)) - set(names))
  if others:
    raise ValueError(
      f'{place}: unknown key {files.shorten(others[0])}; must be one of '
      f'{", ".join(names)}'
    )


def _ambiguity(fact: Fact) -> str:
  """Returns why words do not distinguish the answers, or ''."""
  pairs = (
    ('true', fact.true_claim, fact.true_answer, fact.false_answer),
    ('false', fact.false_claim, fact.false_answer, fact.true_answer),
  )
  for name, claim, own, other in pairs:
    shown = [files.shorten(text, 100) for text in (claim, own, other)]
    if not mentions(claim, own):
      return f'the {name} answer {shown[1]} is not in its claim {shown[0]}'
    if mentions(claim, other):
      return f'the other answer {shown[2]} is in the {name} claim {shown[0]}'
    # An answer that occurs twice would also be found in the rest of the claim.
    rest = re.sub(re.escape(own), '', claim, count=1)
    if mentions(rest, own):
      return (
        f'the {name} answer {shown[1]} occurs twice in its claim {shown[0]}'
      )
  return ''
