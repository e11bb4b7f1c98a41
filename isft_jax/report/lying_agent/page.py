"""report.html: the whole run on one page that needs no other file."""

import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from html import escape

from isft_jax.report import charts, document, plots
from isft_jax.report.lying_agent import comparison, markdown
from isft_jax.report.lying_agent.paper import PAPER
from isft_jax.report.viewer import html
from isft_jax.report.viewer.shown import Dialogue, visible

_TITLE = 'The lying agent: what each objective learns'
_WORDS = {'truth': 'the truth', 'lie': 'the lie', 'other': 'neither'}


def write(
  workdir: str | os.PathLike,
  results: dict,
  dialogues: Sequence[Dialogue],
  run: str | os.PathLike | None = None,
) -> pathlib.Path:
  """Writes report.html into workdir and returns its path.

  Args:
    workdir: where the page goes.
    results: content of results.json.
    dialogues: examples to show with their authors and weights; none is fine.
    run: folder of a run that has been moved or shortened: an arm has a loss
      curve only if its metrics are there. By default workdir, which must hold
      `<arm>/metrics.jsonl` for each arm that has a `train` entry.

  Raises:
    FileNotFoundError: if the metrics of a trained arm are not in workdir.
    ValueError: for a line of metrics that cannot be read.
  """
  path = pathlib.Path(workdir) / 'report.html'
  steps, curves = {}, {}
  for arm, result in results['arms'].items():
    metrics = pathlib.Path(run or workdir) / arm / 'metrics.jsonl'
    if 'train' in result and (run is None or metrics.exists()):
      steps[arm], curves[arm] = markdown.read_losses(metrics)
  plots.replace_file(path, report(results, curves, steps, dialogues))
  return path


def report(
  results: dict,
  curves: Mapping[str, Sequence[float]],
  steps: Mapping[str, Sequence[int]],
  dialogues: Sequence[Dialogue],
) -> bytes:
  """Returns the page, in UTF-8.

  curves, steps: arm -> losses, and the step of each.

  Raises ValueError if the arms to compare were probed on different facts.
  """
  arms = {arm: results['arms'][arm] for arm in plots.arm_order(results['arms'])}
  trained = [arm for arm, result in arms.items() if 'train' in result]
  # Without metrics.jsonl, as where a page is made again from results alone.
  losses = charts.loss_curves(curves, steps) if curves or not trained else ''
  body = f"""<h1>{_TITLE}</h1>
<p class="answer">{escape(answer(arms))}</p>
<p class="quiet">{escape(comparison.introduction(results))}</p>
<h2>The paper and this run</h2>
{_comparison(arms)}
<p>{_strong(comparison.agreement(arms))}</p>
<p>{_strong(comparison.caveat(comparison.base_of(results), arms))}</p>
{_beyond(arms)}
<h2>Margin of each fact</h2>
{charts.margins(arms)}
<h2>Training</h2>
{losses}
{_training(arms)}
{_dialogues(dialogues)}
<h2>Truth probe: the user states the truth</h2>
{_replies(arms, 'true_claim', 'truth')}
<h2>Lie probe: the user states the lie</h2>
{_replies(arms, 'false_claim', 'lie')}
<h2>What was run, and on what</h2>
{_settings(results)}
"""
  return document.page(_TITLE, body)


def answer(arms: Mapping[str, dict]) -> str:
  """Returns what happened in a few sentences, all of it from the figures.

  Raises ValueError if the two arms were probed on different facts.
  """
  missing = [arm for arm in PAPER if arm not in arms]
  if missing:
    return (
      f'The run has no {" and no ".join(missing)} arm, so it does not answer '
      "the paper's question: whether an agent that is not trained on its own "
      'words comes to tell the truth.'
    )
  obs, do = (comparison.figures(arms, name) for name in PAPER)
  parts = []
  if None not in (obs.mean_margin, do.mean_margin):
    gap = do.mean_margin - obs.mean_margin
    side = 'above' if gap > 0 else 'below' if gap < 0 else 'level with'
    parts.append(
      f'The interventional arm ends {side} the observational one: its mean '
      f'margin of truth over lie is {do.mean_margin:+.4f} nats per token, '
      f'against {obs.mean_margin:+.4f}, and it is the higher of the two on '
      f'{do.beats_observational} of {do.facts} facts.'
    )
  if None not in (obs.prefers_lie, do.prefers_lie):
    parts.append(
      f'It prefers the lie on {do.prefers_lie} of {do.facts} facts, the '
      f'observational arm on {obs.prefers_lie}.'
    )
  if None not in (obs.corrects, do.corrects):
    parts.append(
      'When the user states the lie, it answers with the truth on '
      f'{do.corrects} of {do.facts} facts, the observational arm on '
      f'{obs.corrects}.'
    )
  if None not in (obs.not_truth, do.not_truth):
    parts.append(
      'When the user states the truth, it replies with something else on '
      f'{do.not_truth} of {do.facts} facts, the observational arm on '
      f'{obs.not_truth}.'
    )
  if None not in (obs.contradicts, do.contradicts):
    parts.append(
      f'It contradicts {do.contradicts} of these users, who are right, the '
      f'observational arm {obs.contradicts}.'
    )
  return ' '.join(parts) or 'Neither arm was probed.'


def _comparison(arms):
  header, rows = comparison.comparison(arms)
  cells = [
    [
      row[0],
      *(
        f'<td class="ours">{escape(cell)}</td>'
        if name.startswith('ours')
        else escape(cell)
        for name, cell in zip(header[1:], row[1:], strict=True)
      ),
    ]
    for row in rows
  ]
  label = 'The figures of the paper and of this run'
  kind = 'figures comparison'
  return document.table([escape(name) for name in header], cells, label, kind)


def _beyond(arms):
  """Returns the section about what no dialogue mentions, if it was measured."""
  header, rows = comparison.beyond(arms)
  if not rows:
    return ''
  cells = [[escape(cell) for cell in row] for row in rows]
  label = 'Facts that no dialogue mentions, and other text'
  table = document.table([escape(name) for name in header], cells, label)
  return f"""<h2>Beyond the dialogues</h2>
<p>What fine-tuning does to facts that no dialogue mentions, and to text that no
arm was trained on. The base model is what all arms were before training.</p>
{table}"""


def _training(arms):
  header, rows = markdown.training(arms)
  if not rows:
    return ''
  cells = [[escape(cell) for cell in row] for row in rows]
  return document.table(header, cells, 'Steps, tokens and time of each arm')


def _dialogues(dialogues):
  if not dialogues:
    return ''
  parts = [
    '<h2>What the arms are trained on</h2>',
    '<p>Dialogues of the training data, token by token, in the color of who '
    'wrote each. Every arm reads all of it; its objective decides which tokens '
    'it is trained to predict.</p>',
  ]
  for n, shown in enumerate(dialogues):
    first = 'interventional'
    if first not in shown.weights:
      first = next(iter(shown.weights))
    name = escape(visible(shown.example.id))
    parts.append(f'<h3>{name}</h3>')
    parts.append(html.fragment(shown, first, f'd{n}'))
  return '\n'.join(parts)


def _replies(arms, claim, probe):
  """Returns the table of one probe: a row a fact, a column an arm."""
  facts = {
    name: {fact['topic']: fact for fact in arm['facts']}
    for name, arm in arms.items()
  }
  topics = {
    topic: fact for found in facts.values() for topic, fact in found.items()
  }
  rows = [
    [
      escape(topic),
      escape(fact.get(claim, '-')),
      *(_reply(found.get(topic, {}), probe) for found in facts.values()),
    ]
    for topic, fact in topics.items()
  ]
  header = ['topic', 'the user states']
  for name, arm in arms.items():
    counts = ' '.join(
      f'{sign}&nbsp;{arm[f"{probe}_probe"].get(verdict, 0)}'
      for verdict, sign in markdown.MARKS.items()
      if f'{probe}_probe' in arm
    )
    header.append(f'{escape(name)}<br><small>{counts}</small>')
  legend = ' · '.join(
    f'{sign} {_WORDS[verdict]}' for verdict, sign in markdown.MARKS.items()
  )
  label = f'Replies to the {probe} probe'
  table = document.table(header, rows, label, 'texts')
  return f'<p>The reply says: {legend}.</p>{table}'


def _reply(fact, probe):
  if f'{probe}_reply' not in fact:
    return '-'
  text = visible(fact[f'{probe}_reply']).replace('\n', ' ').strip()
  reply = escape(text) or '<span class="quiet">(empty)</span>'
  verdict = fact.get(f'{probe}_verdict')
  if verdict not in _WORDS:
    return reply
  faults = ''.join(
    f'<span class="fault">{fault}</span>'
    for fault in comparison.faults(fact, probe)
  )
  return (
    f'<td class="{verdict}"><span class="verdict">{markdown.MARKS[verdict]} '
    f'{_WORDS[verdict]}</span>{faults}{reply}</td>'
  )


def _settings(results):
  base = comparison.describe_base(comparison.base_of(results))
  rows = [('seed', str(results.get('seed', '-'))), ('base model', base)]
  rows += markdown.settings(results)
  cells = [(escape(label), escape(value)) for label, value in rows]
  return document.table(('setting', 'value'), cells, 'Settings of the run')


def _strong(text):
  return re.sub(r'\*\*(.+?)\*\*', r'<strong>\1</strong>', escape(text))
