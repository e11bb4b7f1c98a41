"""Long trajectories as windows: nothing is cut off, nothing is scored twice.

tokens      0 1 2 3 4 5 6 7 8 9      max_length 6, overlap 2
window 0    # # # # # #
window 1            . . # # # #      . context only, before scored_from
"""

import dataclasses

from isft_jax.types import Example


def check(max_length: int, overlap: int) -> None:
  """Raises ValueError unless every window has context and something new."""
  if not 0 < overlap < max_length:
    raise ValueError(
      f'--overlap={overlap} must be at least 1, and less than '
      f'--max_length={max_length}'
    )


def split(example: Example, max_length: int, overlap: int) -> list[Example]:
  """Splits an example into windows of at most max_length tokens.

  Every token is scored in one window, after at least `overlap` tokens of
  context, or all that there are. The last window starts as early as it may:
  more context, for the same tokens.
  """
  check(max_length, overlap)
  total = len(example.tokens_T)
  windows: list[Example] = []
  done = 0
  while not windows or done < total:
    start = max(0, min(done - overlap, total - max_length))
    stop = min(start + max_length, total)
    part = slice(start, stop)
    windows.append(
      dataclasses.replace(
        example,
        tokens_T=example.tokens_T[part],
        provenance_T=example.provenance_T[part],
        segment_T=example.segment_T[part],
        verdict_T=example.verdict_T[part],
        scored_from=done - start,
        window=len(windows),
      )
    )
    done = stop
  return windows
