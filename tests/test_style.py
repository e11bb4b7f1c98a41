"""Prose is plain English: phrases that readers stumble over are not used.

It reads docs, docstrings, comments, errors and help texts. A failure names the
place, the rule and better words.
"""

import ast
import io
import pathlib
import re
import tokenize

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md']
PAGES += sorted((ROOT / 'docs').glob('*.md'))
FILES = sorted((ROOT / 'isft_jax').rglob('*.py'))
FILES += sorted((ROOT / 'configs').glob('*.py'))

_UNITS = 'tokens|targets|nats|steps|rows|bytes|GiB|FLOPs?|records|samples'
_PERIODS = 'second|step|row|token|chip|device|day|host|epoch|batch'
# (what must not stand there, why, better words)
RULES = (
  (r'\b[Aa]lone\b', '"alone" is rare for "only"', 'only'),
  (r'\b(?:is|are) none of\b', 'an inverted list', 'must be one of'),
  (
    r'(?:(?<=[.:;?!] )|(?<=\A)|(?<=\n\n))Of (?!which\b)',
    'a sentence that opens with "Of"',
    'subject, verb, object: "The size of ..."',
  ),
  (
    rf'\b(?:{_UNITS}) an? (?:{_PERIODS})\b(?! time)',
    '"a X a Y" for a rate',
    'per: "tokens per second"',
  ),
  (r'\bgo(?:es)? on\b', 'not the term', 'resumes, continues'),
  (r'\btold (?:by|apart)\b', 'not the term', 'detected by, distinguished by'),
  (r'\bWhose weights\b', 'a noun clause', 'the objective whose weights ...'),
  (r'\bfrom its birth\b', 'a figure of speech', 'initialised on its shards'),
  (r'\b[Aa]nother \w+, other\b', 'a riddle', 'name the effect'),
  (r'\b(?:is|are) said of\b', 'not the term', 'is documented for'),
  (r'\bmade of it\b', 'a noun clause', 'name the result'),
  (r'\bwhat there is\b', 'a noun clause', 'name the things'),
  (r'\bwhatever comes\b', 'a noun clause', 'name the cases'),
)


def prose(path: pathlib.Path) -> list[tuple[int, str]]:
  """Returns (line, text) of a page's paragraphs or a file's prose."""
  source = path.read_text(encoding='utf-8')
  if path.suffix == '.md':
    return [
      (number, line)
      for number, line in enumerate(source.splitlines(), 1)
      if not line.startswith('    ')
    ]
  texts = []
  for node in ast.walk(ast.parse(source)):
    text = getattr(node, 'value', None) if isinstance(node, ast.Constant) else 0
    # Words of a sentence, and not a name or a template.
    if isinstance(text, str) and ' ' in text.strip() and '{%' not in text:
      texts.append((node.lineno, text))
  for token in tokenize.generate_tokens(io.StringIO(source).readline):
    if token.type == tokenize.COMMENT:
      texts.append((token.start[0], token.string.lstrip('# ')))
  return texts


def complaints(path: pathlib.Path) -> list[str]:
  """Returns what a file's prose should say otherwise."""
  found = []
  for line, text in prose(path):
    for pattern, reason, better in RULES:
      for match in re.finditer(pattern, text):
        found.append(
          f'{path.relative_to(ROOT)}:{line}: {match[0]!r}: {reason}; '
          f'write {better}'
        )
  return found


@pytest.mark.parametrize(
  'path', PAGES + FILES, ids=lambda path: str(path.relative_to(ROOT))
)
def test_prose_is_plain(path):
  assert complaints(path) == []


@pytest.mark.parametrize(
  ('text', 'number'),
  [
    ('"""Of the rows."""', 1),
    ('"""Rows. Of these, two."""', 1),
    ('"""Two of the rows."""', 0),
    ('# read by the first host alone', 1),
    ('raise ValueError(f"{x} is none of {y}")', 1),
    ('"""100 tokens a second."""', 1),
    ('"""100 tokens per second."""', 0),
    ('"""The run goes on."""', 1),
    ("NAME = 'alone'", 0),  # a name, and no prose
  ],
)
def test_the_check_sees_what_is_planted(text, number, tmp_path, monkeypatch):
  monkeypatch.setitem(globals(), 'ROOT', tmp_path)
  path = tmp_path / 'file.py'
  path.write_text(text + '\n')
  assert len(complaints(path)) == number
