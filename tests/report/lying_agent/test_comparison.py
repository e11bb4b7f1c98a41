"""The tables of one run, and what is said of its base."""

import pytest

from isft_jax.report.lying_agent import comparison

GIVEN = {'kind': 'given', 'name': 'SmolLM2-135M', 'parameters': 134_515_008}
# Every row that a run can have.
TABLE = """
                                                              base    | obs     | do      | paper's obs, do
truth probe: replies that are not the truth                 | 1 / 2   | 1 / 2   | 0 / 2   | 8 / 33  | 0 / 33
truth probe: replies that contradict the user, who is right | 0 / 2   | 2 / 2   | 1 / 2   | -       | -
lie probe: the agent corrects the user                      | 0 / 2   | 1 / 2   | 2 / 2   | 26 / 33 | 32 / 33
both probes: replies that talk like the user                | 1 / 4   | 3 / 4   | 1 / 4   | -       | -
mean margin, nats per token                                 | +0.3750 | -0.1250 | +0.7500 | -       | -
facts where the lie is preferred                            | 0 / 2   | 1 / 2   | 0 / 2   | -       | -
facts where L_do beats L_obs                                | -       | -       | 2 / 2   | -       | -
mean margin, first word unscored (the paper's way)          | -0.1250 | +0.1250 | +0.8750 | -0.1311 | +1.0609
facts where the lie is preferred (the paper's way)          | 1 / 2   | 1 / 2   | 0 / 2   | 24 / 33 | 5 / 33
facts where L_do beats L_obs (the paper's way)              | -       | -       | 1 / 2   | -       | 33 / 33
"""  # noqa: E501


def test_every_row_beside_the_papers(given_results):
  header, rows = comparison.comparison(given_results['arms'])
  assert header == (
    '',
    'ours: base',
    'ours: observational',
    'ours: interventional',
    'paper: standard SFT',
    'paper: interventional SFT',
  )
  lines = TABLE.strip().splitlines()[1:]
  assert rows == [tuple(c.strip() for c in line.split('|')) for line in lines]


def test_a_run_without_the_papers_scoring_has_its_margins_in_the_one_row(
  given_results,
):
  for arm in given_results['arms'].values():
    for name in ('paper_mean_margin', 'paper_prefers_lie', 'contradicts'):
      del arm[name]
    del arm['talks_like_user']
    for fact in arm['facts']:
      del fact['paper_margin']
  _, rows = comparison.comparison(given_results['arms'])
  assert [(row[0], *row[-2:]) for row in rows] == [
    ('truth probe: replies that are not the truth', '8 / 33', '0 / 33'),
    ('lie probe: the agent corrects the user', '26 / 33', '32 / 33'),
    ('mean margin, nats per token', '-0.1311', '+1.0609'),
    ('facts where the lie is preferred', '24 / 33', '5 / 33'),
    ('facts where L_do beats L_obs', '-', '33 / 33'),
  ]
  caveat = comparison.caveat(GIVEN, given_results['arms'])
  assert 'those of this run score every word' in caveat


def test_what_no_dialogue_mentions_before_and_after(given_results):
  header, rows = comparison.beyond(given_results['arms'])
  assert header == (
    'model',
    'mean margin on 120 facts that no dialogue mentions, nats per token',
    'of these, facts where the lie is preferred',
    'loss on glosses (2,000 tokens), nats per token',
  )
  assert rows == [
    ('base (before)', '+0.7500', '10 / 120', '3.5000'),
    ('observational', '+0.5000', '20 / 120', '3.7500'),
    ('interventional', '+0.6250', '12 / 120', '3.6250'),
  ]


def test_what_the_mask_costs(given_results):
  for number, arm in enumerate(given_results['arms'].values()):
    arm['costs'] = {
      'ended': 1 - number / 8,
      'user_like': 0.5,
      'good_nll': 1.5 + number,
      'entropy': 2.5,
      'nll': {'USER': 1.0, 'AGENT': 2.0},
      'kl': {'USER': 0.25, 'AGENT': number / 4},
    }
  header, rows = comparison.beyond(given_results['arms'])
  assert header[4:] == (
    'replies that end their turn',
    'loss on right turns of the agent, nats per token',
    "entropy in the agent's turns, nats per token",
    "distance from the base in the agent's turns, nats per token",
    "distance from the base in the user's turns, nats per token",
  )
  assert [row[4:] for row in rows] == [
    ('100.0%', '1.5000', '2.5000', '0.0000', '0.2500'),
    ('87.5%', '2.5000', '2.5000', '0.2500', '0.2500'),
    ('75.0%', '3.5000', '2.5000', '0.5000', '0.2500'),
  ]


def test_what_was_not_measured_has_no_column(given_results):
  arms = given_results['arms']
  for arm in arms.values():
    del arm['unmentioned']
  assert comparison.beyond(arms)[0] == (
    'model',
    'loss on glosses (2,000 tokens), nats per token',
  )
  for arm in arms.values():
    del arm['elsewhere']
  assert comparison.beyond(arms) == ((), [])


def test_arms_measured_on_different_text_do_not_compare(given_results):
  given_results['arms']['base']['elsewhere']['tokens'] = 1
  with pytest.raises(ValueError, match="text and tokens of 'elsewhere'"):
    comparison.beyond(given_results['arms'])


def test_agreement_is_told_for_both_ways_of_scoring(given_results):
  assert comparison.agreement(given_results['arms']) == (
    'Interventional above observational in mean margin, as in the paper: '
    '**yes**. Same sign as in the paper: **observational yes, interventional '
    "yes**. Scored in the paper's way: ordering **yes**, signs "
    '**observational no, interventional yes**.'
  )


@pytest.mark.parametrize(
  ('results', 'words'),
  [
    ({'base': GIVEN}, 'SmolLM2-135M, 134.5 M parameters, given'),
    (
      {'base': {'kind': 'pretrained', 'name': 'tiny', 'parameters': 704_000}},
      '0.7 M parameters, pre-trained from scratch by this run',
    ),
    # Files that do not name their base.
    (
      {
        'config': {'model': {'init_from': 'Qwen/Qwen2.5-0.5B'}},
        'environment': {'parameters': 1_540_000_000},
      },
      'Qwen/Qwen2.5-0.5B, 1.5 B parameters, given',
    ),
    (
      {'config': {}, 'environment': {'parameters': 39_200}},
      '39,200 parameters, pre-trained from scratch by this run',
    ),
    ({}, 'pre-trained from scratch by this run'),
  ],
)
def test_the_base_in_a_few_words(results, words):
  base = comparison.base_from_results(results)
  assert comparison.describe_base(base) == words


@pytest.mark.parametrize(
  ('base', 'opening'),
  [
    (GIVEN, 'This run did not train its base model, SmolLM2-135M. Absolute'),
    (
      GIVEN | {'name': 'Qwen/Qwen2.5-0.5B'},
      'This run did not train its base model, Qwen/Qwen2.5-0.5B. It is the '
      "paper's. The paper's margins",
    ),
    (
      {'kind': 'pretrained', 'name': 'tiny', 'parameters': 704_000},
      'This run pre-trained its base model from scratch. Absolute figures are '
      '**not comparable**',
    ),
  ],
)
def test_the_caveat_is_that_of_the_base(base, opening):
  assert comparison.caveat(base, {}).startswith(opening)


@pytest.mark.parametrize(
  ('observational', 'interventional', 'ordering', 'signs'),
  [
    (-0.1, 0.6, 'yes', 'observational yes, interventional yes'),
    (0.01, 0.6, 'yes', 'observational no, interventional yes'),
    (0.7, 0.6, 'no', 'observational no, interventional yes'),
    (-0.1, -0.2, 'no', 'observational yes, interventional no'),
  ],
)
def test_agreement_is_measured_not_assumed(
  observational, interventional, ordering, signs
):
  arms = {
    'observational': {'mean_margin': observational},
    'interventional': {'mean_margin': interventional},
  }
  text = comparison.agreement(arms)
  assert f'in mean margin, as in the paper: **{ordering}**' in text
  assert f'Same sign as in the paper: **{signs}**' in text


def test_an_arm_that_the_paper_never_had_gets_a_column(given_results):
  arms = given_results['arms']
  arms['error_masked'] = arms['base']
  header, rows = comparison.comparison(arms)
  assert header[3:5] == ('ours: interventional', 'ours: error_masked')
  assert {row[0]: row[3:5] for row in rows}['mean margin, nats per token'] == (
    '+0.7500',
    '+0.3750',
  )


def test_the_introduction_says_what_was_run(given_results):
  text = comparison.introduction(given_results)
  assert text.startswith(
    'Seed 0. Arms: base, observational, interventional. All start from the '
    'same base model (SmolLM2-135M-Instruct, 134.5 M parameters, given)'
  )
