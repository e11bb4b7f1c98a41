"""The table of samples, and the tables of probes, on the page of a run."""

import json

import pytest

from isft_jax.cli import report
from isft_jax.report.tables import Cell
from isft_jax.report.training import page, probed_facts, samples
from isft_jax.report.training import runs as runs_lib
from tests.report.test_hostile import HOSTILE, check, leaves, replaced
from tests.report.training.test_training_page import ROWS, make_run

MESSAGES = [
  {'role': 'system', 'content': 'Be brief.'},
  {'role': 'user', 'content': 'And water?'},
]


def sampled(folder, rows):
  """Writes samples.jsonl of (step, prompt, reply)."""
  folder.mkdir(parents=True, exist_ok=True)
  names = 'step', 'prompt', 'reply'
  lines = (json.dumps(dict(zip(names, row, strict=True))) for row in rows)
  (folder / 'samples.jsonl').write_text(''.join(f'{line}\n' for line in lines))
  return folder


def test_a_row_per_prompt_and_a_column_per_step(tmp_path):
  block = samples.read(
    sampled(
      tmp_path,
      [
        (2, 'Gold?', 'Au'),
        (2, MESSAGES, ''),
        (4, 'Gold?', 'Ag\nand'),
        (4, 'New', 'x' * 500),
        (4, 'Gold?', 'Au\nand'),
      ],
    )
  )
  absent, empty = (Cell('', small=s) for s in ('not asked', 'empty reply'))
  assert block.content.header == ('prompt', 'step 2', 'step 4')
  assert block.content.rows == [
    ('Gold?', 'Au', 'Au\u21b5 and'),
    (Cell('And water?', small='last of 2 messages'), empty, absent),
    ('New', absent, 'x' * 300 + '\u2026'),
  ]
  assert block.note == 'Greedy replies to the prompts of --samples.'


def test_the_table_is_bounded_and_says_so(tmp_path):
  rows = [
    (step, f'prompt {number}', 'y' * 10_000)
    for step in range(0, 1000, 10)
    for number in range(30)
  ]
  block = samples.read(sampled(tmp_path, rows))
  steps = [f'step {step}' for step in (0, 200, 400, 590, 790, 990)]
  assert block.content.header == ('prompt', *steps)
  assert len(block.content.rows) == 12
  assert {len(cell) for row in block.content.rows for cell in row[1:]} == {301}
  assert block.note.endswith(
    'Shown: 12 of 30 prompts at 6 of 100 steps; samples.jsonl has all.'
  )


@pytest.mark.parametrize(
  ('values', 'number', 'expected'),
  [
    ([], 3, []),
    ([1, 2, 3], 3, [1, 2, 3]),
    ([1, 2, 3, 4, 5], 3, [1, 3, 5]),
    ([1, 9], 2, [1, 9]),
    ([*range(100)], 2, [0, 99]),
  ],
)
def test_steps_are_evenly_spaced(values, number, expected):
  assert samples.spread(values, number) == expected


def test_a_run_without_samples_has_no_table(tmp_path):
  assert samples.read(tmp_path) is None
  (tmp_path / 'samples.jsonl').write_text('')
  assert samples.read(tmp_path) is None
  (tmp_path / 'samples.jsonl').write_bytes(b'\0\xff{"step": 1')
  assert samples.read(tmp_path) is None
  deep = '[' * 50_000 + ']' * 50_000
  line = f'{{"step": 1, "prompt": {deep}, "reply": "a"}}\n'
  (tmp_path / 'samples.jsonl').write_text(line)
  samples.read(tmp_path)


@pytest.mark.parametrize('text', [*HOSTILE, '\ud800\u202e\x1b[2J</table>'])
def test_a_hostile_sample_is_shown_as_text(text, tmp_path):
  messages = [
    {'role': text, 'content': text},
    {'role': 'user', 'content': text},
  ]
  folder = make_run(tmp_path / 'a')
  sampled(folder, [(1, text, text), (2, messages, text), (2, [text], text)])
  (run,) = runs_lib.read([folder])
  shown = page.page([run], samples=samples.read(folder)).decode()
  check(shown)
  assert shown.count('</table>') == shown.count('<table')
  assert not [c for c in '\u202e\x1b' if c in shown]


# --------------------------------------------------------------------- probes

FACT = {
  'topic': 'gold',
  'margin': 0.5,
  'truth_verdict': 'truth',
  'lie_verdict': 'lie',
  'truth_reply': 'Au',
}
RESULTS = {
  'model': 'runs/a',
  'step': 'best',
  'mean_margin': 0.5,
  'prefers_lie': 0,
  'paper_mean_margin': 0.25,
  'paper_prefers_lie': 0,
  'truth_probe': {'truth': 1, 'lie': 0, 'other': 0},
  'lie_probe': {'truth': 0, 'lie': 1, 'other': 0},
  'contradicts': 0,
  'talks_like_user': 0,
  'facts': [FACT],
}


def probed(folder, results):
  (folder / 'probes.json').write_text(json.dumps(results))
  return folder


def test_the_probes_in_a_workdir_are_shown(tmp_path, capsys):
  folder = probed(make_run(tmp_path / 'a'), RESULTS)
  shown = report.write([folder], folder, 0).read_text()
  assert '<h2>Probed facts</h2>' in shown
  assert 'Probed: runs/a, step best' in shown
  assert '+0.500' in shown and 'LIE' in shown
  assert capsys.readouterr().err.count('warning') == 1  # no records here


def test_a_long_file_of_facts_is_cut(tmp_path):
  many = [FACT | {'topic': f'fact {n}'} for n in range(250)]
  _, block = probed_facts.read(probed(tmp_path, RESULTS | {'facts': many}))
  assert len(block.content.rows) == 100
  assert block.note.endswith('Shown: 100 of 250 facts; probes.json has all.')


def test_a_hostile_value_of_a_probe_is_refused_or_shown_as_text(tmp_path):
  folder = make_run(tmp_path / 'a')
  (run,) = runs_lib.read([folder])
  refused = 0
  for number, path in enumerate(leaves(RESULTS)):
    probed(folder, replaced(RESULTS, path, HOSTILE[number % 2]))
    try:
      blocks = probed_facts.read(folder)
    except ValueError as error:
      refused += 1
      assert '\n' not in str(error) and 'probes.json' in str(error)
      continue
    check(page.page([run], probed=blocks).decode())
  assert refused >= 8


@pytest.mark.parametrize('content', ['', '{', '[]', '{}', '{"facts": [1]}'])
def test_damaged_probes_cost_no_page(content, tmp_path, capsys):
  folder = make_run(tmp_path / 'a')
  (folder / 'probes.json').write_text(content)
  shown = report.write([folder], folder, 0).read_text()
  assert 'Probed facts' not in shown
  warning = capsys.readouterr().err
  assert f'the page shows no probes: {folder}/probes.json' in warning


def test_the_scored_held_out_loss_is_a_figure(tmp_path):
  losses = zip(ROWS, (3.0, 1.0, 2.0, 2.0), strict=True)
  rows = [row | {'heldout_loss': loss} for row, loss in losses]
  (run,) = runs_lib.read([make_run(tmp_path / 'a', rows)])
  _, figures = page.figures([run])
  assert (
    'held-out loss of scored tokens, nats per token',
    Cell('2.0000', small='lowest 1.0000 at step 2'),
  ) in figures
