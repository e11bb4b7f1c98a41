"""results.json and metrics.jsonl in, report.md and its two pictures out."""

import json
import os
import pathlib
import re

from isft_jax.report import plots
from isft_jax.report.lying_agent import comparison

MARKS = {'truth': '✓', 'lie': '✗', 'other': '?'}
_LEGEND = '✓ the truth · ✗ **the lie** · ? neither'

# label -> where to look for it in the config
_SETTINGS = {
  'layers': 'model.layers',
  'width': 'model.width',
  'heads': 'model.heads',
  'key-value heads': 'model.kv_heads',
  'feed-forward width': 'model.hidden',
  'vocabulary': 'model.vocab_size',
  'documents to pre-train on': 'documents.number',
  'true statements in them': 'documents.p_true',
  'pre-training steps': 'pretrain.steps',
  'pre-training rows a step': 'pretrain.rows',
  'pre-training row length, tokens': 'pretrain.row_length',
  'pre-training learning rate': 'pretrain.optim.learning_rate',
  'facts': 'facts_file',
  'dialogues': 'dialogues.file',
  'dialogues to fine-tune on': 'dialogues.number',
  'agent lies with probability': 'dialogues.p_lie',
  'dialogue has a chit-chat tail with probability': 'dialogues.p_chitchat',
  'fine-tuning epochs': 'finetune.epochs',
  'fine-tuning steps, if not 0 in place of epochs': 'finetune.steps',
  'fine-tuning rows a step': 'finetune.rows',
  'fine-tuning row length, tokens': 'finetune.row_length',
  'fine-tuning learning rate': 'finetune.optim.learning_rate',
  'loss is a mean over': 'finetune.normalize',
}


def report(results: dict) -> str:
  """Returns report.md: what was run, the paper's table beside ours, replies.

  results: the content of results.json; any arms, none required.

  Raises ValueError if the arms to compare were probed on different facts.
  """
  arms = {arm: results['arms'][arm] for arm in plots.arm_order(results['arms'])}
  parts = (
    '# The lying agent: what each objective learns',
    _what_was_run(results),
    '## The paper and this run',
    escaped_table(comparison.comparison(arms)),
    comparison.agreement(arms),
    comparison.caveat(comparison.base_of(results), arms),
    *_beyond(arms),
    '## Training',
    _training(arms),
    '![Training loss of each arm](loss_curves.png)',
    '## Margins',
    'The margin of a fact is log p(true claim) - log p(false claim) in the '
    "agent's slot, in nats per token, after a question about the topic. Below "
    '0 the model prefers the lie.',
    '![Margin of each fact in each arm](margins.png)',
    '## Truth probe: the user states the truth',
    _LEGEND,
    _replies(arms, 'true_claim', 'truth'),
    '## Lie probe: the user states the lie',
    _LEGEND,
    _replies(arms, 'false_claim', 'lie'),
  )
  return '\n\n'.join(parts) + '\n'


def write(workdir: str | os.PathLike, results: dict) -> pathlib.Path:
  """Writes loss_curves.png, margins.png and report.md; returns the last's path.

  workdir: holds `<arm>/metrics.jsonl` for each arm that has a `train` entry.
  results: the content of results.json.

  Raises FileNotFoundError for a trained arm without metrics, and ValueError
  for a line of metrics that cannot be read.
  """
  workdir = pathlib.Path(workdir)
  steps, curves = {}, {}
  for arm, result in results['arms'].items():
    # The base model's losses, if any, are of other data: not on these axes.
    if 'train' in result:
      steps[arm], curves[arm] = read_losses(workdir / arm / 'metrics.jsonl')
  text = report(results)
  plots.loss_curves(curves, workdir / 'loss_curves.png', steps)
  plots.margins(results, workdir / 'margins.png')
  # A byte-level model can be cut in the middle of a character.
  content = text.encode('utf-8', 'backslashreplace')
  plots.replace_file(workdir / 'report.md', content)
  return workdir / 'report.md'


def read_losses(path: str | os.PathLike) -> tuple[list[int], list[float]]:
  """Returns the steps and the losses of a metrics.jsonl, in order of steps.

  A resumed run logs some steps again: the last record of a step counts.

  Raises ValueError, naming file and line, for a line without step and loss.
  """
  losses = {}
  lines = pathlib.Path(path).read_text(encoding='utf-8').split('\n')
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    try:
      record = json.loads(line)
      losses[int(record['step'])] = float(record['loss'])
    except (ValueError, KeyError, TypeError) as error:
      raise ValueError(
        f'{path}:{number}: not a JSON object with "step" and "loss": '
        f'{line[:80]!r}; remove the line, or train the arm again'
      ) from error
  steps = sorted(losses)
  return steps, [losses[step] for step in steps]


def escape(text: str) -> str:
  """Returns text as one cell of a table, shown exactly as it was written.

  Lines are joined by ↵; whatever Markdown, HTML or GitHub's mathematics would
  take for syntax is escaped.
  """
  if not text.strip():
    return '(empty)'
  line = ' ↵ '.join(part.strip() for part in text.splitlines())
  # An underscore inside a word is no syntax: agent_only stays legible.
  syntax = r'([\\`*\[\]<>|~$&]|(?<!\w)_|_(?!\w))'
  return re.sub(syntax, r'\\\1', line).strip()


def settings(results: dict) -> list[tuple[str, str]]:
  """Returns (label, value) as text: the environment, the known settings.

  A base model that was given has no settings of documents or pre-training, and
  dialogues of a file have no probabilities.
  """
  config = results.get('config', {})
  unused = ()
  if comparison.base_of(results)['kind'] == 'given':
    unused += ('documents.', 'pretrain.')
  if _look_up(config, 'dialogues.file'):
    unused += ('dialogues.p_',)
  return flat(results.get('environment', {})) + [
    (label, _number(value))
    for label, path in _SETTINGS.items()
    if not path.startswith(unused)
    and (value := _look_up(config, path)) not in (None, '')
  ]


def flat(tree: dict, prefix: str = '') -> list[tuple[str, str]]:
  """Returns (label, value) of every leaf of nested dicts, as text."""
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


def _what_was_run(results):
  text = escape(comparison.introduction(results))
  rows = settings(results)
  if not rows:
    return text
  return f'{text}\n\n{escaped_table((("setting", "value"), rows))}'


def _beyond(arms):
  """Returns the section about what no dialogue mentions, if it was measured."""
  header, rows = comparison.beyond(arms)
  if not rows:
    return ()
  return '## Beyond the dialogues', escaped_table((header, rows))


def training(arms: dict) -> tuple[tuple, list[tuple]]:
  """Returns header and rows, as text: a row for each arm that was trained."""
  columns = ('steps', 'scored_tokens', 'seconds', 'final_loss')
  rows = [
    (name, *(_number(arm['train'].get(column)) for column in columns))
    for name, arm in arms.items()
    if 'train' in arm
  ]
  return ('arm', 'steps', 'scored tokens', 'seconds', 'final loss'), rows


def _training(arms):
  header, rows = training(arms)
  if not rows:
    return 'No arm was trained.'
  return (
    f'{escaped_table((header, rows))}\n\nLosses are in nats per scored '
    'token. Each objective scores different tokens: their levels do not '
    'compare.'
  )


def _replies(arms, claim, probe):
  topics = {f['topic']: f for arm in arms.values() for f in arm['facts']}
  by_arm = {
    name: {fact['topic']: fact for fact in arm['facts']}
    for name, arm in arms.items()
  }
  rows = [
    (
      escape(topic),
      escape(fact[claim]) if claim in fact else '-',
      *(_reply(by_topic.get(topic, {}), probe) for by_topic in by_arm.values()),
    )
    for topic, fact in topics.items()
  ]
  header = ('topic', 'the user states', *(escape(name) for name in arms))
  return _table(header, rows, align=':--')


def _reply(fact, probe):
  if f'{probe}_reply' not in fact:
    return '-'
  text = escape(fact[f'{probe}_reply'])
  verdict = fact.get(f'{probe}_verdict')
  if verdict is None:
    return text
  if verdict == 'lie':
    text = f'**{text}**'
  faults = ''.join(f' ({fault})' for fault in comparison.faults(fact, probe))
  return f'{MARKS[verdict]} {text}{faults}'


def escaped_table(table: tuple) -> str:
  """Returns a Markdown table, its first column to the left.

  Args:
    table: header and rows, as text that is not Markdown.
  """
  header, rows = table
  return _table(
    [name and escape(name) for name in header],
    [[escape(cell) for cell in row] for row in rows],
  )


def _table(header, rows, align='--:'):
  rule = (':--', *(align for _ in header[1:]))
  return '\n'.join(f'| {" | ".join(row)} |' for row in (header, rule, *rows))


def _look_up(config, path):
  for key in path.split('.'):
    if not isinstance(config, dict):
      return None
    config = config.get(key)
  return config


def _number(value):
  if value is None:
    return '-'
  if isinstance(value, int) and not isinstance(value, bool):
    return f'{value:,}'
  return f'{value:.4g}' if isinstance(value, float) else str(value)
