"""isft-train --samples: replies to a few prompts, as the model learns."""

import dataclasses
import json
import shutil

import pytest

from isft_jax.config import (
  LoraConfig,
  MeshConfig,
  ModelConfig,
  OptimConfig,
  RunConfig,
)
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.inference import chat_loop
from isft_jax.inference import generate as generate_lib
from isft_jax.train import export, loop, saved
from isft_jax.train import metrics as metrics_lib
from tests.dialogues import (
  chatml_tokenizer,
  dialogues,
  plain_renderer,
  write_records,
)
from tests.train import hosts
from tests.train.test_best import left, stop_before

GOLD = [{'role': 'user', 'content': 'Tell me about gold.'}]
ROWS = (
  {'prompt': 'Tell me about water.'},
  {'messages': GOLD, 'id': 7},
  {'prompt': 'Hi'},
  {'prompt': 'How are you?'},
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('data')
  write_records(folder / 'records', dialogues()[:16], heldout=4)
  return folder


@pytest.fixture
def config(folder):
  return RunConfig(
    records=str(folder / 'records'),
    seq_len=256,
    targets_per_row=256,
    steps=4,
    log_every=100,
    eval_every=2,
    checkpoint_every=3,
    model=ModelConfig(
      vocab_size=512, width=16, layers=1, head_size=4, mlp_width=32
    ),
    optim=OptimConfig(learning_rate=1e-2),
    mesh=MeshConfig(data=2, fsdp=4),
  )


def rows_of(workdir):
  text = (workdir / 'samples.jsonl').read_text()
  return [json.loads(line) for line in text.splitlines()]


def train(config, workdir, rows=ROWS):
  return loop.train(config, workdir, samples=rows, sample_tokens=8)


@pytest.fixture(scope='module')
def whole(folder, tmp_path_factory):
  """A run that was never interrupted: its workdir. To read only."""
  workdir = tmp_path_factory.mktemp('whole')
  train(config.__wrapped__(folder), workdir)
  return workdir


def test_prompts_are_answered_at_each_evaluation_on_a_sharded_model(
  config, whole, capsys
):
  rows = rows_of(whole)
  prompts = [ROWS[0]['prompt'], GOLD, 'Hi', 'How are you?']
  assert [(row['step'], row['prompt']) for row in rows] == [
    *((2, prompt) for prompt in prompts),
    *((4, prompt) for prompt in prompts),
  ]
  assert {(*row,) for row in rows} == {('step', 'prompt', 'reply')}
  # The replies of the saved model.
  model = saved.chat_model_from_run(str(whole))
  replies = model.reply(
    [model.prompt(chat_loop.prompt_in(dict(row), raw=False)) for row in ROWS],
    8,
    model.stop_texts,
  )
  assert [row['reply'] for row in rows[4:]] == [each.text for each in replies]
  assert any(row['reply'] for row in rows)


def test_it_compiles_once_and_shows_the_first_replies(config, tmp_path, capsys):
  config = dataclasses.replace(config, eval_every=1)
  sizes = []
  begin = generate_lib._draw_block._cache_size()

  def progress(step, seconds):
    sizes.append(generate_lib._draw_block._cache_size() - begin)
    return ''

  config.log_every = 1
  loop.train(config, tmp_path, samples=ROWS, sample_tokens=8, progress=progress)
  assert set(sizes[1:]) <= {0, 1}
  lines = [x for x in capsys.readouterr().out.splitlines() if '  sample  ' in x]
  assert len(lines) == 4 * 3
  assert lines[0].startswith(
    '  train            step     1/4  sample  Tell me about water. -> '
  )
  assert 'sample  Tell me about gold. -> ' in lines[1]


def test_a_run_without_prompts_is_unchanged(config, whole, tmp_path):
  loop.train(config, tmp_path)
  assert not (tmp_path / 'samples.jsonl').exists()
  with_samples, without = (
    [
      {k: v for k, v in row.items() if k != 'seconds'}
      for row in metrics_lib.read(workdir / 'metrics.jsonl')
    ]
    for workdir in (whole, tmp_path)
  )
  assert with_samples == without


@pytest.mark.parametrize('at_step', [2, 3, 4])
def test_a_killed_run_has_no_step_twice(
  config, whole, tmp_path, monkeypatch, at_step
):
  with monkeypatch.context() as patch:
    stop_before(patch, at_step)
    with pytest.raises(KeyboardInterrupt):
      train(config, tmp_path)
  assert left(tmp_path) == ([3] if at_step > 3 else [])
  train(config, tmp_path)
  assert rows_of(tmp_path) == rows_of(whole)


def test_a_damaged_file_is_repaired_and_nothing_whole_is_lost(
  config, whole, tmp_path, capsys
):
  workdir = tmp_path / 'run'
  shutil.copytree(whole, workdir)
  path = workdir / 'samples.jsonl'
  lines = path.read_bytes().splitlines(keepends=True)
  lines[3] = b'\0\0\0' + lines[3]
  path.write_bytes(b''.join(lines) + b'{"step": 4, "pro')
  train(config, workdir)
  assert f'{path}: 2 damaged lines repaired' in capsys.readouterr().out
  assert rows_of(workdir) == rows_of(whole)


@pytest.mark.parametrize('base', ['float32', 'int8'])
def test_a_run_with_adapters_is_asked_with_its_base(
  config, whole, tmp_path, base
):
  export.export(str(whole), str(tmp_path / 'base'))
  config.model = dataclasses.replace(
    config.model, init_from=str(tmp_path / 'base'), param_dtype=base
  )
  config.steps, config.lora = 2, LoraConfig(rank=2)
  train(config, tmp_path / 'run', ROWS[:1])
  rows = rows_of(tmp_path / 'run')
  assert [(row['step'], row['prompt']) for row in rows] == [
    (2, ROWS[0]['prompt'])
  ]


def test_more_prompts_than_a_batch_are_all_answered(config, tmp_path):
  config.steps = 1
  rows = [{'prompt': f'Tell me about {n}.'} for n in range(19)]
  train(config, tmp_path, rows)
  assert [row['prompt'] for row in rows_of(tmp_path)] == [
    row['prompt'] for row in rows
  ]


def test_a_full_disk_is_named_with_its_file(config, tmp_path, monkeypatch):
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'samples.jsonl').symlink_to('/dev/full')
  monkeypatch.setattr('isft_jax.train.history.cut', lambda *_, **__: 0)
  with pytest.raises(OSError, match='No space left') as caught:
    train(config, tmp_path / 'run')
  assert caught.value.filename.endswith('samples.jsonl')


# ------------------------------------------------------------ what is refused


def refuse_to_compile(monkeypatch):
  def begin(*_):
    raise AssertionError('the run began')

  monkeypatch.setattr(loop.start, 'begin', begin)


def test_a_prompt_that_the_template_refuses_ends_at_once(
  config, tmp_path, monkeypatch
):
  refuse_to_compile(monkeypatch)
  encoder = chatml_tokenizer()
  template = encoder.chat_template + (
    "{%- if messages[0].role != 'user' -%}"
    "{{- raise_exception('users begin') -}}{%- endif -%}"
  )
  records = write_records(
    tmp_path / 'records',
    [
      dataclasses.replace(each, segments=each.segments[1:])
      for each in dialogues()[:8]
    ],
    Renderer(encoder, template),
  )
  bad = {'messages': [{'role': 'assistant', 'content': 'Hi'}]}
  config = dataclasses.replace(config, records=records)
  with pytest.raises(ValueError, match=r'--samples, prompt 2: .*users begin'):
    train(config, tmp_path / 'run', (ROWS[0], bad))
  assert not (tmp_path / 'run').exists()


def test_records_that_were_encoded_piecewise_are_refused(
  config, tmp_path, monkeypatch
):
  refuse_to_compile(monkeypatch)
  config.records = write_records(
    tmp_path / 'records', dialogues()[:8], plain_renderer(piecewise=True)
  )
  with pytest.raises(ValueError, match=r'--samples cannot ask .*piecewise'):
    train(config, tmp_path / 'run')


SMALL = [
  '--config=train_tiny',
  *('--config.model.width=16', '--config.model.layers=1'),
  *('--config.model.head_size=4', '--config.model.mlp_width=32'),
  *('--config.seq_len=256', '--config.model.remat=none'),
]


def test_two_hosts_take_the_same_decisions_and_one_writes(config, tmp_path):
  """With config.keep_best, too."""
  (tmp_path / 'p.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in ROWS))
  (first, out, _), (second, silent, _) = hosts.finish(
    hosts.start(
      tmp_path / 'hosts',
      2,
      *SMALL,
      *('--config.steps=4', '--config.eval_every=1', '--config.keep_best'),
      *('--config.keep_last=1', '--config.optim.learning_rate=10'),
      *('--config.optim.warmup_steps=0', '--config.mesh.fsdp=4'),
      f'--config.records={config.records}',
      f'--workdir={tmp_path}/run',
      f'--samples={tmp_path}/p.jsonl',
      '--sample_tokens=4',
    )
  )
  assert (first, second) == (0, 0)
  assert 'sample' not in silent and 'best' not in silent
  rows = rows_of(tmp_path / 'run')
  assert [row['step'] for row in rows] == [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4
  losses = [
    row['heldout_loss']
    for row in metrics_lib.read(tmp_path / 'run' / 'metrics.jsonl')
  ]
  best = losses.index(min(losses)) + 1
  assert f'the best checkpoint is step {best}, with a held-out loss' in out
  assert left(tmp_path / 'run') == sorted({best, 4})
  assert best < 4  # steps of size 10 make the model worse
