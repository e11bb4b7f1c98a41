"""Splits long trajectories into windows that score every token exactly once.

tokens      0 1 2 3 4 5 6 7 8 9      max_length 6, overlap 2
window 0    # # # # # #
window 1            . . # # # #      . context only, before scored_from
"""

import dataclasses

from isft_jax.types import Example


def check(max_length: int, overlap: int) -> None:
  """Checks that every window has both context and new tokens.

  Args:
    max_length: maximum number of tokens per window.
    overlap: minimum number of context tokens per window after the first.

  Raises:
    ValueError: `overlap` is not in the range 1 to `max_length` - 1.
  """
  if not 0 < overlap < max_length:
    raise ValueError(
      f'--overlap={overlap} must be at least 1, and less than '
      f'--max_length={max_length}'
    )


def split(example: Example, max_length: int, overlap: int) -> list[Example]:
  """Splits an example into windows of at most `max_length` tokens.

  Every token is scored in exactly one window. It has at least `overlap` tokens
  of context there, or all earlier tokens if there are fewer. The last window is
  as long as the others, so that it has more context.

  Args:
    example: a rendered trajectory. Its tokens before `scored_from` are context
      in all windows.
    max_length: maximum number of tokens per window.
    overlap: minimum number of context tokens per window after the first.

  Returns:
    The windows, in order. Their numbers begin with the example's.

  Raises:
    ValueError: `overlap` is out of range; see `check`.
  """
  check(max_length, overlap)
  total = len(example.tokens_T)
  windows: list[Example] = []
  # Tokens that the windows so far cover, or that are only context.
  done = example.scored_from
  while not windows or done < total:
    start = max(0, min(done - overlap, total - max_length))
    # The last window begins early enough to have full length.
    stop = min(start + max_length, total)
    window = slice(start, stop)
    # All columns are cut alike. Only tokens from `done` on are scored.
    windows.append(
      dataclasses.replace(
        example,
        tokens_T=example.tokens_T[window],
        provenance_T=example.provenance_T[window],
        segment_T=example.segment_T[window],
        verdict_T=example.verdict_T[window],
        scored_from=done - start,
        window=example.window + len(windows),
      )
    )
    done = stop
  return windows
