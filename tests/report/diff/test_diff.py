"""Two masks of the same tokens: counts, tables and the page."""

import html.parser

import numpy as np
import pytest

from isft_jax.objectives import weight_table
from isft_jax.report.diff import compared, page, tables
from isft_jax.report.diff.compared import Count, Difference
from isft_jax.types import Example, Provenance, Verdict

PAD, TEMPLATE, _, USER, _, AGENT, *_ = Provenance

# Our token, author and turn; their token, and whether they score it. Hostile on
# purpose: markup, an escape code of a terminal.
TOKENS = (
  ('<s>', TEMPLATE, 0, '<s>', False),
  ('Hi', USER, 0, 'Hi', False),
  ('\x1b[31m', USER, 0, '\x1b[31m', False),
  ('A:', TEMPLATE, 1, 'A:', True),  # a header
  ('<b> Yo', AGENT, 1, '<b> Yo', True),
  (None, None, 1, '<t>', True),  # in their text only
  (None, None, 1, '</t>', True),
  ('.', AGENT, 1, '.', True),
  ('\n', AGENT, 1, None, None),  # in our text only
  ('B:', TEMPLATE, 2, 'B:', True),  # another header
  ('Ho', AGENT, 2, 'Ho', True),
)
TEXTS = [*dict.fromkeys(t for ours, *_, b, _ in TOKENS for t in (ours, b) if t)]


def row(objective='agent_only', id='talk'):
  ours = [token for token in TOKENS if token[0] is not None]
  theirs = [token for token in TOKENS if token[3] is not None]
  example = Example(
    id=id,
    tokens_T=np.array([TEXTS.index(token[0]) for token in ours], np.int32),
    provenance_T=np.array([token[1] for token in ours], np.uint8),
    segment_T=np.array([token[2] for token in ours], np.int32),
    verdict_T=np.full(len(ours), Verdict.UNKNOWN, np.uint8),
  )
  i, j, pairs = 0, 0, []
  for token in TOKENS:
    has_ours, has_theirs = token[0] is not None, token[3] is not None
    pairs.append((i if has_ours else -1, j if has_theirs else -1))
    i, j = i + has_ours, j + has_theirs
  return compared.row(
    example,
    weight_table(objective),
    np.array([TEXTS.index(token[3]) for token in theirs], np.int32),
    np.array([token[4] for token in theirs], bool),
    np.array(pairs),
    TEXTS.__getitem__,
  )


# ------------------------------------------------------------------- the counts


def test_the_tokens_of_both_renderings_in_order():
  each = row()
  assert each.texts == [ours or theirs for ours, _, _, theirs, _ in TOKENS]
  assert [*map(Provenance, each.provenance_A)] == [
    PAD if author is None else author for _, author, *_ in TOKENS
  ]
  assert each.segment_A.tolist() == [turn for _, _, turn, _, _ in TOKENS]
  #                                  s H e A Y < > . n B H
  assert (each.weights_A).tolist() == [0, 0, 0, 0, 1, 0, 0, 1, 1, 0, 1]
  assert (1 * each.scored_A).tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 0, 1, 1]
  assert (1 * each.differs_A).tolist() == [0, 0, 0, 1, 0, 1, 1, 0, 1, 1, 0]


def test_counts_by_author_add_up():
  each = row()
  #                  tokens ours theirs both only ours, only theirs
  by_author = {
    TEMPLATE: Count(3, 0, 2, 0, 0, 2),
    USER: Count(2, 0, 0, 0, 0, 0),
    AGENT: Count(4, 4, 3, 3, 1, 0),
    PAD: Count(2, 0, 2, 0, 0, 2),
  }
  assert compared.authors([each]) == [*by_author]
  for author, expected in by_author.items():
    assert compared.count(each, author) == expected
  assert compared.count(each) == compared.add([*by_author.values()])


def test_the_first_token_is_not_ours():
  weights_A = row('observational').weights_A
  assert weights_A.tolist() == [0, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1]


def test_differences_are_stretches_of_one_author_turn_and_side():
  assert compared.differences([row(), row(id='again')]) == {
    Difference('theirs', TEMPLATE, 'A:'): 2,
    Difference('theirs', PAD, '<t></t>'): 2,
    Difference('ours', AGENT, '\n'): 2,
    Difference('theirs', TEMPLATE, 'B:'): 2,
  }


@pytest.mark.parametrize('empty', ['ours', 'theirs'])
def test_a_side_without_scored_tokens(empty):
  each = row('USER=0' if empty == 'ours' else 'agent_only')
  if empty == 'theirs':
    each.scored_A[:] = False
  assert getattr(compared.count(each), empty) == 0
  assert compared.count(each).both == 0


# ------------------------------------------------------------------- the tables


def test_the_tables():
  assert tables.by_author([row()], 'trl') == (
    '',
    ('author', 'tokens', 'ours', 'trl', 'both', 'only ours', 'only trl'),
    [
      ('TEMPLATE', '3', '0', '2', '0', '0', '2'),
      ('USER', '2', '0', '0', '0', '0', '0'),
      ('AGENT', '4', '4', '3', '3', '1', '0'),
      ('not in ours', '2', '0', '2', '0', '0', '2'),
      ('total', '11', '4', '7', '3', '1', '4'),
    ],
  )
  assert tables.by_row([row(), row(id='a\x1b')], 'trl').rows == [
    ('talk', '11', '4', '7', '3', '1', '4'),
    (r'a\x1b', '11', '4', '7', '3', '1', '4'),
  ]
  assert tables.not_compared({'few': 1, 'most': 1200}).rows == [
    ('most', '1,200'),
    ('few', '1'),
  ]


def test_the_most_frequent_differences_come_first():
  found = tables.differences([row(), row('interventional')], 'trl', most=3)
  assert found.header == ('text', 'author', 'scored only by', 'times')
  assert found.rows[0] == ('<t></t>', 'not in ours', 'trl', '2')
  assert len(found.rows) == 3


def test_a_long_text_is_cut():
  long = Difference('ours', AGENT, 'a b\n' * 20)
  assert tables._short(long.text) == 'a·b↵ ' * 9 + 'a·b...'


# --------------------------------------------------------------------- the page


class Reader(html.parser.HTMLParser):
  """Collects the tokens of a page, and all tags."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.tokens, self.sections = set(), [], []
    self._token = None
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.tags.add(tag)
    classes = (dict(attrs).get('class') or '').split()
    if tag == 'section':
      self.sections.append(classes[0])
    if tag == 'span' and 'token' in classes:
      self.tokens.append(['', {'scored', 'differs'} & {*classes}])
      self._token = self.tokens[-1]

  def handle_endtag(self, tag):
    if tag == 'span':
      self._token = None

  def handle_data(self, data):
    if self._token:
      self._token[0] += data


def made(rows, reasons=None, shown=None):
  settings = page.Settings('agent_only', 'trl', 'TRL <1>')
  shown = rows if shown is None else shown
  return page.page(shown, rows, reasons or {}, settings).decode()


def test_the_page_has_both_masks_turn_by_turn():
  read = Reader(made([row()]))
  both = {'scored', 'differs'}
  assert read.tokens == [
    *(['<s>', set()], ['Hi', set()], [r'\x1b[31m', set()]),  # ours, turn 0
    *(['<s>', set()], ['Hi', set()], [r'\x1b[31m', set()]),  # theirs, turn 0
    *(['A:', {'differs'}], ['<b> Yo', {'scored'}], ['.', {'scored'}]),
    ['↵\n', both],
    *(['A:', both], ['<b> Yo', {'scored'}], ['<t>', both], ['</t>', both]),
    ['.', {'scored'}],
    *(['B:', {'differs'}], ['Ho', {'scored'}]),
    *(['B:', both], ['Ho', {'scored'}]),
  ]
  # The switch hides turns without a difference.
  assert read.sections == ['same', 'differing', 'differing']
  assert 't' not in read.tags and 'img' not in read.tags


def test_the_page_needs_no_network_and_escapes_names():
  text = made([row(id='<i>x</i>')], {'trl: <u>no</u>': 3})
  assert '&lt;i&gt;x&lt;/i&gt;' in text
  assert 'TRL &lt;1&gt;' in text
  assert 'trl: &lt;u&gt;no&lt;/u&gt;' in text
  assert 'http' not in text.replace('http-equiv', '')
  assert "default-src 'none'" in text


def test_all_rows_are_counted_and_some_are_shown():
  rows = [row(id=f'row-{n}') for n in range(3)]
  text = made(rows, shown=rows[:1])
  assert text.count('<details') == 1
  assert text.count('row-2') == 1  # in the table
  assert 'Rows compared:\n3.' in text


def test_a_page_without_a_compared_row_has_the_reasons():
  text = made([], {'malformed': 2})
  assert 'malformed' in text and '<details' not in text


def test_a_very_long_row_is_cut_and_says_so(monkeypatch):
  whole = made([row()])
  monkeypatch.setattr(page, 'MOST_TOKENS', 4)
  cut = made([row()])
  line = 'The first 4 of 11 tokens are shown. The counts are of all.'
  assert line in cut and line not in whole
  assert len(Reader(cut).tokens) < len(Reader(whole).tokens)
  summary = '<summary>', '</summary>'
  texts = [
    text.partition(summary[0])[2].partition(summary[1])[0]
    for text in (cut, whole)
  ]
  assert texts[0] == texts[1] != ''
