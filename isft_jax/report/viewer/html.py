"""A dialogue as HTML: who wrote each token, objectives one click away.

`fragment` goes into a page of one's own, `page` is a whole one. Every token is
one `<span class="token">` whose text is the token's, and whose `data-weights`
are its weights in the order of the buttons.
"""

from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape

from isft_jax.report import document
from isft_jax.report.escapes import visible, visible_line
from isft_jax.report.viewer.shown import (
  MARKS,
  Dialogue,
  Turn,
  author_counts,
  exact,
  turns,
)
from isft_jax.types import Provenance, Verdict

_VERDICTS = {Verdict.RIGHT: ' ✓ right', Verdict.WRONG: ' ✗ wrong'}


class _Author(NamedTuple):
  """An author as the template shows it: name in small letters, and letter."""

  name: str
  mark: str


class _Token(NamedTuple):
  """A token; mark: its author's letter, where an author begins."""

  author: str
  mark: str
  about: str
  weight: str
  weights: str
  is_scored: bool
  text: Markup


def page(shown: Dialogue, objective: str) -> bytes:
  """Returns a page of its own for one dialogue, in UTF-8."""
  viewer = fragment(shown, objective, 'd0')
  title = visible_line(shown.example.id)
  return document.page('viewer/page.html.j2', title, viewer=viewer)


def fragment(shown: Dialogue, objective: str, prefix: str) -> Markup:
  """Returns the viewer of one dialogue, for a page of `document.page`.

  Args:
    shown: the dialogue.
    objective: the one that is shown first.
    prefix: of the ids inside; two viewers in a page need two.
  """
  first = list(shown.weights).index(objective)
  template = document.environment().get_template('viewer/viewer.html.j2')
  return Markup(
    template.render(
      prefix=prefix,
      objectives=list(shown.weights),
      first=first,
      turns=[
        (turn, _author(turn.author), _VERDICTS.get(turn.verdict, ''))
        for turn in turns(shown.example)
      ],
      tokens_of=lambda turn: _tokens(shown, turn, first),
      counts=_counts(shown),
      total=_total(shown),
    )
  )


def _author(author: Provenance) -> _Author:
  return _Author(author.name.lower(), MARKS[author])


def _tokens(shown: Dialogue, turn: Turn, first: int) -> list[_Token]:
  example = shown.example
  tokens = []
  for i in range(turn.start, turn.stop):
    author = Provenance(int(example.provenance_T[i]))
    verdict = Verdict(int(example.verdict_T[i])).name.lower()
    begins = i == turn.start or example.provenance_T[i - 1] != author
    weights = [exact(weights_T[i]) for weights_T in shown.weights.values()]
    tokens.append(
      _Token(
        author=author.name.lower(),
        mark=MARKS[author] if begins else '',
        about=f'token {i}, id {example.tokens_T[i]}, {author.name}, '
        f'verdict {verdict}',
        weight=weights[first],
        weights=' '.join(weights),
        is_scored=float(weights[first]) > 0,
        # An element of its own makes a space visible, and leaves it a space.
        text=escape(visible(shown.texts[i])).replace(' ', Markup('<i> </i>')),
      )
    )
  return tokens


def _counts(shown: Dialogue) -> list[tuple[_Author, str, list[str]]]:
  """Returns author, tokens, and how many of them each objective scores."""
  return [
    (
      _author(count.author),
      f'{count.tokens:,}',
      [_scored(count.scored[k], count.weight[k]) for k in shown.weights],
    )
    for count in author_counts(shown)
  ]


def _total(shown: Dialogue) -> tuple[str, list[str]]:
  return f'{len(shown.texts):,}', [
    _scored(int((weights_T > 0).sum()), float(np.sum(weights_T)))
    for weights_T in shown.weights.values()
  ]


def _scored(tokens: int, weight: float) -> str:
  text = f'{tokens:,}'
  return text if weight == tokens else f'{text} (weight {weight:g})'
