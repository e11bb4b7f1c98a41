"""Columns of prompts: buckets, and what all of them begin with."""

import numpy as np
import pytest

from isft_jax.inference import prompts


@pytest.mark.parametrize(
  ('length', 'expected'),
  [
    *((1, 8), (8, 8), (9, 16), (24, 24), (64, 64), (65, 80), (128, 128)),
    *((129, 160), (256, 256), (257, 320), (1000, 1024), (1025, 1280)),
  ],
)
def test_buckets(length, expected):
  assert prompts.bucket(length) == expected
  assert prompts.bucket(expected) == expected


@pytest.mark.parametrize(
  ('texts', 'expected'),
  [
    # 11 tokens in 16 columns; 8 for the three that differ.
    (['aaaaaaaabcd', 'aaaaaaaaef'], 8),
    (['aaaaaaaaef', 'aaaaaaaabcd'], 8),
    # The last token of each prompt is read in its row, equal or not.
    (['aaaaaaaaaaaa'] * 2, 8),
    (['aaaaaaaa', 'aaaaaaaaaaaa'], 8),
    # The short prompt is one token, which is read in its row.
    (['a', 'aaaaaaaaaaaa'], 0),
    # Too few: 9 tokens less 8 for those that differ.
    (['aaaaaaaab', 'aaaaaaaac'], 0),
    (['baaaaaaaaaaa', 'aaaaaaaaaaaa'], 0),
    (['aaaaaaaaaaaa'], 0),
  ],
)
def test_columns_that_one_row_can_read_for_all(monkeypatch, texts, expected):
  monkeypatch.setattr(prompts, 'FEWEST_SHARED', 3)
  rows = [np.frombuffer(text.encode(), np.uint8) for text in texts]
  assert prompts.shared_columns(rows) == expected


def test_shared_columns_have_only_padding_and_the_text():
  """For any lengths, each row has a part of one text in these columns."""
  dice = np.random.default_rng(0)
  found = set()
  for _ in range(200):
    text_T = dice.integers(5, 9, dice.integers(60, 300))
    rows = [
      np.append(text_T, dice.integers(0, 9, dice.integers(1, 90)))
      for _ in range(dice.integers(2, 5))
    ]
    columns = prompts.shared_columns(rows)
    found.add(columns > 0)
    tokens_BL, start_B = prompts.pad(rows, 9)
    rest = tokens_BL.shape[1] - columns
    assert prompts.bucket(rest) == rest
    longest = rows[start_B.argmin()]
    for row_L, start in zip(tokens_BL, start_B, strict=True):
      kept_L = row_L[start:columns]
      assert kept_L.tolist() == longest[: len(kept_L)].tolist()
  assert found == {True, False}
