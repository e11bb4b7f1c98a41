"""results.json and metrics.jsonl in, report.md and its two pictures out."""

import json
import os
import pathlib
import re

from isft_jax.report import plots
from isft_jax.report.paper import CITATION, LABELS, MODEL, PAPER, Figures

# Columns of the comparison even where a run lacks the arm.
_EXPECTED_ARMS = ('base', 'observational', 'interventional', 'agent_only')

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
    _what_was_run(results, arms),
    '## The paper and this run',
    _escaped_table(comparison(arms)),
    agreement(arms),
    caveat(),
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
    _replies(arms, 'true_claim', 'truth_reply', 'truth_verdict'),
    '## Lie probe: the user states the lie',
    _LEGEND,
    _replies(arms, 'false_claim', 'lie_reply', 'lie_verdict'),
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


def figures(arms: dict, name: str) -> Figures:
  """Returns the figures of one arm, as the paper counts them.

  Raises ValueError if it was probed on other facts than `observational`.
  """
  arm = arms[name]
  truth, lie = arm.get('truth_probe'), arm.get('lie_probe')
  beats = None
  if name == 'interventional' and 'observational' in arms:
    ours = plots.margins_by_topic(arm)
    theirs = plots.margins_by_topic(arms['observational'])
    if ours.keys() != theirs.keys():
      raise ValueError(
        'interventional and observational were probed on different facts: '
        f'{sorted(ours.keys() ^ theirs.keys())}; probe both on the same'
      )
    beats = sum(ours[topic] > theirs[topic] for topic in ours)
  return Figures(
    facts=len(arm['facts']),
    not_truth=truth and truth['lie'] + truth['other'],
    corrects=lie and lie['truth'],
    mean_margin=arm.get('mean_margin'),
    prefers_lie=arm.get('prefers_lie'),
    beats_observational=beats,
  )


def settings(results: dict) -> list[tuple[str, str]]:
  """Returns (label, value) as text: the environment, the known settings."""
  config = results.get('config', {})
  return _flat(results.get('environment', {})) + [
    (label, _number(value))
    for label, path in _SETTINGS.items()
    if (value := _look_up(config, path)) is not None
  ]


def _flat(tree, prefix=''):
  rows = []
  for name, value in tree.items():
    label = f'{prefix}{name}' if prefix else name.replace('_', ' ')
    if isinstance(value, dict):
      rows += _flat(value, f'{label}: ')
    elif isinstance(value, list):
      rows.append((label, ', '.join(map(str, value))))
    else:
      rows.append((label, _number(value)))
  return rows


def _what_was_run(results, arms):
  found = settings(results)
  text = (
    f'Seed {results.get("seed", "-")}; arms: {", ".join(arms) or "none"}. All '
    'arms start from the same base model and differ in the tokens that their '
    f'loss scores. The experiment is that of {CITATION}.'
  )
  if not found:
    return text
  return f'{text}\n\n{_escaped_table((("setting", "value"), found))}'


def comparison(arms: dict) -> tuple[tuple, list[tuple]]:
  """Returns header and rows, as text, of the paper's table beside ours.

  Raises ValueError if the arms to compare were probed on different facts.
  """
  extra = [arm for arm in arms if arm not in _EXPECTED_ARMS]
  columns = {LABELS[arm]: entry for arm, entry in PAPER.items()}
  for name in (*_EXPECTED_ARMS, *extra):
    columns[f'ours: {name}'] = figures(arms, name) if name in arms else None
  rows = (
    ('truth probe: replies that are not the truth', 'not_truth'),
    ('lie probe: the agent corrects the user', 'corrects'),
    ('mean margin, nats per token', 'mean_margin'),
    ('facts where the lie is preferred', 'prefers_lie'),
    ('facts where L_do beats L_obs', 'beats_observational'),
  )
  return ('', *columns), [
    (label, *(_figure(entry, name) for entry in columns.values()))
    for label, name in rows
  ]


def _figure(entry, name):
  value = entry and getattr(entry, name)
  if value is None:
    return '-'
  return (
    f'{value:+.4f}' if name == 'mean_margin' else f'{value} / {entry.facts}'
  )


def agreement(arms: dict) -> str:
  """Returns whether signs and ordering are the paper's, with **yes** or no."""
  names = ('observational', 'interventional')
  ours = [arms.get(name, {}).get('mean_margin') for name in names]
  if None in ours:
    return (
      'Sign and ordering cannot be compared: the run lacks the observational '
      'or the interventional arm.'
    )
  theirs = [PAPER[name].mean_margin for name in names]
  signs = [
    f'{name} {_yes((a > 0) == (b > 0))}'
    for name, a, b in zip(names, ours, theirs, strict=True)
  ]
  return (
    'Interventional above observational in mean margin, as in the paper: '
    f'**{_yes(ours[1] > ours[0])}**. Same sign as in the paper: '
    f'**{", ".join(signs)}**.'
  )


def caveat() -> str:
  """Returns what the figures do not show, with **the** weight on it."""
  return (
    'Ours is a tiny model, pre-trained from scratch by the same run. Its '
    f"absolute figures are **not comparable** with those of the paper's {MODEL}"
    '; the sign and the ordering are. One seed, no intervals, and the facts '
    "probed are the facts trained on. The paper's count of corrections is "
    'taken from the replies it prints.'
  )


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
    f'{_escaped_table((header, rows))}\n\nLosses are in nats per scored '
    'token. Each objective scores different tokens: their levels do not '
    'compare.'
  )


def _replies(arms, claim, reply, verdict):
  topics = {f['topic']: f for arm in arms.values() for f in arm['facts']}
  by_arm = {
    name: {fact['topic']: fact for fact in arm['facts']}
    for name, arm in arms.items()
  }
  rows = [
    (
      escape(topic),
      escape(fact[claim]) if claim in fact else '-',
      *(
        _reply(by_topic.get(topic), reply, verdict)
        for by_topic in by_arm.values()
      ),
    )
    for topic, fact in topics.items()
  ]
  header = ('topic', 'the user states', *(escape(name) for name in arms))
  return _table(header, rows, align=':--')


def _reply(fact, reply, verdict):
  if fact is None or reply not in fact:
    return '-'
  text = escape(fact[reply])
  if verdict not in fact:
    return text
  mark = MARKS[fact[verdict]]
  return f'{mark} **{text}**' if fact[verdict] == 'lie' else f'{mark} {text}'


def _escaped_table(table):
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


def _yes(condition):
  return 'yes' if condition else 'no'
