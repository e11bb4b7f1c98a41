"""report.html: figures as in report.md, and nothing from outside."""

import html
import json
import re

import numpy as np
import pytest

from isft_jax.report import charts, document, plots
from isft_jax.report.lying_agent import page
from isft_jax.report.viewer import terminal
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
  return page.report(results, curves, steps, dialogues).decode()


def rows(text, first_cell):
  """Rows of all tables that begin with this cell, as lists of plain texts."""
  found = re.findall(r'<tr><th scope="row">(.*?)</t[dh]></tr>', text, re.S)
  cells = [re.split(r'</t[dh]><t[dh][^>]*>', row) for row in found]
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


def test_every_margin_is_a_bar_that_says_its_value(results):
  bars = re.findall(
    r'aria-label="(\S+ [+-][0-9.]+)"', charts.margins(results['arms'])
  )
  # The interventional arm's highest first, arms in the order of every table.
  assert bars == [
    'base +0.000',
    'observational +0.250',
    'interventional +0.750',
    'weighted(0.3) +0.200',
    'base +0.250',
    'observational -0.500',
    'interventional +0.500',
    'weighted(0.3) +0.100',
  ]


def test_bars_start_at_zero_and_are_as_long_as_the_margin(results):
  figure = charts.margins(results['arms'])
  zero = float(re.search(r'--zero:([0-9.]+)%', figure)[1])
  values = re.findall(r'aria-label="\S+ ([+-][0-9.]+)"', figure)
  spans = re.findall(r'margin-left:([0-9.]+)%;width:([0-9.]+)%', figure)
  lengths = []
  for value, (left, width) in zip(map(float, values), spans, strict=True):
    start, stop = float(left), float(left) + float(width)
    assert (start if value >= 0 else stop) == pytest.approx(zero, abs=0.02)
    lengths.append(float(width) / abs(value) if value else np.nan)
  # Two decimals of a percent are printed.
  assert np.nanmax(lengths) == pytest.approx(np.nanmin(lengths), abs=0.1)


def test_loss_curves_leave_out_what_a_log_scale_cannot_show():
  figure = charts.loss_curves(
    {'observational': [4.0, float('nan'), 0.0, 1.0]},
    {'observational': [10, 20, 30, 40]},
  )
  (raw,) = re.findall(r'class="raw".*? d="M(.*?)"', figure)
  (start, top), (stop, bottom) = (map(float, p.split()) for p in raw.split('L'))
  assert (start, stop) == (0, 100)  # the first step and the last
  assert top + bottom == pytest.approx(
    100, abs=0.02
  )  # equal room on both sides
  assert 'nan' not in figure and 'inf' not in figure


@pytest.mark.parametrize('curves', [{}, {'base': []}, {'base': [float('nan')]}])
def test_no_losses_no_chart(curves):
  steps = {arm: list(range(len(losses))) for arm, losses in curves.items()}
  assert charts.loss_curves(curves, steps) == '<p>No arm was trained.</p>'


@pytest.mark.parametrize('low', [0.02, 0.5, 4.7])
@pytest.mark.parametrize('times', [1.01, 1.1, 3, 30, 3e5])
def test_the_loss_axis_has_a_few_ticks(low, times):
  curves = {'base': [low, low * times]}
  figure = charts.loss_curves(curves, {'base': [1, 2]})
  ticks = re.findall(r'"tick y" style="top:([0-9.]+)%"', figure)
  assert 2 <= len(ticks) <= 12
  gaps = -np.diff(np.array(ticks, float))
  assert gaps.min() > 4  # percent of 240 pixels: labels do not touch


def test_arms_differ_in_dashes_as_well_as_in_color():
  arms = [*plots.COLORS, 'weighted(0.3)', 'weighted(0.7)', 'USER=1']
  style = charts.style_index(arms)
  assert list(style.values()) == list(range(9))
  assert len({charts._dashes(index) for index in style.values()}) == 9


# ----------------------------------------------------------------- the document


def test_the_page_needs_no_network(results):
  text = report(results, [dialogue()])
  assert not re.search(r'https?:|//[a-z]', text.split('<body>')[0])
  assert not re.search(r'(src|href|action|data)\s*=\s*["\']?(?!["\'#])', text)
  assert not re.search(r'<(link|img|iframe|object|embed|base)\b', text)
  assert '@import' not in text and 'url(' not in text
  assert "default-src 'none'" in text


def test_what_a_run_wrote_cannot_become_markup(results):
  results['seed'] = '<script>'
  results['environment'] = {'<i>': '<script>'}
  for fact in results['arms']['base']['facts']:
    fact['truth_reply'] = '</td><script>alert(1)</script>\x00'
  text = report(results, [dialogue()])
  assert text.count('<script>') == 1
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
  assert text.count('class="smooth"') == 3
  assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ['report.html']


def test_write_needs_the_metrics_of_a_trained_arm(tmp_path, results):
  with pytest.raises(FileNotFoundError, match=r'metrics\.jsonl'):
    page.write(tmp_path, results, [])
  assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------- contrast


def palettes():
  css = document._read('page.css')
  light, dark = (
    dict(re.findall(r'--([a-z0-9-]+): (#[0-9a-f]{6})', block))
    for block in re.findall(r':root \{(.*?)\}', css, re.S)
  )
  return {'light': light, 'dark': dark}


def contrast(one, other):
  """The contrast of two colors '#rrggbb': WCAG 2.2, relative luminance."""

  def luminance(color):
    c = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]

  low, high = sorted((luminance(one), luminance(other)))
  return (high + 0.05) / (low + 0.05)


def test_contrast_of_known_pairs():
  assert contrast('#000000', '#ffffff') == pytest.approx(21)
  assert contrast('#767676', '#ffffff') == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize('mode', ['light', 'dark'])
def test_text_passes_wcag_aa(mode):
  color = palettes()[mode]
  authors = [a.name.lower() for a in Provenance if a != Provenance.PAD]
  pairs = [('ink', f'{author}-tint') for author in authors]  # scored tokens
  pairs += [('paper', author) for author in authors]  # letter marks
  for ground in ('paper', 'card'):
    pairs += [
      (text, ground) for text in ('ink', 'quiet', 'link', 'lie', 'truth')
    ]
  too_low = {
    pair: round(contrast(color[pair[0]], color[pair[1]]), 2)
    for pair in pairs
    if contrast(color[pair[0]], color[pair[1]]) < 4.5
  }
  assert too_low == {}


@pytest.mark.parametrize('mode', ['light', 'dark'])
def test_lines_and_bars_pass_wcag_aa(mode):
  color = palettes()[mode]
  arms = [f'arm-{index}' for index in range(9)]
  assert min(contrast(color[a], color['paper']) for a in arms) >= 3
  assert min(contrast(color[a], color['card']) for a in arms) >= 3
  assert len({color[a] for a in arms}) == 9


def test_the_dark_page_defines_what_the_light_one_does():
  light, dark = palettes().values()
  assert light.keys() == dark.keys()
  used = set(re.findall(r'var\(--([a-z0-9-]+)', document._read('page.css')))
  assert used <= light.keys() | {'author', 'tint', 'weight', 'zero'}


def test_the_terminals_fills_pass_wcag_aa():
  """Black on xterm's color cube (16 to 231) and its grays (232 to 255)."""

  def color(index):
    if index >= 232:
      return (
        f'#{8 + 10 * (index - 232):02x}' + f'{8 + 10 * (index - 232):02x}' * 2
      )
    levels = (0, 95, 135, 175, 215, 255)
    cube = index - 16
    return '#' + ''.join(f'{levels[cube // 6**k % 6]:02x}' for k in (2, 1, 0))

  fills = terminal.FILLS
  assert list(fills) == list(Provenance)
  assert min(contrast('#000000', color(f)) for f in fills.values()) > 4.5
