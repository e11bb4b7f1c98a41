"""Aligns two token sequences of the same conversation.

Other trainers often render a conversation with another template. An alignment
pairs the tokens that both renderings have:

    ours    <|im_start|> user \\n Hi <|im_end|>
    theirs  <|im_start|> user \\n Hi <|im_end|> \\n <think>
"""

import difflib
import itertools
from collections.abc import Callable, Hashable, Sequence

import numpy as np

# Pairs of tokens that a block may have for an alignment token by token, which
# takes seconds for more. Larger blocks share no line, and are not aligned.
_MOST_PAIRS = 4_000_000


def align(
  ours: Sequence[int], theirs: Sequence[int], decode: Callable[[int], str]
) -> np.ndarray:
  """Aligns two sequences of ids.

  Equal lines are paired first, and then equal tokens between them, so that long
  conversations take a fraction of a second.

  Args:
    ours: the ids of our rendering.
    theirs: the ids of another rendering.
    decode: id -> text; lines end at tokens that hold a line break.

  Returns:
    int [A, 2]: for each token of either sequence, its index in `ours` and in
    `theirs`; -1 if that sequence does not have it. Both columns ascend.
  """
  # Equal sequences need no search.
  if list(ours) == list(theirs):
    return np.stack([np.arange(len(ours))] * 2, axis=1)
  pairs: list[tuple[int, int]] = []
  lines_of = [_lines(ids, decode) for ids in (ours, theirs)]
  # Offsets of lines, which map numbers of lines to indices of tokens.
  bounds = [
    [0, *itertools.accumulate(len(line) for line in lines)]
    for lines in lines_of
  ]
  for tag, a, b, c, d in _blocks(*lines_of):
    # Lines -> tokens.
    a, b, c, d = bounds[0][a], bounds[0][b], bounds[1][c], bounds[1][d]
    if tag == 'equal':
      pairs += zip(range(a, b), range(c, d), strict=True)
    # Token by token, this block would take too long.
    elif (b - a) * (d - c) > _MOST_PAIRS:
      pairs += _apart(a, b, c, d)
    else:
      # Equal tokens in lines that differ.
      for tag, e, f, g, h in _blocks(ours[a:b], theirs[c:d]):
        if tag == 'equal':
          pairs += zip(range(a + e, a + f), range(c + g, c + h), strict=True)
        else:
          pairs += _apart(a + e, a + f, c + g, c + h)
  return np.array(pairs, int).reshape(-1, 2)


def _lines(
  ids: Sequence[int], decode: Callable[[int], str]
) -> list[tuple[int, ...]]:
  """Splits a sequence of ids after each token with a line break."""
  lines: list[list[int]] = [[]]
  for id in ids:
    lines[-1].append(id)
    if '\n' in decode(id):
      lines.append([])
  return [tuple(line) for line in lines if line]


def _blocks(
  a: Sequence[Hashable], b: Sequence[Hashable]
) -> Sequence[tuple[str, int, int, int, int]]:
  # Without autojunk: it would ignore frequent tokens.
  return difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes()


def _apart(a: int, b: int, c: int, d: int) -> list[tuple[int, int]]:
  """Returns the tokens of a block that has no equal tokens, ours first."""
  return [(i, -1) for i in range(a, b)] + [(-1, j) for j in range(c, d)]
