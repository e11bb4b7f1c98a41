"""A dialogue as HTML: who wrote each token, objectives one click away.

`fragment` goes into a page of one's own, `page` is a whole one. Every token is
one `<span class="token">` whose text is the token's, and whose `data-weights`
are its weights in the order of the buttons.
"""

from html import escape

import numpy as np

from isft_jax.report import document
from isft_jax.report.viewer.shown import (
  MARKS,
  Dialogue,
  author_counts,
  exact,
  turns,
  visible,
)
from isft_jax.types import Provenance, Verdict

_VERDICTS = {Verdict.RIGHT: ' ✓ right', Verdict.WRONG: ' ✗ wrong'}


def page(shown: Dialogue, objective: str) -> bytes:
  """Returns a page of its own for one dialogue, in UTF-8."""
  name = visible(shown.example.id).replace('\n', ' ')
  intro = (
    'Every token by who wrote it. The model reads all of them; an objective '
    'decides which it is trained to predict.'
  )
  body = f'<h1>{escape(name)}</h1>\n<p>{intro}</p>\n'
  return document.page(name, body + fragment(shown, objective, 'd0'))


def fragment(shown: Dialogue, objective: str, prefix: str) -> str:
  """Returns the viewer of one dialogue, for a page of `document.page`.

  objective: the one that is shown first.
  prefix: of the ids inside; two viewers in a page need two.
  """
  first = list(shown.weights).index(objective)
  found = list(enumerate(turns(shown.example)))
  links = ''.join(_turn_link(turn, prefix, n) for n, turn in found)
  tokens = ''.join(_turn(shown, turn, prefix, n, first) for n, turn in found)
  return f"""<section class="viewer" id="{prefix}">
{_objectives(shown, first, prefix)}
{_legend(shown)}
<div class="reader">
<nav aria-label="Turns"><ol>
{links}</ol></nav>
<div>
<output class="detail">Point at a token, tap it, or tab here and use the
arrow keys.</output>
<div class="tokens" tabindex="0" role="group" aria-label="Tokens">
{tokens}
</div>
</div>
</div>
{_counts(shown)}
</section>
"""


def _objectives(shown, first, prefix):
  buttons = ''.join(
    f'<label><input type="radio" name="{prefix}-objective" value="{k}"'
    f'{" checked" if k == first else ""}><span>{escape(name)}</span></label>\n'
    for k, name in enumerate(shown.weights)
  )
  return (
    '<fieldset class="objectives"><legend>Objective</legend>\n'
    f'{buttons}</fieldset>'
  )


def _legend(shown):
  authors = ''.join(
    f'<li class="{_css(count.author)}"><b class="mark">{MARKS[count.author]}'
    f'</b> {count.author.name.lower()}</li>\n'
    for count in author_counts(shown)
  )
  return f"""<ul class="legend">
{authors}<li class="author-template"><span class="sample scored">scored</span>
a target of the loss; the fill is as high as its weight</li>
<li class="author-template"><span class="sample">unscored</span>
in the input only, weight 0</li>
</ul>"""


def _turn_link(turn, prefix, n):
  return (
    f'<li><a class="{_css(turn.author)}" href="#{prefix}-turn{n}">'
    f'<b class="mark">{MARKS[turn.author]}</b> {turn.segment} '
    f'{turn.author.name.lower()}{_VERDICTS.get(turn.verdict, "")} '
    f'<small>{turn.stop - turn.start}&nbsp;tokens</small></a></li>\n'
  )


def _turn(shown, turn, prefix, n, first):
  tokens = ''.join(
    _token(shown, i, i == turn.start, first)
    for i in range(turn.start, turn.stop)
  )
  return (
    f'<div class="turn {_css(turn.author)}" id="{prefix}-turn{n}">'
    f'{tokens}</div>'
  )


def _token(shown, i, starts_turn, first):
  example = shown.example
  author = Provenance(int(example.provenance_T[i]))
  verdict = Verdict(int(example.verdict_T[i])).name.lower()
  weights = [exact(weights_T[i]) for weights_T in shown.weights.values()]
  about = (
    f'token {i}, id {example.tokens_T[i]}, {author.name}, verdict {verdict}'
  )
  classes = ['token', _css(author)]
  if float(weights[first]) > 0:
    classes.append('scored')
  mark = ''
  if starts_turn or example.provenance_T[i - 1] != author:
    mark = f' data-mark="{MARKS[author]}"'
  # An element of its own makes a space visible, and leaves it a space.
  text = escape(visible(shown.texts[i])).replace(' ', '<i> </i>')
  return (
    f'<span class="{" ".join(classes)}" tabindex="-1"{mark}'
    f' style="--weight:{weights[first]}" data-weights="{" ".join(weights)}"'
    f' title="{about}, weight {weights[first]}" data-about="{about}">{text}'
    '</span>'
  )


def _counts(shown):
  counts = author_counts(shown)
  rows = [
    (
      f'<b class="mark {_css(count.author)}">{MARKS[count.author]}</b> '
      f'{count.author.name.lower()}',
      f'{count.tokens:,}',
      *(_scored(count.scored[k], count.weight[k]) for k in shown.weights),
    )
    for count in counts
  ]
  total = [
    _scored(int((weights_T > 0).sum()), float(np.sum(weights_T)))
    for weights_T in shown.weights.values()
  ]
  rows.append(('total', f'{len(shown.texts):,}', *total))
  # A column an objective: how many of the author's tokens it scores.
  header = ('author', 'tokens', *map(escape, shown.weights))
  table = document.table(header, rows, 'Tokens and scored tokens by author')
  return f'<p>Tokens by author, and how many each objective scores:</p>{table}'


def _scored(tokens, weight):
  text = f'{tokens:,}'
  return text if weight == tokens else f'{text} (weight {weight:g})'


def _css(author):
  return f'author-{author.name.lower()}'
