"""What is accepted, and the measures that decide."""

import math

import numpy as np
import pytest

from isft_jax.data.records.dataset import Records
from isft_jax.following import gate
from isft_jax.following.setup import Setup
from isft_jax.types import Provenance
from tests.following import folders


def of(loss=None, margin=None):
  measured = {} if loss is None else {'heldout_loss': loss}
  if margin is not None:
    measured['probe'] = {'mean_margin': margin, 'prefers_lie': 0.5}
  return measured


ROSE = 'the held-out loss is {}, {} above the lowest so far; the limit is 0.5'
FELL = 'the mean margin is {}, {} below the highest so far; the limit is 0.25'


@pytest.mark.parametrize(
  'after, before, reason',
  [
    # Numbers are exact in binary: limits are inclusive.
    (of(2.5), [of(2.0)], ''),
    (of(2.5625), [of(2.0)], ROSE.format('2.5625', '0.5625')),
    # Small rises do not add up: the lowest counts.
    (of(2.75), [of(2.0), of(2.5)], ROSE.format('2.7500', '0.7500')),
    (of(1.0, 0.75), [of(2.0, 1.0)], ''),
    (of(1.0, 0.5), [of(2.0, 1.0)], FELL.format('0.5000', '0.5000')),
    (of(None, 0.75), [of(None, 1.0)], ''),
    (of(math.nan), [of(2.0)], ROSE.format('nan', 'nan')),
    (of(None, math.nan), [of(None, 1.0)], FELL.format('nan', 'nan')),
    (of(-math.inf), [of(2.0)], 'a measure is not finite'),
    ({}, [{}], ''),
  ],
)
def test_what_is_accepted(after, before, reason):
  assert gate.objection(after, before, rise=0.5, fall=0.25) == reason


def test_measures_of_heldout_records_are_those_of_single_records(data_folder):
  config = folders.config(data_folder, seed=3)
  setup = Setup(config, 'in')
  params = setup.start().params
  asked = []

  def probe(graphdef, params):
    asked.append(graphdef)
    return {'mean_margin': 0.5}

  measured = gate.measure(setup.trainer, params, setup.heldout(), probe)
  assert asked == [setup.trainer.graphdef]
  assert measured['probe'] == {'mean_margin': 0.5}
  # Against one record at a time, in float64.
  records = Records(config.heldout)
  sums = np.zeros((len(Provenance), 2))
  for number in range(len(records)):
    for author, nll in folders.losses(
      setup.trainer.graphdef, params, records[number]
    ):
      sums[author] += nll, 1
  expected = {
    author.name: sums[author, 0] / sums[author, 1]
    for author in Provenance
    if sums[author, 1] and author != Provenance.CONTEXT
  }
  # float32 logits.
  assert measured['heldout_nll_by_author'] == pytest.approx(expected, rel=1e-5)
  world = [a for a in Provenance if a.name in ('TEMPLATE', 'USER')]
  total, count = sums[world].sum(axis=0)
  assert measured['heldout_loss'] == pytest.approx(total / count, rel=1e-5)


def test_nothing_to_measure(data_folder):
  setup = Setup(folders.config(data_folder), 'in')
  assert gate.measure(setup.trainer, {}, None, None) == {}
