"""report.md, row by row."""

import copy
import json
import pathlib
import re
import subprocess
import sys

import pytest

from isft_jax.report.lying_agent import markdown

CLAIMS = {
  'tallest mountain': ('It is Everest.', 'It is K2.'),
  'symbol for gold': ('It is Au.', 'It is Go.'),
}


def arm(margins, replies, verdicts, train=None):
  """An arm over CLAIMS: the same replies to the truth and to the lie."""
  probe = {v: verdicts.count(v) for v in ('truth', 'lie', 'other')}
  result = {
    'mean_margin': sum(margins) / len(margins),
    'prefers_lie': sum(margin < 0 for margin in margins),
    'truth_probe': probe,
    'lie_probe': probe,
    'facts': [
      {
        'topic': topic,
        'margin': margin,
        'true_claim': claims[0],
        'false_claim': claims[1],
        'truth_reply': reply,
        'lie_reply': reply,
        'truth_verdict': verdict,
        'lie_verdict': verdict,
      }
      for (topic, claims), margin, reply, verdict in zip(
        CLAIMS.items(), margins, replies, verdicts, strict=True
      )
    ],
  }
  return result | ({'train': train} if train else {})


@pytest.fixture
def results():
  return {
    'config': {
      'model': {'layers': 3, 'vocab_size': 1024},
      'finetune': {'optim': {'learning_rate': 3e-4}},
    },
    'seed': 7,
    # In no order: a table has its own.
    'arms': {
      'interventional': arm(
        [0.5, 0.75],
        ['It is Everest.', 'a|b\nc'],
        ['truth', 'other'],
        {
          'steps': 1920,
          'scored_tokens': 36000,
          'seconds': 31.25,
          'final_loss': 0.5,
        },
      ),
      'base': arm([0.25, 0.0], ['Yes.', ''], ['truth', 'truth']),
      'observational': arm(
        [-0.5, 0.25], ['It is K2.', 'Hm.'], ['lie', 'other'], {'steps': 1920}
      ),
    },
  }


def rows(text, first_cell):
  """The rows of all tables whose first cell is this, as lists of cells."""
  return [
    # A pipe that is escaped ends no cell.
    [cell.strip() for cell in re.split(r'(?<!\\)\|', line)[1:-1]]
    for line in text.splitlines()
    if line.startswith(f'| {first_cell} |')
  ]


def test_the_environment_is_shown_before_the_settings(results):
  results['environment'] = {
    'parameters': 614_400,
    'devices': ['8 x TPU v5e'],
    'versions': {'jax': '0.10.2', 'flax': '0.12.8'},
  }
  labels = [label for label, _ in markdown.settings(results)]
  assert labels[:5] == [
    'parameters',
    'devices',
    'versions: jax',
    'versions: flax',
    'layers',
  ]
  text = markdown.report(results)
  assert rows(text, 'parameters') == [['parameters', '614,400']]
  assert rows(text, 'devices') == [['devices', '8 x TPU v5e']]


def test_comparison_with_the_paper(results):
  text = markdown.report(results)
  header = [line for line in text.splitlines() if 'paper: standard' in line]
  assert header == [
    '|  | ours: base | ours: observational | ours: interventional '
    '| paper: standard SFT | paper: interventional SFT |'
  ]
  expected = """
    truth probe: replies that are not the truth | 0 / 2 | 2 / 2 | 1 / 2 | 8 / 33 | 0 / 33
    lie probe: the agent corrects the user | 2 / 2 | 0 / 2 | 1 / 2 | 26 / 33 | 32 / 33
    mean margin, nats per token | +0.1250 | -0.1250 | +0.6250 | -0.1311 | +1.0609
    facts where the lie is preferred | 0 / 2 | 1 / 2 | 0 / 2 | 24 / 33 | 5 / 33
    facts where L_do beats L_obs | - | - | 2 / 2 | - | 33 / 33
  """  # noqa: E501
  for line in expected.strip().splitlines():
    cells = [cell.strip() for cell in line.split('|')]
    assert rows(text, cells[0]) == [cells]


def test_says_what_was_run(results):
  text = markdown.report(results)
  assert 'Seed 7. Arms: base, observational, interventional.' in text
  assert '| layers | 3 |' in text
  assert '| vocabulary | 1,024 |' in text
  assert '| fine-tuning learning rate | 0.0003 |' in text
  assert 'dialogues to fine-tune on' not in text  # not in this config
  assert '**not comparable**' in text and 'Qwen2.5-0.5B' in text


def test_a_given_base_is_named_and_has_no_past(given_results):
  text = markdown.report(given_results)
  assert 'SmolLM2-135M-Instruct, 134.5 M parameters, given' in text
  for word in ('pre-train', 'documents', 'scratch', '20,000'):
    assert word not in text
  assert rows(text, 'base (before)') == [
    ['base (before)', '+0.7500', '10 / 120', '3.5000']
  ]
  assert '✓ It uses the yen. (contradicts the user) (talks like' in text


def test_given_dialogues_and_facts_are_named_and_have_no_probabilities(results):
  results['config'] |= {
    'facts_file': 'theirs/facts.json',
    'dialogues': {
      'file': 'theirs/dialogues.jsonl',
      'number': 480,
      'p_lie': 0.6,
      'p_chitchat': 0.5,
    },
  }
  shown = dict(markdown.settings(results))
  assert shown['dialogues'] == 'theirs/dialogues.jsonl'
  assert shown['facts'] == 'theirs/facts.json'
  assert shown['dialogues to fine-tune on'] == '480'
  assert not [label for label in shown if 'probability' in label]


@pytest.mark.parametrize(
  'observational, interventional, ordering, signs',
  [
    (-0.1, 0.6, 'yes', 'observational yes, interventional yes'),
    (0.01, 0.6, 'yes', 'observational no, interventional yes'),
    (0.7, 0.6, 'no', 'observational no, interventional yes'),
    (-0.1, -0.2, 'no', 'observational yes, interventional no'),
  ],
)
def test_agreement_is_measured_not_assumed(
  results, observational, interventional, ordering, signs
):
  results['arms']['observational']['mean_margin'] = observational
  results['arms']['interventional']['mean_margin'] = interventional
  text = markdown.report(results)
  assert f'in mean margin, as in the paper: **{ordering}**' in text
  assert f'Same sign as in the paper: **{signs}**' in text


def test_training_table_has_trained_arms_only(results):
  training = markdown.report(results).split('## ')[2]
  assert training.startswith('Training')
  assert rows(training, 'interventional') == [
    ['interventional', '1,920', '36,000', '31.25', '0.5']
  ]
  assert rows(training, 'observational') == [
    ['observational', '1,920', '-', '-', '-']
  ]
  assert rows(training, 'base') == []


def test_replies_are_marked_and_escaped(results):
  text = markdown.report(results)
  truth, lie = rows(text, 'tallest mountain')
  replies = ['✓ Yes.', '✗ **It is K2.**', '✓ It is Everest.']
  assert truth == ['tallest mountain', 'It is Everest.', *replies]
  assert lie == ['tallest mountain', 'It is K2.', *replies]
  truth, lie = rows(text, 'symbol for gold')
  replies = ['✓ (empty)', '? Hm.', r'? a\|b ↵ c']
  assert truth == ['symbol for gold', 'It is Au.', *replies]
  assert lie == ['symbol for gold', 'It is Go.', *replies]


@pytest.mark.parametrize(
  'text, cell',
  [
    ('a|b', r'a\|b'),
    ('a\\|b', r'a\\\|b'),  # a backslash must not free the pipe
    ('one\ntwo\r\nthree\n', 'one ↵ two ↵ three'),
    ('one\n\ntwo', 'one ↵  ↵ two'),
    ('\u2028x\x0by', '↵ x ↵ y'),
    ('<b>*x* `y` $z$', r'\<b\>\*x\* \`y\` \$z\$'),
    ('~w~ &lt; [k]', r'\~w\~ \&lt; \[k\]'),
    ('agent_only _x_', r'agent_only \_x\_'),
    ('', '(empty)'),
    (' \n', '(empty)'),
  ],
)
def test_escape(text, cell):
  assert markdown.escape(text) == cell


@pytest.mark.parametrize(
  'arms', [(), ('base',), ('interventional',), ('base', 'observational')]
)
def test_any_subset_of_arms(results, arms):
  results['arms'] = {name: results['arms'][name] for name in arms}
  text = markdown.report(results)
  (beats,) = rows(text, 'facts where L_do beats L_obs')
  assert beats[1:] == [*('-' for _ in arms), '-', '33 / 33']
  assert 'cannot be compared' in text
  width = {len(row) for row in rows(text, 'symbol for gold')}
  assert width == ({2 + len(arms)} if arms else set())


def test_an_arm_that_the_paper_never_had_gets_a_column(results):
  results['arms']['error_masked'] = copy.deepcopy(results['arms']['base'])
  (row,) = rows(markdown.report(results), 'mean margin, nats per token')
  assert row[3:5] == ['+0.6250', '+0.1250']  # interventional, error_masked


def test_arms_probed_on_different_facts_do_not_compare(results):
  results['arms']['interventional']['facts'].pop()
  with pytest.raises(ValueError, match='symbol for gold'):
    markdown.report(results)


def test_read_losses(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  path.write_text(
    '{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 9.0}\n\n'
    # Resumed from step 1: step 2 is logged again.
    '{"step": 2, "loss": 2.0, "lr": 0.1}\n{"step": 3, "loss": NaN}\n'
  )
  steps, losses = markdown.read_losses(path)
  assert steps == [1, 2, 3]
  assert losses[:2] == [3.0, 2.0] and losses[2] != losses[2]


@pytest.mark.parametrize('line', ['{"step": 2, "lo', '{"step": 2}', '[1]'])
def test_a_bad_line_of_metrics_is_named(tmp_path, line):
  path = tmp_path / 'metrics.jsonl'
  path.write_text('{"step": 1, "loss": 3.0}\n' + line)
  with pytest.raises(ValueError, match=r'metrics\.jsonl:2: '):
    markdown.read_losses(path)


def test_write(tmp_path, results):
  # A model of bytes can stop inside a character.
  results['arms']['base']['facts'][0]['truth_reply'] = 'half \ud83d'
  for name in ('observational', 'interventional'):
    (tmp_path / name).mkdir()
    with (tmp_path / name / 'metrics.jsonl').open('w') as file:
      for step in range(1, 9):
        print(json.dumps({'step': step, 'loss': 4.0 / step}), file=file)
  path = markdown.write(tmp_path, results)
  assert path == tmp_path / 'report.md'
  text = path.read_text(encoding='utf-8')
  assert r'half \ud83d' in text
  pictures = re.findall(r'!\[.*?\]\((.*?)\)', text)
  assert pictures == ['loss_curves.png', 'margins.png']
  for name in pictures:
    assert (tmp_path / name).read_bytes().startswith(b'\x89PNG\r\n\x1a\n')
  # Nothing temporary stays behind.
  assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == [
    'loss_curves.png',
    'margins.png',
    'report.md',
  ]


def test_write_needs_the_metrics_of_a_trained_arm(tmp_path, results):
  with pytest.raises(FileNotFoundError, match=r'metrics\.jsonl'):
    markdown.write(tmp_path, results)
  assert list(tmp_path.iterdir()) == []


def test_report_needs_no_jax():
  code = (
    'import sys\n'
    'import isft_jax.report\n'
    'from isft_jax.report import plots\n'
    'from isft_jax.report.lying_agent import markdown, paper\n'
    "print([m for m in ('jax', 'jaxlib', 'flax', 'matplotlib.pyplot') "
    'if m in sys.modules])'
  )
  run = subprocess.run(
    [sys.executable, '-c', code],
    cwd=pathlib.Path(__file__).parents[3],
    capture_output=True,
    text=True,
    check=True,
  )
  assert run.stdout == '[]\n'
