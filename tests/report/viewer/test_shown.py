"""The token viewer: every token once, by its author, with its exact weight."""

import html.parser
import io
import re

import numpy as np
import pytest

from isft_jax.objectives import weight_table
from isft_jax.report import escapes
from isft_jax.report.viewer import html as viewer_html
from isft_jax.report.viewer import shown as viewer
from isft_jax.report.viewer import terminal as viewer_terminal
from isft_jax.report.viewer.shown import MARKS, Turn
from isft_jax.types import Example, Provenance, Verdict

_, TEMPLATE, CONTEXT, USER, TOOL, AGENT, *_ = Provenance
UNKNOWN, RIGHT, WRONG = Verdict

# text, id, author, turn, verdict. Hostile on purpose: markup, half a character,
# a terminal's escape code, a character that turns text around.
TOKENS = (
  ('Be kind.\n', 900, CONTEXT, 0, UNKNOWN),
  ('User:', 11, TEMPLATE, 1, UNKNOWN),
  (' <script>x</script>', 12, USER, 1, RIGHT),
  ('&amp;"', 13, USER, 1, RIGHT),
  ('\n', 14, TEMPLATE, 1, UNKNOWN),
  ('Agent:', 15, TEMPLATE, 2, UNKNOWN),
  (' K2', 16, AGENT, 2, WRONG),
  ('.\n', 17, AGENT, 2, WRONG),
  ('\ufffd', 18, TOOL, 3, UNKNOWN),
  ('\x1b[31m', 19, TOOL, 3, UNKNOWN),
  ('山\u202e', 20, TOOL, 3, UNKNOWN),
  ('', 21, TOOL, 3, UNKNOWN),
)
NAMES = ('observational', 'interventional', 'error_masked', 'weighted(0.3)')


def example(**changes):
  _, ids, authors, segments, verdicts = zip(*TOKENS, strict=True)
  fields = {
    'id': 'talk-1',
    'tokens_T': np.array(ids, np.int32),
    'provenance_T': np.array(authors, np.uint8),
    'segment_T': np.array(segments, np.int32),
    'verdict_T': np.array(verdicts, np.uint8),
  }
  return Example(**(fields | changes))


def show(names=NAMES, **changes):
  texts = {token: text for text, token, *_ in TOKENS}
  tables = {name: weight_table(name) for name in names}
  return viewer.dialogue(example(**changes), lambda ids: texts[ids[0]], tables)


# ---------------------------------------------------------------- what is shown


def test_the_weight_of_each_token():
  lines = [
    ' '.join([name, *(f'{weight:g}' for weight in weights_T)])
    for name, weights_T in show().weights.items()
  ]
  assert lines == [
    #              c t u u t t a a o o o o
    'observational 0 1 1 1 1 1 1 1 1 1 1 1',
    'interventional 0 1 1 1 1 1 0 0 1 1 1 1',
    'error_masked 0 1 1 1 1 1 0 0 1 1 1 1',
    'weighted(0.3) 0 1 1 1 1 1 0.3 0.3 1 1 1 1',
  ]


@pytest.mark.parametrize('scored_from', [0, 1, 4, 12])
def test_no_weight_on_the_first_token_or_on_an_overlap(scored_from):
  authors = np.full(len(TOKENS), USER, np.uint8)
  shown = show(provenance_T=authors, scored_from=scored_from)
  (first,) = {int(np.argmax(np.append(w, 1))) for w in shown.weights.values()}
  assert first == max(1, scored_from)


def test_texts_and_weights_must_fit_the_tokens():
  with pytest.raises(ValueError, match='talk-1: 12 tokens, but 1 texts'):
    viewer.Dialogue(example(), ['x'], {})
  with pytest.raises(ValueError, match='but 11 agent_only'):
    viewer.Dialogue(example(), ['x'] * 12, {'agent_only': np.ones(11)})


@pytest.mark.parametrize(
  ('text', 'shown'),
  [
    (' a b', ' a b'),
    ('a\n\nb', 'a↵\n↵\nb'),
    ('\t\r\x07\x1b[0m', r'\t\r\x07\x1b[0m'),
    ('\x9b\xa0\u200b\u2028\u202e', r'\x9b\xa0\u200b\u2028\u202e'),
    ('\ud83d \ufffd é 漢', '\\ud83d \ufffd é 漢'),
    ('', ''),
  ],
)
def test_nothing_in_a_text_is_hidden_or_obeyed(text, shown):
  assert escapes.visible(text) == shown


def test_turns():
  assert viewer.turns(example()) == [
    Turn(0, 0, 1, CONTEXT, UNKNOWN),
    Turn(1, 1, 5, USER, RIGHT),
    Turn(2, 5, 8, AGENT, WRONG),
    Turn(3, 8, 12, TOOL, UNKNOWN),
  ]


def test_every_author_has_a_letter_of_its_own():
  assert list(MARKS) == list(Provenance)
  assert len(set(MARKS.values())) == len(Provenance)
  assert all(mark.islower() and len(mark) == 1 for mark in MARKS.values())


# ------------------------------------------------------------------------ plain


PLAIN = r"""talk-1: 12 tokens, objective weighted(0.3)

index  turn  author      verdict  weight   id  text
    0     0  c CONTEXT   -             0  900  Be·kind.↵
    1     1  t TEMPLATE  -             1   11  User:
    2     1  u USER      right         1   12  ·<script>x</script>
    3     1  u USER      right         1   13  &amp;"
    4     1  t TEMPLATE  -             1   14  ↵
    5     2  t TEMPLATE  -             1   15  Agent:
    6     2  a AGENT     wrong       0.3   16  ·K2
    7     2  a AGENT     wrong       0.3   17  .↵
    8     3  o TOOL      -             1   18  �
    9     3  o TOOL      -             1   19  \x1b[31m
   10     3  o TOOL      -             1   20  山\u202e
   11     3  o TOOL      -             1   21

author      tokens  scored  weight
t TEMPLATE       3       3       3
c CONTEXT        1       0       0
u USER           2       2       2
o TOOL           4       4       4
a AGENT          2       2     0.6
total           12      11     9.6
"""


def test_plain():
  assert viewer_terminal.plain(show(), 'weighted(0.3)') == PLAIN


class Stream(io.StringIO):
  encoding = 'utf-8'

  def __init__(self, terminal):
    super().__init__()
    self.isatty = lambda: terminal


@pytest.mark.parametrize(
  ('choice', 'terminal', 'environ', 'colored'),
  [
    ('auto', True, {}, True),
    ('auto', False, {}, False),
    ('auto', True, {'NO_COLOR': '1'}, False),
    ('auto', True, {'NO_COLOR': ''}, True),  # no-color.org: only if not empty
    ('auto', True, {'TERM': 'dumb'}, False),
    ('never', True, {}, False),
    ('always', False, {'NO_COLOR': '1'}, True),
  ],
)
def test_no_escape_code_without_color(choice, terminal, environ, colored):
  stream = Stream(terminal)
  viewer_terminal.show(show(), NAMES[0], choice, environ, stream)
  assert ('\x1b' in stream.getvalue()) == colored


def test_a_sign_that_the_terminal_lacks_becomes_its_number():
  stream = Stream(terminal=False)
  stream.encoding = 'ascii'
  viewer_terminal.show(show(), NAMES[0], 'auto', {}, stream)
  assert stream.getvalue().isascii()
  assert r'Be\xb7kind.\u21b5' in stream.getvalue()


# ---------------------------------------------------------------------- colored


def without_codes(text):
  return re.sub(r'\x1b\[[0-9;]*m', '', text)


def test_the_ruler_says_without_color_what_the_color_says():
  text = viewer_terminal.colored(show(), 'interventional', width=19)
  assert without_codes(text).split('\n\n')[2:6] == [
    '0 CONTEXT\nBe·kind.↵\nc┈┈┈┈┈┈┈┈',
    '1 USER  ✓ right\n'
    'User:\nT━━━━\n'  # a token goes over to the next line whole,
    '·<script>x</script>\nU━━━━━━━━━━━━━━━━━━\n'
    '&amp;"↵\nU━━━━━T',
    '2 AGENT  ✗ wrong\nAgent:·K2.↵\nT━━━━━a┈┈a┈',
    # Two columns of a wide character have two of the ruler.
    '3 TOOL\n\ufffd\\x1b[31m山\\u202e∅\nOO━━━━━━━O━━━━━━━O',
  ]


def test_a_token_longer_than_a_line_goes_over_several():
  text = viewer_terminal.colored(show(), 'interventional', width=10)
  assert '·<script>x\nU━━━━━━━━━\n</script>\n━━━━━━━━━\n' in without_codes(text)
  rows = re.split(r'\n[0-9] .*\n', without_codes(text))[1:]
  assert max(len(line) for row in rows[:3] for line in row.split('\n')) == 10


def test_scored_tokens_are_filled_and_others_dim():
  text = viewer_terminal.colored(show(), 'interventional')
  fill = viewer_terminal.FILLS[USER]
  assert f'\x1b[38;5;16;48;5;{fill}m&amp;"\x1b[0m' in text
  assert '\x1b[2m·K2\x1b[0m' in text


def test_only_our_own_escape_codes_reach_the_terminal():
  text = viewer_terminal.colored(show(id='\x1b]0;x\x07'), 'interventional')
  codes = set(re.findall(r'\x1b[^m]*m', text))
  assert all(re.fullmatch(r'\x1b\[[0-9;]+m', code) for code in codes)
  assert '\x1b[31m' not in codes and '\x07' not in text


# ------------------------------------------------------------------------- HTML


class Page(html.parser.HTMLParser):
  """Collects tokens, resources and tags of a page."""

  def __init__(self, page):
    super().__init__()
    self.tokens, self.tags, self.links, self.ids = [], [], [], []
    self._inside = 0
    self.feed(page)

  def handle_starttag(self, tag, attributes):
    attributes = dict(attributes)
    self.tags.append(tag)
    self.ids.append(attributes.get('id'))
    self.links += [attributes[k] for k in ('src', 'href') if k in attributes]
    if 'data-weights' in attributes:
      self.tokens.append(attributes | {'text': ''})
      self._inside = 1
    elif self._inside:
      self._inside += 1

  def handle_endtag(self, tag):
    self._inside -= bool(self._inside)

  def handle_data(self, text):
    if self._inside:
      self.tokens[-1]['text'] += text


def page_of(shown, objective='interventional'):
  return Page(viewer_html.page(shown, objective).decode())


def test_every_token_is_in_the_page_once_and_in_order():
  tokens = page_of(show()).tokens
  assert [token['text'] for token in tokens] == [
    escapes.visible(text) for text, *_ in TOKENS
  ]


def test_the_weights_in_the_page_are_the_given_ones():
  shown = show()
  shown.weights['weighted(0.3)'][9] = np.float32(1) / 3
  found = [
    [np.float32(weight) for weight in token['data-weights'].split()]
    for token in page_of(shown).tokens
  ]
  np.testing.assert_array_equal(
    np.array(found).T, np.stack(list(shown.weights.values()))
  )


@pytest.mark.parametrize('objective', NAMES)
def test_the_page_opens_with_the_objective_it_was_asked_for(objective):
  shown = show()
  found = page_of(shown, objective).tokens
  for token, weight in zip(found, shown.weights[objective], strict=True):
    assert ('scored' in token['class'].split()) == (weight > 0)
    assert token['style'] == f'--weight:{weight:g}'
    assert token['title'] == f'{token["data-about"]}, weight {weight:g}'
  about = 'token 6, id 16, AGENT, verdict wrong'
  assert found[6]['data-about'] == about


def test_a_letter_marks_where_an_author_begins():
  marks = [token.get('data-mark', ' ') for token in page_of(show()).tokens]
  #                         cuser-turn  agent tool
  assert ''.join(marks) == 'ctu tta o   '


def test_the_page_escapes_what_it_shows():
  name = '</title><script>alert(1)</script>'
  table = {name: np.ones((len(Provenance), len(Verdict)))}
  shown = viewer.dialogue(example(id=name), lambda ids: name, table)
  page = page_of(shown, name)
  assert page.tags.count('script') == 1  # the viewer's own
  assert {token['text'] for token in page.tokens} == {name}


def test_text_in_square_brackets_is_no_markup_of_the_terminal():
  """rich would take [red]x[/] for a style, :smile: for a picture."""
  text = '[red]x[/]:smile:'
  shown = viewer.dialogue(
    example(id=text), lambda ids: text, {'x': np.ones((8, 3))}
  )
  for found in (
    viewer_terminal.plain(shown, 'x'),
    without_codes(viewer_terminal.colored(shown, 'x')),
  ):
    assert found.count(text) == 1 + len(TOKENS)


def test_half_a_character_can_be_written():
  shown = viewer.dialogue(
    example(), lambda ids: '\ud83d', {'x': np.ones((8, 3))}
  )
  assert b'\\ud83d' in viewer_html.page(shown, 'x')


def test_links_stay_inside_the_page():
  page = page_of(show())
  assert page.links == [f'#d0-turn{n}' for n in range(4)]
  assert {link[1:] for link in page.links} <= set(page.ids)


def test_two_viewers_share_no_id():
  parts = [viewer_html.fragment(show(), NAMES[0], p) for p in ('d0', 'd1')]
  ids = [i for part in parts for i in Page(part).ids if i]
  assert len(ids) == len(set(ids)) == 10


def test_counts_of_every_objective():
  text = viewer_html.page(show(), NAMES[0]).decode()
  rows = re.findall(r'<tr><th scope="row">(.*?)</tr>', text, re.S)
  cells = [re.sub('<[^>]*>', ' ', row).split() for row in rows]
  assert cells[-2:] == [
    ['a', 'agent', '2', '2', '0', '0', '2', '(weight', '0.6)'],
    ['total', '12', '11', '9', '9', '11', '(weight', '9.6)'],
  ]


def test_an_example_without_tokens_is_shown_too():
  empty = {
    name: np.zeros(0, np.int32)
    for name in ('tokens_T', 'provenance_T', 'segment_T', 'verdict_T')
  }
  shown = viewer.dialogue(example(**empty), str, {'x': np.ones((8, 3))})
  assert 'total' in viewer_terminal.plain(shown, 'x')
  assert 'total' in viewer_terminal.colored(shown, 'x')
  assert page_of(shown, 'x').tokens == []


def test_a_very_long_dialogue_is_cut_and_says_so(monkeypatch):
  """The counts stay those of all tokens."""
  whole = show()
  monkeypatch.setattr(viewer, 'MOST_TOKENS', 3)
  part = show()
  line = 'The first 3 of 12 tokens are shown. The counts are of all.'
  cut = viewer_html.page(part, 'interventional').decode()
  assert cut.count('class="token ') == 3
  assert cut.count('class="turn ') == 2
  assert line in cut
  uncut = viewer_html.page(whole, 'interventional').decode()
  assert uncut.count('class="token ') == 12 and 'are shown.' not in uncut
  tables = [page.partition('<table')[2] for page in (cut, uncut)]
  assert tables[0] == tables[1] != ''
  # The same in a terminal, and in a pipe.
  for text_of in viewer_terminal.plain, viewer_terminal.colored:
    texts = [text_of(shown, 'interventional') for shown in (part, whole)]
    assert [line in text for text in texts] == [True, False]
    assert len(texts[0]) < len(texts[1])
    titles, counts = zip(
      *((t.splitlines()[0], t.rpartition('author')[2]) for t in texts),
      strict=True,
    )
    assert titles[0] == titles[1] and '12 tokens' in titles[0]
    assert counts[0] == counts[1]


def test_the_work_for_a_very_long_dialogue_is_bounded():
  """200,000 tokens in 10,000 turns."""
  T, asked = 200_000, []
  tokens = {
    'tokens_T': np.zeros(T, np.int32),
    'provenance_T': np.tile(np.uint8([USER, AGENT]), T // 2),
    'segment_T': np.arange(T, dtype=np.int32) // 20,
    'verdict_T': np.zeros(T, np.uint8),
  }
  shown = viewer.dialogue(
    example(**tokens),
    lambda ids: asked.append(ids) or 'x',
    {name: weight_table(name) for name in NAMES},
  )
  assert len(asked) == viewer.MOST_TOKENS
  line = 'The first 20,000 of 200,000 tokens are shown.'
  for text in (
    viewer_html.page(shown, 'interventional').decode(),
    viewer_terminal.plain(shown, 'interventional'),
    viewer_terminal.colored(shown, 'interventional'),
  ):
    assert line in text
    assert len(text) < 20_000_000
