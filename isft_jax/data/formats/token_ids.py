"""Format of token ids with authors, for rollouts that need no rendering.

    {"tokens":     [1, 5, 7, 9],
     "provenance": ["context", "user", "agent", "agent"],
     "segment":    [0, 1, 2, 2],
     "verdict":    [0, 0, 2, 2]}

`segment` and `verdict` are optional. A `transcript`, the messages for people to
read, is not used.

Other formats with token ids return a `TokenChat`: the turns of a row, and the
ids in pieces of one author. The ids of the row are never changed.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeGuard

import numpy as np

from isft_jax.data.messages.annotations import PROVENANCES, VERDICTS
from isft_jax.data.messages.conversation import Chat, Malformed, Turn, kind
from isft_jax.types import (
  STRADDLE_ORDER,
  Example,
  Provenance,
  Trajectory,
  Verdict,
)

WANTS = 'tokens and provenance: two lists of one length'
# Keys of a row.
USES = frozenset(('tokens', 'provenance', 'segment', 'verdict', 'transcript'))
_LARGEST = np.iinfo(np.int32).max  # records store ids as int32


class Piece(NamedTuple):
  """Tokens of one author, which follow each other.

  Attributes:
    ids: the tokens.
    turns: indices of the turns that the tokens belong to. Their authors decide
      the author: of several, the first in `STRADDLE_ORDER`.
    author: if it is known and no turn decides it; otherwise None.
    mixed: author if the turns have several; None: as above.
  """

  ids: list[int]
  turns: tuple[int, ...]
  author: Provenance | None = None
  mixed: Provenance | None = None


class TokenChat(NamedTuple):
  """A row whose tokens are given."""

  chat: Chat  # its turns have authors; their texts are not rendered
  pieces: list[Piece]


class Sample(NamedTuple):
  """One call of the model.

  Attributes:
    where: name of the call, for messages.
    prompt: all tokens before the completion, from the beginning.
    completion: its tokens: (ids, indices of the turns that wrote them).
    before: indices of the turns between the last completion and this one.
  """

  where: str
  prompt: list[int]
  completion: list[tuple[list[int], tuple[int, ...]]]
  before: tuple[int, ...]


def matches(value: object) -> TypeGuard[Mapping]:
  """Returns whether a row has this format."""
  return isinstance(value, dict) and {'tokens', 'provenance'} <= value.keys()


def read(value: object, id: str) -> Example:
  """Reads a row.

  Args:
    value: the JSON value of the row.
    id: id of the example.

  Raises:
    Malformed: the row does not follow the format.
  """
  # Ids.
  if not matches(value):
    raise Malformed(f'expected {WANTS}')
  tokens = _integers(value, 'tokens')
  n = len(tokens)
  if n < 2:
    raise Malformed(f'{n} tokens, expected 2 or more: the first is no target')

  # Authors.
  provenance = _codes(value, 'provenance', PROVENANCES)
  if Provenance.PAD in provenance:
    position = provenance.index(Provenance.PAD)
    raise Malformed(
      f'provenance {position} is PAD, which a stored token cannot have'
    )

  # Optional columns. By default a turn is a run of one author.
  segment = (
    _runs(provenance)
    if value.get('segment') is None
    else _integers(value, 'segment')
  )
  verdict = (
    [Verdict.UNKNOWN] * n
    if value.get('verdict') is None
    else _codes(value, 'verdict', VERDICTS)
  )
  # All columns must have a value for each token.
  columns = {'provenance': provenance, 'segment': segment, 'verdict': verdict}
  for key, column in columns.items():
    if len(column) != n:
      raise Malformed(f'{n} tokens, but {len(column)} of {key}')
  return Example(
    id,
    np.array(tokens, np.int32),
    np.array(provenance, np.uint8),
    np.array(segment, np.int32),
    np.array(verdict, np.uint8),
  )


def stand_in(role: str) -> Turn:
  """Returns a turn without text, for tokens of which only the role is known."""
  message = {'role': role, 'content': ''}
  return Turn(message, None, message)


def check_ids(value: object, where: str) -> list[int]:
  """Returns a list of token ids.

  Args:
    value: a JSON value.
    where: its name, for messages.

  Raises:
    Malformed: it is not a list of integers from 0 to the largest int32.
  """
  if not isinstance(value, list):
    raise Malformed(f'{where} is {kind(value)}, expected a list')
  # `type(x)` excludes booleans, which isinstance counts as int.
  for i, x in enumerate(value):
    if type(x) is not int or not 0 <= x <= _LARGEST:
      raise Malformed(f'{where} {i} is {kind(x)}, expected 0 to {_LARGEST}')
  return value


def join(samples: Sequence[Sample], has_tools: bool = False) -> list[Piece]:
  """Joins the calls of a run into pieces.

        prompt of call 1   completion 1   new in prompt 2   completion 2
        the author of its  author of the  authors of the    author of the
        turns, if it is    agent's turn   turns between     agent's turn
        one; else CONTEXT

  The row does not say which token of a prompt is whose. So a first prompt with
  turns of several authors, or with tools, is context, which no objective
  scores. New tokens without a turn between are the template's.

  Args:
    samples: the calls, in order.
    has_tools: whether the first prompt has schemas of tools.

  Raises:
    Malformed: the prompt of a call does not begin with all tokens before it.
  """
  # All tokens so far, and the pieces that they consist of.
  tokens: list[int] = []
  pieces: list[Piece] = []
  for sample in samples:
    n = len(tokens)
    # Each prompt must begin with all tokens before it.
    if sample.prompt[:n] != tokens:
      # The first token that differs, or the end of a shorter prompt.
      pairs = zip(sample.prompt, tokens, strict=False)
      same = [a == b for a, b in pairs]
      at = same.index(False) if False in same else len(same)
      raise Malformed(
        f'{sample.where}: token {at} of its prompt is not token {at} of the '
        'tokens before: its history was rewritten, so that the run is not one '
        'sequence; make each call a row of its own'
      )
    # Author of the prompt's new tokens; None takes that of their turns.
    new, author = sample.prompt[n:], None
    mixed = None if pieces else Provenance.CONTEXT
    if not pieces and (has_tools or not sample.before):
      author = Provenance.CONTEXT
    elif not sample.before:
      author = Provenance.TEMPLATE
    pieces.append(Piece(new, sample.before, author, mixed))
    tokens = [*sample.prompt]
    for ids, turns in sample.completion:
      pieces.append(Piece(ids, turns))
      tokens += ids
  return pieces


def pieces_from_mask(
  tokens: list[int], sampled: Sequence[bool]
) -> tuple[list[Piece], list[Turn]]:
  """Returns the pieces of tokens of which only the sampled ones are known.

  Args:
    tokens: the tokens.
    sampled: for each token, whether the model sampled it.

  Returns:
    Pieces, and a turn without text for each. Tokens before the first that was
    sampled are context (role system), and later ones that were not sampled are
    the environment's.
  """
  pieces: list[Piece] = []
  turns: list[Turn] = []
  start = 0
  for is_sampled, group in itertools.groupby(sampled):
    end = start + len([*group])
    # Tokens before the first sampled one are the prompt.
    before = 'environment' if pieces else 'system'
    pieces.append(Piece(tokens[start:end], (len(turns),)))
    turns.append(stand_in('assistant' if is_sampled else before))
    start = end
  return pieces, turns


def example(id: str, row: TokenChat, trajectory: Trajectory) -> Example:
  """Returns the example of a row whose tokens are given.

  Args:
    id: id of the example.
    row: the row.
    trajectory: the same turns, with the authors that annotations and rules
      decide.

  Raises:
    Malformed: there are fewer than two tokens, or a turn has spans.
  """
  for i, segment in enumerate(trajectory.segments):
    if segment.parts:
      raise Malformed(
        f'turn {i}: spans count characters; the row has token ids'
      )
  tokens: list[int] = []
  columns: list[tuple[int, int, int]] = []  # provenance, segment, verdict
  last, number = None, -1
  for ids, turns, author, mixed in row.pieces:
    if not ids:
      continue
    # A turn is a run of pieces with the same turns.
    number += turns != last
    last = turns
    # Author and verdict of the piece's turns, unless the piece has its own.
    verdict = Verdict.UNKNOWN
    if author is None:
      of_turns = {trajectory.segments[i].provenance: i for i in turns}
      author = next(a for a in STRADDLE_ORDER if a in of_turns)
      if mixed is not None and len(of_turns) > 1:
        author = mixed
      else:
        verdict = trajectory.segments[of_turns[author]].verdict
    tokens += ids
    columns += [(author, number, verdict)] * len(ids)
  if len(tokens) < 2:
    raise Malformed(
      f'{len(tokens)} tokens, expected 2 or more: the first is no target'
    )
  provenances, numbers, verdicts = zip(*columns, strict=True)
  return Example(
    id,
    np.array(tokens, np.int32),
    np.array(provenances, np.uint8),
    np.array(numbers, np.int32),
    np.array(verdicts, np.uint8),
  )


def _list(row: Mapping, key: str) -> list:
  """Returns a column of the row."""
  if not isinstance(row[key], list):
    raise Malformed(f'{key} is {kind(row[key])}, expected a list')
  return row[key]


def _integers(row: Mapping, key: str) -> list[int]:
  """Returns a column of integers from 0 to the largest int32."""
  return check_ids(row[key], key)


def _codes(row: Mapping, key: str, members: Mapping[str, int]) -> list[int]:
  """Returns a column of codes or names as codes."""
  known = {*members.values()}
  codes = []
  for i, x in enumerate(_list(row, key)):
    # Names are accepted in upper or lower case.
    code = members.get(x.upper()) if isinstance(x, str) else x
    # `type(x)` excludes booleans, and floats that equal a code.
    if type(x) not in (int, str) or code not in known:
      raise Malformed(f'{key} {i}: expected one of {", ".join(members)}')
    codes.append(int(code))
  return codes


def _runs(codes: list[int]) -> list[int]:
  """Returns the index of the run of equal codes: 3 3 4 3 gives 0 0 1 2."""
  # A new run begins where neighbours differ.
  changed = np.diff(np.array(codes)) != 0
  return [0, *np.cumsum(changed).tolist()]
