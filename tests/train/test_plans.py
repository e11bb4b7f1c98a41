"""A resumed run knows the budget of its plan, and says how far planning is."""

import json

import pytest

from isft_jax import progress_bar
from isft_jax.config import ModelConfig, OptimConfig, RunConfig
from isft_jax.data.batching import filling, packing, pipeline
from isft_jax.data.records import dataset
from isft_jax.train import loop, plans
from tests.dialogues import dialogues, write_records


@pytest.fixture
def passes(monkeypatch):
  """The budgets for which records were packed."""
  packed, place = [], packing._place

  def counted(*args, **kwargs):
    packed.append(kwargs['targets_per_row'])
    return place(*args, **kwargs)

  monkeypatch.setattr(packing, '_place', counted)
  return packed


def make_config(data_folder, **settings):
  return RunConfig(
    records=str(data_folder / 'records'),
    tokenizer=str(data_folder / 'tokenizer'),
    seq_len=256,
    model=ModelConfig(
      vocab_size=512, width=16, layers=1, head_size=4, mlp_width=32
    ),
    optim=OptimConfig(learning_rate=1e-2),
    **settings,
  )


def sources(config, known):
  records = dataset.Records(config.records)
  return pipeline.BatchSource(records, config, known=known)


def test_a_known_plan_is_packed_once(data_folder, passes):
  config, known = make_config(data_folder), {}
  first = sources(config, known).plan
  assert len(passes) > 2
  (entry,) = known.values()
  assert entry == (first.targets_per_row, first.plans[0].digest())
  passes.clear()
  again = sources(config, known).plan
  assert passes == [first.targets_per_row]
  assert again.plans[0].digest() == first.plans[0].digest()


@pytest.mark.parametrize(
  'settings',
  [
    {'seed': 1},
    {'seq_len': 320},
    {'shuffle': False},
    {'documents_per_row': 2},
    {'objective': 'observational'},
    {'plan_objective': 'observational'},
  ],
)
def test_another_plan_is_searched_for(settings, data_folder, passes):
  config, known = make_config(data_folder), {}
  sources(config, known)
  for name, value in settings.items():
    setattr(config, name, value)
  passes.clear()
  plan = sources(config, known).plan
  assert len(passes) > 2 and len(known) == 2
  assert plan.plans[0].digest() == sources(config, {}).plan.plans[0].digest()


def test_other_records_are_planned_anew(data_folder, passes, tmp_path):
  config, known = make_config(data_folder), {}
  sources(config, known)
  config.records = str(write_records(tmp_path / 'other', dialogues()[1:]))
  passes.clear()
  sources(config, known)
  assert len(passes) > 2 and len(known) == 2


@pytest.mark.parametrize(
  'entry',
  [(8, 'right'), (1 << 60, 'right'), (-8, 'right'), (0, 'right'), (96, 'a')],
)
def test_a_wrong_entry_is_replaced(entry, data_folder, passes):
  config, known = make_config(data_folder), {}
  plan = sources(config, known).plan
  right = dict(known)
  ((key, (_, digest)),) = known.items()
  known[key] = entry[0], digest if entry[1] == 'right' else entry[1]
  again = sources(config, known).plan
  assert again.plans[0].digest() == plan.plans[0].digest()
  assert known == right


def test_a_given_budget_needs_no_search(data_folder, passes):
  known = {}
  sources(make_config(data_folder, targets_per_row=256), known)
  assert (passes, known) == ([256], {})


def test_a_resumed_run_reads_the_budgets_from_its_workdir(
  data_folder, passes, tmp_path
):
  config = make_config(data_folder, steps=1)
  config.heldout = config.records
  loop.train(config, tmp_path)
  assert len(passes) > 3
  stored = json.loads((tmp_path / 'plans.json').read_text())
  assert len(stored) == 2  # training and held-out records
  passes.clear()
  loop.train(config, tmp_path)
  assert len(passes) == 2
  assert json.loads((tmp_path / 'plans.json').read_text()) == stored


# ------------------------------------------------------------- the file of them

KEY, DIGEST = 'ab' * 32, 'cd' * 32


def test_plans_are_read_as_they_were_written(tmp_path):
  assert plans.read(None) == plans.read(tmp_path) == {}
  plans.write(tmp_path, {})
  assert [*tmp_path.iterdir()] == []
  plans.write(tmp_path, {KEY: (128, DIGEST)})
  assert plans.read(tmp_path) == {KEY: (128, DIGEST)}
  assert [path.name for path in tmp_path.iterdir()] == ['plans.json']


@pytest.mark.parametrize(
  'text',
  [
    '',
    'null',
    '[]',
    '7',
    '{"a"',
    '\0\0\0',
    '[' * 100_000,
    f'{{"{KEY}": 7}}',
    f'{{"{KEY}": []}}',
    f'{{"{KEY}": ["8", "{DIGEST}"]}}',
    f'{{"{KEY}": [true, "{DIGEST}"]}}',
    f'{{"{KEY}": [8.5, "{DIGEST}"]}}',
    f'{{"{KEY}": [8, 9]}}',
    f'{{"{KEY}": [8, "short"]}}',
  ],
)
def test_a_damaged_file_is_ignored(text, tmp_path):
  (tmp_path / 'plans.json').write_text(text)
  assert plans.read(tmp_path) == {}
  plans.write(tmp_path, {KEY: (128, DIGEST)})
  assert plans.read(tmp_path) == {KEY: (128, DIGEST)}


# ------------------------------------------------------------------- progress


def test_progress_counts_passes(monkeypatch, capsys):
  now = 0.0
  monkeypatch.setattr(progress_bar.time, 'monotonic', lambda: now)
  with plans.Progress() as progress:
    for _ in range(2):  # passes
      for done in range(0, 1_000_000, 100_000):
        progress(done, 1_000_000)
        now += 9.0
  assert capsys.readouterr() == (
    '',
    'planning rows  70%  700,000/1,000,000 records  pass 1  1:03 so far\n'
    'planning rows  40%  400,000/1,000,000 records  pass 2  2:06 so far\n'
    'planning rows  90%  900,000/1,000,000 records  pass 2  in 3:00\n',
  )


def test_a_plan_reports_its_progress(data_folder, monkeypatch):
  monkeypatch.setattr(filling, '_BLOCK', 10)
  reports = []
  config = make_config(data_folder, targets_per_row=256)
  pipeline.BatchSource(
    dataset.Records(config.records),
    config,
    progress=lambda *numbers: reports.append(numbers),
  )
  assert reports == [(0, 40), (10, 40), (20, 40), (30, 40)]
