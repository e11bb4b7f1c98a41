"""What is told of how a run was made: settings, environment, training."""

from isft_jax.report.lying_agent import settings

RESULTS = {
  'config': {
    'model': {'layers': 3, 'vocab_size': 1024},
    'finetune': {'optim': {'learning_rate': 3e-4}},
  },
}


def test_the_environment_is_shown_before_the_settings():
  environment = {
    'parameters': 614_400,
    'devices': ['8 x TPU v5e'],
    'versions': {'jax': '0.10.2', 'flax': '0.12.8'},
  }
  assert settings.settings(RESULTS | {'environment': environment}) == [
    ('parameters', '614,400'),
    ('devices', '8 x TPU v5e'),
    ('versions: jax', '0.10.2'),
    ('versions: flax', '0.12.8'),
    ('layers', '3'),
    ('vocabulary', '1,024'),
    ('fine-tuning learning rate', '0.0003'),
  ]


def test_old_names_of_fields_are_shown_as_new_ones():
  old = {
    'model': {'hidden': 384},
    'pretrain': {'rows': 16, 'row_length': 192},
    'finetune': {'rows': 8, 'row_length': 256},
  }
  new = {
    'model': {'mlp_width': 384},
    'pretrain': {'batch_size': 16, 'seq_len': 192},
    'finetune': {'batch_size': 8, 'seq_len': 256},
  }
  assert settings.settings({'config': new}) == [
    ('feed-forward width', '384'),
    ('pre-training rows per step', '16'),
    ('pre-training row length, tokens', '192'),
    ('fine-tuning rows per step', '8'),
    ('fine-tuning row length, tokens', '256'),
  ]
  assert settings.settings({'config': old}) == settings.settings(
    {'config': new}
  )


def test_a_given_base_has_no_settings_of_pre_training(given_results):
  labels = [label for label, _ in settings.settings(given_results)]
  assert 'layers' in labels and 'fine-tuning epochs' in labels
  assert not [label for label in labels if 'pre-train' in label]
  assert 'true statements in them' not in labels


def test_given_dialogues_and_facts_are_named_and_have_no_probabilities():
  config = RESULTS['config'] | {
    'facts_file': 'theirs/facts.json',
    'dialogues': {
      'file': 'theirs/dialogues.jsonl',
      'number': 480,
      'p_lie': 0.6,
      'p_chitchat': 0.5,
    },
  }
  shown = dict(settings.settings({'config': config}))
  assert shown['dialogues'] == 'theirs/dialogues.jsonl'
  assert shown['facts'] == 'theirs/facts.json'
  assert shown['dialogues to fine-tune on'] == '480'
  assert not [label for label in shown if 'probability' in label]


def test_training_has_a_row_for_each_trained_arm():
  train = {
    'steps': 1920,
    'scored_tokens': 36000,
    'seconds': 31.25,
    'final_loss': 0.5,
  }
  _, rows = settings.training(
    {
      'base': {},
      'observational': {'train': {'steps': 1920}},
      'interventional': {'train': train},
    }
  )
  assert rows == [
    ('observational', '1,920', '-', '-', '-'),
    ('interventional', '1,920', '36,000', '31.25', '0.5'),
  ]
