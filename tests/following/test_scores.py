"""Loss of each transcript by author, against one transcript at a time."""

import itertools

import numpy as np
import pytest

from isft_jax.data.preparation import windows
from isft_jax.data.records import dataset
from isft_jax.following import scores
from isft_jax.following.setup import Setup
from isft_jax.types import Provenance
from tests.dialogues import dialogues, plain_renderer
from tests.following import folders


@pytest.mark.parametrize('targets_per_row', [0, 32])
def test_each_transcript_is_scored_once(targets_per_row, data_folder, tmp_path):
  config = folders.config(
    data_folder, targets_per_row=targets_per_row, seq_len=128
  )
  setup = Setup(config, 'in')
  params = setup.start().params
  renderer = plain_renderer()
  examples = [renderer.example(each) for each in dialogues()[:9]]
  # Each transcript as windows, as long ones are.
  cut = [windows.split(each, 100, 25) for each in examples]
  assert {*map(len, cut)} > {1}
  records = dataset.write(
    str(tmp_path), lambda: itertools.chain(*cut), renderer.metadata()
  )
  measured = scores.measure_transcripts(
    setup.trainer, params, records, setup.config, [*map(len, cut)]
  )
  for sums, windowed in zip(measured, cut, strict=True):
    expected = np.zeros((len(Provenance), 2))
    for window in windowed:
      for author, nll in folders.losses(setup.trainer.graphdef, params, window):
        if author != Provenance.CONTEXT:
          expected[author] += nll, 1
    assert np.array_equal(sums.count_P, expected[:, 1])
    # float32 logits, summed over about 50 targets.
    np.testing.assert_allclose(sums.total_P, expected[:, 0], rtol=1e-5)
  # Windows overlap, and no target is counted twice.
  assert sum(sums.count_P.sum() for sums in measured) == sum(
    (each.provenance_T[1:] != Provenance.CONTEXT).sum() for each in examples
  )


def test_authors_by_name():
  zeros = np.zeros(len(Provenance))
  sums = scores.Sums(zeros.copy(), zeros.copy())
  sums.total_P[Provenance.USER], sums.count_P[Provenance.USER] = 1.5, 2
  assert sums.named() == {'USER': [1.5, 2]}
