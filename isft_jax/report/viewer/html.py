"""HTML viewer of a dialogue: authors of tokens, a button per objective.

`page` returns a complete page, `fragment` a viewer for another page. Every
token is one `<span class="token">` with the text of the token. Its attribute
`data-weights` has its weights in the order of the buttons.
"""

import numpy as np
from markupsafe import Markup, escape

from isft_jax.report import document
from isft_jax.report.escapes import visible, visible_line
from isft_jax.report.viewer.shown import (
  MARKS,
  Dialogue,
  author_counts,
  exact,
  turns,
)
from isft_jax.types import Provenance, Verdict

# Verdict on a turn -> words after the name of its author.
_VERDICTS = {
  Verdict.UNKNOWN: '',
  Verdict.RIGHT: ' ✓ right',
  Verdict.WRONG: ' ✗ wrong',
}


def page(shown: Dialogue, objective: str) -> bytes:
  """Returns a complete page for one dialogue, in UTF-8."""
  viewer = fragment(shown, objective, 'd0')
  title = visible_line(shown.example.id)
  return document.page('viewer/page.html.j2', title, viewer=viewer)


def fragment(shown: Dialogue, objective: str, prefix: str) -> Markup:
  """Returns the viewer of one dialogue, for a page from `document.page`.

  Args:
    shown: the dialogue.
    objective: the objective that is selected at first.
    prefix: prefix of the ids inside, different for each viewer of a page.
  """
  template = document.environment().get_template('viewer/viewer.html.j2')
  # Scored tokens by author and in total, for every objective. The counts are
  # of all tokens, also of those that are not shown.
  counts = [
    (
      count.author,
      f'{count.tokens:,}',
      [_scored(count.scored[k], count.weight[k]) for k in shown.weights],
    )
    for count in author_counts(shown)
  ]
  # Sums in numpy, because weights need not be 0 or 1.
  totals = [
    _scored(int((weights_T > 0).sum()), float(np.sum(weights_T)))
    for weights_T in shown.weights.values()
  ]
  return Markup(
    template.render(
      prefix=prefix,
      objectives=list(shown.weights),
      objective=objective,
      marks=MARKS,
      verdicts=_VERDICTS,
      turns=turns(shown.example, len(shown.texts)),
      tokens=_tokens(shown, objective),
      counts=counts,
      total=f'{shown.tokens:,}',
      cut=shown.cut,
      totals=totals,
    )
  )


def _tokens(shown: Dialogue, objective: str) -> list[dict]:
  """Returns the values of each token for the template."""
  example = shown.example
  starts = {turn.start for turn in turns(example, len(shown.texts))}
  tokens = []
  for i, text in enumerate(shown.texts):
    author = Provenance(int(example.provenance_T[i]))
    verdict = Verdict(int(example.verdict_T[i])).name.lower()
    tokens.append(
      {
        'author': author,
        # A token gets its author's letter where a turn or an author begins.
        'begins': i in starts or example.provenance_T[i - 1] != author,
        'about': f'token {i}, id {example.tokens_T[i]}, {author.name}, '
        f'verdict {verdict}',
        'scored': shown.weights[objective][i] > 0,
        'weight': exact(shown.weights[objective][i]),
        'weights': ' '.join(exact(w_T[i]) for w_T in shown.weights.values()),
        # Style sheets make <i> visible, and copied text still has a space.
        'text': escape(visible(text)).replace(' ', Markup('<i> </i>')),
      }
    )
  return tokens


def _scored(tokens: int, weight: float) -> str:
  text = f'{tokens:,}'
  return text if weight == tokens else f'{text} (weight {weight:g})'
