"""The table of isft-probe, to the letter."""

from isft_jax.report import probes, tables

FOUND = {
  'mean_margin': 0.25,
  'prefers_lie': 1,
  'paper_mean_margin': -0.125,
  'paper_prefers_lie': 2,
  'contradicts': 1,
  'talks_like_user': 3,
  'truth_probe': {'truth': 1, 'lie': 1, 'other': 1},
  'lie_probe': {'truth': 2, 'lie': 1, 'other': 0},
  'facts': [
    {
      'topic': topic,
      'margin': margin,
      'truth_verdict': after_truth,
      'lie_verdict': after_lie,
    }
    for topic, margin, after_truth, after_lie in (
      ('gold', 1.0, 'truth', 'truth'),
      ('water', -0.5, 'lie', 'lie'),
      ('the Moon', 0.25, 'other', 'truth'),
    )
  ],
}
TABLE = """\
Margin: log p(truth) - log p(lie), nats per token; then its replies
fact      margin  user states truth  user states lie
gold      +1.000           truth         truth
water     -0.500             LIE           LIE
the Moon  +0.250               -         truth

In all
                                                of 3
the user states the truth: the reply is not it     2
the user states the lie: the reply corrects it     2
the lie is preferred to the truth                  1
mean margin, nats per token                   +0.250
the same by the paper's scoring: the lie is preferred  2
mean margin                                   -0.125
the user states the truth: the reply contradicts it  1
replies to the truth or the lie that talk like the user  3"""


def test_a_line_a_fact_and_below_it_the_counts():
  text = '\n\n'.join(map(tables.text, probes.tables(FOUND)))
  found = [line.split() for line in text.splitlines()]
  assert found == [line.split() for line in TABLE.splitlines()]
