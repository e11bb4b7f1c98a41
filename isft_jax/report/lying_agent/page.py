"""Writes report.html, the results of a run on one self-contained page."""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from isft_jax import files
from isft_jax.report import document, plots
from isft_jax.report.escapes import visible_line
from isft_jax.report.lying_agent import charts, comparison
from isft_jax.report.lying_agent.paper import PAPER
from isft_jax.report.lying_agent.settings import settings, training
from isft_jax.report.tables import Cell, Table
from isft_jax.report.viewer import html
from isft_jax.report.viewer.shown import Dialogue

# Verdict of a reply -> its sign and its words.
_VERDICTS = {
  'truth': ('✓', 'the truth'),
  'lie': ('✗', 'the lie'),
  'other': ('?', 'neither'),
}


def write(
  workdir: str | os.PathLike,
  results: dict,
  dialogues: Sequence[Dialogue],
  run: str | os.PathLike | None = None,
) -> pathlib.Path:
  """Writes report.html and its charts as PNGs; returns the page's path.

  Args:
    workdir: folder for the files.
    results: content of results.json.
    dialogues: examples to show with authors and weights; may be empty.
    run: folder of a run that was moved or is incomplete. An arm without metrics
      in it has no loss curve. By default the run is in workdir, and each arm
      with a `train` entry must have `<arm>/metrics.jsonl`.

  Raises:
    FileNotFoundError: the metrics of a trained arm are missing in workdir.
    ValueError: a line of metrics cannot be read.
  """
  path = pathlib.Path(workdir) / 'report.html'
  steps, curves = {}, {}
  for arm, result in results['arms'].items():
    # Only arms have a `train` entry. The losses of a base are of other data and
    # do not belong on the same axes.
    metrics = pathlib.Path(run or workdir) / arm / 'metrics.jsonl'
    if 'train' in result and (run is None or metrics.exists()):
      steps[arm], curves[arm] = read_losses(metrics)
  losses = charts.loss_curves(curves, steps)
  margins = charts.margins(results['arms'])
  # The page is last: if it exists, its charts do too.
  page = report(results, losses, margins, dialogues)
  for chart in filter(None, (losses, margins)):
    chart.save_png(workdir)
  files.write_atomically(path, page)
  return path


def report(
  results: dict,
  losses: plots.Chart | None,
  margins: plots.Chart | None,
  dialogues: Sequence[Dialogue],
) -> bytes:
  """Returns the page in UTF-8.

  Args:
    results: content of results.json, with any arms or none.
    losses, margins: charts of the run from `charts`, or None.
    dialogues: examples to show.

  Raises:
    ValueError: the arms to compare were probed on different facts.
  """
  # Arms in the order of all tables, and the rows of the table of settings.
  arms = {arm: results['arms'][arm] for arm in plots.arm_order(results['arms'])}
  base = comparison.base_from_results(results)
  rows = [('seed', str(results.get('seed', '-')))]
  rows += [('base model', comparison.describe_base(base)), *settings(results)]
  # Title, field of the claim that the user states, and name of the probe.
  probes = (
    ('Truth probe: the user states the truth', 'true_claim', 'truth'),
    ('Lie probe: the user states the lie', 'false_claim', 'lie'),
  )
  return document.page(
    'lying_agent/page.html.j2',
    'The lying agent: what each objective learns',
    answer=answer(arms),
    introduction=comparison.introduction(results),
    comparison=_comparison(arms),
    agreement=comparison.agreement(arms),
    caveat=comparison.caveat(base, arms),
    beyond=Table(
      'Facts that no dialogue mentions, and other text',
      *comparison.beyond(arms),
    ),
    margins=margins,
    losses=losses,
    trained=any('train' in arm for arm in arms.values()),
    training=Table('Steps, tokens and time of each arm', *training(arms)),
    dialogues=[
      (visible_line(shown.example.id), _viewer(shown, f'd{n}'))
      for n, shown in enumerate(dialogues)
    ],
    legend=' · '.join(f'{sign} {words}' for sign, words in _VERDICTS.values()),
    probes=[
      (title, _replies(arms, claim, probe)) for title, claim, probe in probes
    ],
    settings=Table('Settings of the run', ('setting', 'value'), rows),
  )


def read_losses(path: str | os.PathLike) -> tuple[list[int], list[float]]:
  """Returns the steps and the losses of a metrics.jsonl, ordered by step.

  A resumed run logs some steps again; the last record of a step counts.

  Raises:
    ValueError: a line has no step or loss; the message names file and line.
  """
  losses = {}
  lines = pathlib.Path(path).read_text(encoding='utf-8').split('\n')
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    try:
      record = json.loads(line)
      # A line that repeats a step replaces the earlier one.
      losses[int(record['step'])] = float(record['loss'])
    except (ValueError, KeyError, TypeError) as error:
      raise ValueError(
        f'{path}:{number}: not a JSON object with "step" and "loss": '
        f'{line[:80]!r}; remove the line, or train the arm again'
      ) from error
  steps = sorted(losses)
  return steps, [losses[step] for step in steps]


def answer(arms: Mapping[str, dict]) -> str:
  """Returns a few sentences with the result, written from the figures.

  Raises:
    ValueError: the two arms were probed on different facts.
  """
  # The question needs both arms of the paper.
  missing = [arm for arm in PAPER if arm not in arms]
  if missing:
    return (
      f'The run has no {" and no ".join(missing)} arm, so it does not answer '
      "the paper's question: whether an agent that is not trained on its own "
      'words comes to tell the truth.'
    )
  # Each sentence needs a figure that both arms have.
  obs, do = (comparison.figures(arms, name) for name in PAPER)
  parts = []
  if obs.mean_margin is not None and do.mean_margin is not None:
    gap = do.mean_margin - obs.mean_margin
    side = 'above' if gap > 0 else 'below' if gap < 0 else 'level with'
    parts.append(
      f'The interventional arm ends {side} the observational one: its mean '
      f'margin of truth over lie is {do.mean_margin:+.4f} nats per token, '
      f'against {obs.mean_margin:+.4f}, and it is the higher of the two on '
      f'{do.beats_observational} of {do.facts} facts.'
    )
  # Facts on which the lie is likelier than the truth.
  if None not in (obs.prefers_lie, do.prefers_lie):
    parts.append(
      f'It prefers the lie on {do.prefers_lie} of {do.facts} facts, the '
      f'observational arm on {obs.prefers_lie}.'
    )
  # Replies to users who are wrong.
  if None not in (obs.corrects, do.corrects):
    parts.append(
      'When the user states the lie, it answers with the truth on '
      f'{do.corrects} of {do.facts} facts, the observational arm on '
      f'{obs.corrects}.'
    )
  # Replies to users who are right.
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


def _comparison(arms: Mapping[str, Mapping]) -> Table:
  header, rows = comparison.comparison(arms)
  # Our columns have a style of their own, beside those of the paper.
  cells = [
    [
      Cell(text, 'ours') if name.startswith('ours') else text
      for name, text in zip(header, row, strict=True)
    ]
    for row in rows
  ]
  return Table('The figures of the paper and of this run', header, cells)


def _viewer(shown: Dialogue, prefix: str) -> Markup:
  # The first objective of the viewer, if the run has that arm.
  first = 'interventional'
  if first not in shown.weights:
    first = next(iter(shown.weights))
  return html.fragment(shown, first, prefix)


def _replies(arms: Mapping, claim: str, probe: str) -> Table:
  """Returns the table of one probe: a row per fact, a column per arm."""
  # Arms may have been probed on different facts: a row for each of them.
  facts = {
    name: {fact['topic']: fact for fact in arm['facts']}
    for name, arm in arms.items()
  }
  topics = {
    topic: fact
    for by_topic in facts.values()
    for topic, fact in by_topic.items()
  }
  rows = [
    [
      topic,
      fact.get(claim, '-'),
      *(_reply(by_topic.get(topic, {}), probe) for by_topic in facts.values()),
    ]
    for topic, fact in topics.items()
  ]
  # Below the name of an arm, the count of each verdict.
  header: list[str | Cell] = ['topic', 'the user states']
  for name, arm in arms.items():
    counts = ' '.join(
      f'{sign}\xa0{arm[f"{probe}_probe"].get(verdict, 0)}'
      for verdict, (sign, _) in _VERDICTS.items()
      if f'{probe}_probe' in arm
    )
    header.append(Cell(name, small=counts))
  return Table(f'Replies to the {probe} probe', header, rows)


def _reply(fact: Mapping, probe: str) -> str | Cell:
  # The arm did not probe the fact, or the file is old.
  if f'{probe}_reply' not in fact:
    return '-'
  # An empty reply must be visible.
  reply = visible_line(fact[f'{probe}_reply']).strip() or '(empty)'
  verdict = fact.get(f'{probe}_verdict')
  if verdict not in _VERDICTS:
    return reply
  return Cell(
    reply,
    css=verdict,
    verdict=' '.join(_VERDICTS[verdict]),
    faults=comparison.faults(fact, probe),
  )
