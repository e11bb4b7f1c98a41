"""Table rows with the settings and the training of a run."""

from collections.abc import Mapping
from typing import Any

from isft_jax.config import with_new_names
from isft_jax.report.lying_agent import comparison

# Label -> path of the field in the config.
_SETTINGS = {
  'layers': 'model.layers',
  'width': 'model.width',
  'heads': 'model.heads',
  'key-value heads': 'model.kv_heads',
  'feed-forward width': 'model.mlp_width',
  'vocabulary': 'model.vocab_size',
  'documents to pre-train on': 'documents.number',
  'true statements in them': 'documents.p_true',
  'pre-training steps': 'pretrain.steps',
  'pre-training rows per step': 'pretrain.batch_size',
  'pre-training row length, tokens': 'pretrain.seq_len',
  'pre-training learning rate': 'pretrain.optim.learning_rate',
  'facts': 'facts_file',
  'dialogues': 'dialogues.file',
  'dialogues to fine-tune on': 'dialogues.number',
  'agent lies with probability': 'dialogues.p_lie',
  'dialogue has a chit-chat tail with probability': 'dialogues.p_chitchat',
  'fine-tuning epochs': 'finetune.epochs',
  'fine-tuning steps, if not 0 in place of epochs': 'finetune.steps',
  'fine-tuning rows per step': 'finetune.batch_size',
  'fine-tuning row length, tokens': 'finetune.seq_len',
  'fine-tuning learning rate': 'finetune.optim.learning_rate',
  'loss is a mean over': 'finetune.normalize',
}


def settings(results: Mapping) -> list[tuple[str, str]]:
  """Returns (label, value) as text, for the environment and the settings.

  Settings without effect are left out: documents and pre-training if the base
  model is given, probabilities if the dialogues are from a file.
  """
  config = with_new_names(results.get('config', {}))
  unused: tuple[str, ...] = ()
  if comparison.base_from_results(results)['kind'] == 'given':
    unused += ('documents.', 'pretrain.')
  if _look_up(config, 'dialogues.file'):
    unused += ('dialogues.p_',)
  # The environment, and then the settings that have an effect.
  return flat(results.get('environment', {})) + [
    (label, _number(value))
    for label, path in _SETTINGS.items()
    if not path.startswith(unused)
    and (value := _look_up(config, path)) not in (None, '')
  ]


def flat(tree: dict, prefix: str = '') -> list[tuple[str, str]]:
  """Returns (label, value) as text, for every leaf of nested dicts."""
  rows = []
  for name, value in tree.items():
    label = f'{prefix}{name}' if prefix else name.replace('_', ' ')
    if isinstance(value, dict):
      rows += flat(value, f'{label}: ')
    elif isinstance(value, list):
      rows.append((label, ', '.join(map(str, value))))
    else:
      rows.append((label, _number(value)))
  return rows


def training(arms: dict) -> tuple[tuple, list[tuple]]:
  """Returns header and rows as text, with a row per trained arm."""
  columns = ('steps', 'scored_tokens', 'seconds', 'final_loss')
  rows = [
    (name, *(_number(arm['train'].get(column)) for column in columns))
    for name, arm in arms.items()
    if 'train' in arm
  ]
  return ('arm', 'steps', 'scored tokens', 'seconds', 'final loss'), rows


def _look_up(config: Any, path: str) -> Any:
  for key in path.split('.'):
    if not isinstance(config, dict):
      return None
    config = config.get(key)
  return config


def _number(value: object) -> str:
  if value is None:
    return '-'
  if isinstance(value, int) and not isinstance(value, bool):
    return f'{value:,}'
  return f'{value:.4g}' if isinstance(value, float) else str(value)
