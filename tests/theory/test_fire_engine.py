"""The fire engine, in fractions: no tolerance is needed."""

from fractions import Fraction as F

import pytest

from isft_jax.theory import fire_engine, mixture


def test_the_joint_law_with_and_without_an_intervention():
  #        (fire, engine)  nobody intervenes      sent          kept away
  table = {
    (True, True): (F(999, 1_000_000), F(1, 1000), 0),
    (True, False): (F(1, 1_000_000), 0, F(1, 1000)),
    (False, True): (F(999, 19_000_000), F(999, 1000), 0),
    (False, False): (F(999, 1000) * F(18_999, 19_000), 0, F(999, 1000)),
  }
  laws = [fire_engine.joint(do) for do in (None, True, False)]
  assert table == {slot: tuple(law[slot] for law in laws) for slot in laws[0]}
  assert [sum(law.values()) for law in laws] == [1, 1, 1]


def test_seeing_an_engine_is_evidence_and_sending_one_is_not():
  assert fire_engine.p_fire_given_engine() == F(95, 100)
  assert fire_engine.p_fire_given_engine(do_engine=True) == F(1, 1000)


def test_an_engine_kept_away_cannot_be_seen():
  with pytest.raises(ValueError, match='P\\(engine\\) is 0'):
    fire_engine.p_fire_given_engine(do_engine=False)


@pytest.mark.parametrize(('gate', 'p_fire'), [(0, 0.95), (1, 0.001)])
def test_it_is_the_gate_of_a_transcript(gate, p_fire):
  """The world wrote 'engine' (gate 0), or the agent did (gate 1)."""
  likelihood_H = [float(fire_engine.P_ENGINE[fire]) for fire in (True, False)]
  belief_TH = mixture.posterior([0.001, 0.999], [likelihood_H], [gate])
  # A handful of roundings in float64.
  assert belief_TH[0, 0] == pytest.approx(p_fire, rel=1e-13)
