"""report.html: the figures of results.json, and nothing from outside."""

import copy
import dataclasses
import html
import json
import re

import numpy as np
import pytest

from isft_jax.report import rebuild
from isft_jax.report.lying_agent import charts, page
from isft_jax.report.viewer.shown import Dialogue
from isft_jax.types import Example, Provenance

LIE, TRUTH = 'It is K2.', 'It is <Everest>.'


def arm(margins, verdicts, train=True):
  """An arm over two facts; the same replies in both probes."""
  probe = {v: verdicts.count(v) for v in ('truth', 'lie', 'other')}
  replies = {'truth': TRUTH, 'lie': LIE, 'other': ''}
  result = {
    'mean_margin': sum(margins) / len(margins),
    'prefers_lie': sum(margin < 0 for margin in margins),
    'truth_probe': probe,
    'lie_probe': probe,
    'facts': [
      {
        'topic': topic,
        'margin': margin,
        'true_claim': TRUTH,
        'false_claim': LIE,
        'truth_reply': replies[verdict],
        'lie_reply': replies[verdict],
        'truth_verdict': verdict,
        'lie_verdict': verdict,
      }
      for topic, margin, verdict in zip(
        ('tallest <mountain>', 'a & b'), margins, verdicts, strict=True
      )
    ],
  }
  if train:
    result['train'] = {'steps': 4, 'scored_tokens': 36000}
  return result


@pytest.fixture
def results():
  return {
    'config': {'model': {'layers': 3, 'vocab_size': 1024}},
    'seed': 7,
    'arms': {
      'weighted(0.3)': arm([0.1, 0.2], ['truth', 'truth']),
      'interventional': arm([0.5, 0.75], ['truth', 'other']),
      'base': arm([0.25, 0.0], ['truth', 'truth'], train=False),
      'observational': arm([-0.5, 0.25], ['lie', 'other']),
    },
  }


def dialogue():
  example = Example(
    id='talk-1',
    tokens_T=np.array([5, 6], np.int32),
    provenance_T=np.array([Provenance.USER, Provenance.AGENT], np.uint8),
    segment_T=np.array([0, 1], np.int32),
    verdict_T=np.array([0, 2], np.uint8),
  )
  weights = {'observational': [0.0, 1.0], 'interventional': [0.0, 0.0]}
  weights = {name: np.array(w, np.float32) for name, w in weights.items()}
  return Dialogue(example, ['<b>hi', ' K2'], weights)


def report(results, dialogues=()):
  names = [name for name, arm in results['arms'].items() if 'train' in arm]
  curves = {name: [4.0, 2.0, float('nan'), 1.0] for name in names}
  steps = {name: [1, 2, 3, 4] for name in names}
  losses = charts.loss_curves(curves, steps)
  margins = charts.margins(results['arms'])
  return page.report(results, losses, margins, dialogues).decode()


def rows(text, first_cell):
  """Rows of all tables that begin with this cell, as lists of plain texts."""
  found = re.findall(
    r'<tr>\s*<th scope="row">(.*?)</t[dh]>\s*</tr>', text, re.S
  )
  cells = [re.split(r'</t[dh]>\s*<t[dh][^>]*>', row) for row in found]
  plain = [[html.unescape(re.sub('<[^>]*>', ' ', c)) for c in r] for r in cells]
  plain = [[' '.join(cell.split()) for cell in row] for row in plain]
  return [row for row in plain if row[0] == first_cell]


# ------------------------------------------------------------------- the answer


def test_the_answer_is_computed(results):
  assert page.answer(results['arms']) == (
    'The interventional arm ends above the observational one: its mean margin '
    'of truth over lie is +0.6250 nats per token, against -0.1250, and it is '
    'the higher of the two on 2 of 2 facts. It prefers the lie on 0 of 2 '
    'facts, the observational arm on 1. When the user states the lie, it '
    'answers with the truth on 1 of 2 facts, the observational arm on 0. When '
    'the user states the truth, it replies with something else on 1 of 2 '
    'facts, the observational arm on 2.'
  )


@pytest.mark.parametrize(
  ('interventional', 'side', 'higher'),
  [
    ([0.5, 0.75], 'above', 2),
    ([-0.5, 0.25], 'level with', 0),
    ([-0.9, 0.3], 'below', 1),
  ],
)
def test_a_run_that_fails_says_so(results, interventional, side, higher):
  results['arms']['interventional'] = arm(interventional, ['lie', 'lie'])
  answer = page.answer(results['arms'])
  assert f'ends {side} the observational one' in answer
  assert f'on {higher} of 2 facts' in answer


@pytest.mark.parametrize('arms', [(), ('base',), ('interventional',)])
def test_without_both_arms_there_is_no_answer(results, arms):
  results['arms'] = {name: results['arms'][name] for name in arms}
  assert 'does not answer' in page.answer(results['arms'])
  assert 'does not answer' in report(results)


def test_arms_probed_on_different_facts_do_not_compare(results):
  results['arms']['interventional']['facts'].pop()
  with pytest.raises(ValueError, match='a & b'):
    report(results)


# ---------------------------------------------------------------------- figures


def test_the_table_of_the_paper_beside_ours(results):
  text = report(results)
  assert rows(text, 'mean margin, nats per token') == [
    ['mean margin, nats per token', '+0.1250', '-0.1250', '+0.6250']
    + ['+0.1500', '-0.1311', '+1.0609']
  ]
  assert 'not comparable' in text


def test_lies_are_marked_by_sign_and_word_too(results):
  mountain = ['tallest <mountain>', 'a & b']
  truth, lie = (rows(report(results), topic)[-2:] for topic in mountain)
  said = ['✓ the truth ' + TRUTH, '✗ the lie ' + LIE, '✓ the truth ' + TRUTH]
  assert truth == [
    ['tallest <mountain>', claim, *said, '✓ the truth ' + TRUTH]
    for claim in (TRUTH, LIE)
  ]
  assert lie[0][2:] == ['✓ the truth ' + TRUTH] + ['? neither (empty)'] * 2 + [
    '✓ the truth ' + TRUTH
  ]


def test_settings_and_an_environment_if_there_is_one(results):
  assert rows(report(results), 'vocabulary') == [['vocabulary', '1,024']]
  results['environment'] = {
    'device_kinds': ['TPU v5e', 'TPU v5e'],
    'versions': {'jax': '0.10.2'},
  }
  text = report(results)
  assert rows(text, 'device kinds') == [['device kinds', 'TPU v5e, TPU v5e']]
  assert rows(text, 'versions: jax') == [['versions: jax', '0.10.2']]


def test_a_given_base_is_named_and_has_no_past(given_results):
  text = report(given_results)
  assert rows(text, 'base model') == [
    ['base model', 'SmolLM2-135M-Instruct, 134.5 M parameters, given']
  ]
  for word in ('pre-train', 'documents', 'scratch', '20,000'):
    assert word not in text
  assert rows(text, 'base (before)') == [
    ['base (before)', '+0.7500', '10 / 120', '3.5000']
  ]


def test_a_reply_that_contradicts_or_talks_like_the_user_says_so(given_results):
  truth, lie = rows(report(given_results), 'Japan')[-2:]
  claim = 'It uses the yen.'
  faults = 'contradicts the user talks like the user'
  assert truth[2:] == [
    '? neither Hm.',
    f'✓ the truth {faults} {claim}',
    f'✓ the truth {faults} {claim}',
  ]
  # Who contradicts a user who is wrong is right.
  assert lie[2:] == [
    '✗ the lie talks like the user It uses the won.',
    f'✓ the truth {claim}',
    f'✓ the truth {claim}',
  ]


def test_agreement_and_caveat_have_their_weight_in_bold(results):
  text = ' '.join(report(results).split())
  assert 'in mean margin, as in the paper: <strong>yes</strong>.' in text
  assert 'Absolute figures are <strong>not comparable</strong> with' in text


def test_training_is_shown_of_trained_arms_only(results):
  text = report(results).split('<h2>Training</h2>')[1]
  assert rows(text, 'interventional') == [
    ['interventional', '4', '36,000', '-', '-']
  ]
  assert rows(text, 'base') == []


@pytest.mark.parametrize(
  'arms', [(), ('base',), ('interventional',), ('base', 'observational')]
)
def test_any_subset_of_arms(results, arms):
  results['arms'] = {name: results['arms'][name] for name in arms}
  text = report(results)
  (beats,) = rows(text, 'facts where L_do beats L_obs')
  assert beats[1:] == [*('-' for _ in arms), '-', '33 / 33']
  assert 'cannot be compared' in text
  assert ('No arm was trained.' in text) == (arms in ((), ('base',)))
  assert ('No fact was probed.' in text) == (arms == ())
  width = {len(row) for row in rows(text, 'a & b')}
  assert width == ({2 + len(arms)} if arms else set())


# ----------------------------------------------------------------- the document


def test_the_page_needs_no_network(results):
  text = report(results, [dialogue()])
  assert not re.search(r'https?:|//[a-z]', text.split('<body>')[0])
  assert not re.search(r'(src|href|action|data)\s*=\s*["\']?(?!["\'#])', text)
  assert not re.search(r'<(link|img|iframe|object|embed|base)\b', text)
  assert '@import' not in text and not re.search(r'url\((?!#)', text)
  assert "default-src 'none'" in text


def test_what_a_run_wrote_cannot_become_markup(results):
  results['seed'] = '<script>'
  results['environment'] = {'<i>': '<script>'}
  results['arms']['<script>"'] = copy.deepcopy(results['arms']['base'])
  results['arms']['<script>"']['train'] = {'steps': '<script>'}
  for fact in results['arms']['base']['facts']:
    fact['truth_reply'] = '</td><script>alert(1)</script>\x00'
    fact['true_claim'] = '<script>'
  shown = dialogue()
  shown = dataclasses.replace(
    shown,
    example=dataclasses.replace(shown.example, id='<script>'),
    weights=shown.weights | {'<script>': shown.weights['observational']},
  )
  text = report(results, [shown])
  assert text.count('<script>') == 1  # the viewer's own
  assert '&lt;/td&gt;&lt;script&gt;alert(1)&lt;/script&gt;\\x00' in text


def test_dialogues_are_shown_with_every_objective(results):
  text = report(results, [dialogue(), dialogue()])
  assert text.count('data-weights="1 0"') == 2
  assert text.count('<section class="viewer"') == 2
  assert text.count('type="radio" name="d1-objective"') == 2
  assert 'class="viewer"' not in report(results)


def test_every_tag_is_closed(results):
  text = report(results, [dialogue()])
  text = re.sub(r'<(script|style)>.*?</\1>', '', text, flags=re.S)
  stack = []
  for close, tag, end in re.findall(r'<(/?)([a-z0-9]+)\b[^>]*?(/?)>', text):
    if close:
      assert stack.pop() == tag
    elif not end and tag not in ('meta', 'input', 'br'):
      stack.append(tag)
  assert stack == []


def test_write(tmp_path, results):
  for name, found in results['arms'].items():
    if 'train' in found:
      (tmp_path / name).mkdir()
      with (tmp_path / name / 'metrics.jsonl').open('w') as file:
        for step in (1, 2, 3):
          print(json.dumps({'step': step, 'loss': 4.0 / step}), file=file)
  results['arms']['base']['facts'][0]['truth_reply'] = 'half \ud83d'
  path = page.write(tmp_path, results, [dialogue()])
  assert path == tmp_path / 'report.html'
  text = path.read_text(encoding='utf-8')
  assert text.startswith('<!DOCTYPE html>') and r'half \ud83d' in text
  assert text.count('<svg class="chart"') == 2
  for name in ('loss_curves', 'margins'):
    assert f'id="{name}-' in text
  # Nothing temporary stays behind.
  assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == [
    'loss_curves.png',
    'margins.png',
    'report.html',
  ]


def test_write_needs_the_metrics_of_a_trained_arm(tmp_path, results):
  with pytest.raises(FileNotFoundError, match=r'metrics\.jsonl'):
    page.write(tmp_path, results, [])
  assert list(tmp_path.iterdir()) == []


def test_an_old_workdir_is_made_again(tmp_path, results):
  """Its report.md, which no run writes any more, stays as it is."""
  del results['arms']['weighted(0.3)']
  (tmp_path / 'report.md').write_text('# The lying agent')
  (tmp_path / 'report.html').write_text('old')
  path = tmp_path / 'results.json'
  path.write_text(json.dumps(results))
  (again,) = rebuild.rebuild([str(path)])
  assert 'Margin of each fact' in again.read_text()
  assert (tmp_path / 'report.md').read_text() == '# The lying agent'


def test_two_pages_of_a_run_are_the_same_bytes(results):
  assert report(results, [dialogue()]) == report(results, [dialogue()])


def test_ids_stand_once(results):
  text = report(results, [dialogue(), dialogue()])
  ids = re.findall(r' id="([^"]*)"', text)
  assert len(ids) == len(set(ids)) > 10


# ----------------------------------------------------------------- the metrics


def test_read_losses(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  path.write_text(
    '{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 9.0}\n\n'
    # Resumed from step 1: step 2 is logged again.
    '{"step": 2, "loss": 2.0, "lr": 0.1}\n{"step": 3, "loss": NaN}\n'
  )
  steps, losses = page.read_losses(path)
  assert steps == [1, 2, 3]
  assert losses[:2] == [3.0, 2.0] and losses[2] != losses[2]


@pytest.mark.parametrize('line', ['{"step": 2, "lo', '{"step": 2}', '[1]'])
def test_a_bad_line_of_metrics_is_named(tmp_path, line):
  path = tmp_path / 'metrics.jsonl'
  path.write_text('{"step": 1, "loss": 3.0}\n' + line)
  with pytest.raises(ValueError, match=r'metrics\.jsonl:2: '):
    page.read_losses(path)
