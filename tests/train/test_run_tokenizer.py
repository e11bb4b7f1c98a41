"""A run is a folder that can be moved: weights, tokenizer and template."""

import shutil

import numpy as np
import pytest

from isft_jax.config import ModelConfig, OptimConfig, RunConfig
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.hf import pretrained
from isft_jax.train import loop, run_tokenizer, saved
from isft_jax.train.export import export
from tests.commands import command
from tests.dialogues import CHATML, chatml_tokenizer, dialogues, write_records

TOKENS_BL = np.arange(12).reshape(2, 6)


@pytest.fixture(scope='module')
def moved(tmp_path_factory):
  """A run whose records are gone and whose folder has another name."""
  folder = tmp_path_factory.mktemp('moved')
  renderer = Renderer(chatml_tokenizer())
  config = RunConfig(
    records=write_records(folder / 'records', dialogues()[:12], renderer),
    batch_size=8,
    seq_len=512,
    targets_per_row=512,
    steps=2,
    checkpoint_every=1,
    model=ModelConfig(
      vocab_size=512, width=16, layers=1, head_size=4, mlp_width=32
    ),
    optim=OptimConfig(learning_rate=1e-2),
  )
  loop.train(config, folder / 'run')
  shutil.rmtree(folder / 'records')
  (folder / 'run').rename(folder / 'elsewhere')
  return folder / 'elsewhere'


def test_a_moved_run_is_loaded_with_its_template(moved, monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  chat = saved.chat_model_from_run(str(moved))
  assert chat.template == CHATML
  assert chat.tokenizer.get_vocab() == chatml_tokenizer().get_vocab()


def test_a_moved_run_is_exported(moved, tmp_path):
  export(str(moved), str(tmp_path / 'model'))
  found = run_tokenizer.tokenizer_lib.load(str(tmp_path / 'model'))
  assert found.chat_template == CHATML


def test_a_step_is_chosen(moved):
  first, second, newest = (
    saved.load(str(moved), step=step).model(TOKENS_BL) for step in (1, 2, None)
  )
  np.testing.assert_array_equal(second, newest)
  assert np.abs(np.asarray(first) - np.asarray(second)).max() > 1e-3


def test_a_step_without_a_checkpoint_is_an_error_that_lists_them(moved):
  with pytest.raises(
    ValueError, match=r'no checkpoint of step 7; it has 1, 2$'
  ):
    saved.load(str(moved), step=7)


def test_a_damaged_step_is_not_replaced_by_another(moved, tmp_path):
  copied = shutil.copytree(moved, tmp_path / 'run')
  (copied / 'checkpoints' / 'step_1' / 'params' / 'manifest.ocdbt').unlink()
  with pytest.raises(
    ValueError, match=r'manifest\.ocdbt is missing; name another'
  ):
    saved.load(str(copied), step=1)
  saved.load(str(copied), step=2)


def test_another_tokenizer_is_named(moved, tmp_path):
  other = chatml_tokenizer()
  other.save_pretrained(tmp_path)
  found = saved.load(str(moved), tokenizer=str(tmp_path)).tokenizer
  assert found.name_or_path == str(tmp_path)


def test_a_damaged_rendering_is_named(moved, tmp_path):
  copied = shutil.copytree(moved, tmp_path / 'run')
  for content in ('{', '[]', '{"fingerprint": 1}', '{"rendering": 1}'):
    (copied / 'rendering.json').write_text(content)
    with pytest.raises(ValueError, match=r'rendering\.json is damaged'):
      saved.load(str(copied))


def test_what_is_there_is_not_written_again(moved):
  kept = run_tokenizer.read_rendering(moved)
  before = (moved / 'rendering.json').stat().st_mtime_ns
  run_tokenizer.write(
    moved, chatml_tokenizer(), kept['rendering'], kept['fingerprint']
  )
  assert (moved / 'rendering.json').stat().st_mtime_ns == before


def test_commands_take_a_step_and_a_tokenizer(moved, tmp_path):
  """Greedy replies of two steps, and an export of the first."""
  chatml_tokenizer().save_pretrained(tmp_path / 'tokenizer')
  flags = '--step=1', f'--tokenizer={tmp_path}/tokenizer'
  done = command(
    *('generate', f'--checkpoint={moved}', '--prompt=Gold?'),
    *('--max_new_tokens=4', *flags),
  )
  assert done.returncode == 0, done.stderr
  done = command(
    *('export', f'--checkpoint={moved}', f'--output={tmp_path}/model', *flags)
  )
  assert done.returncode == 0, done.stderr
  model, _ = pretrained.load(tmp_path / 'model')
  # Another number of devices adds in another order.
  np.testing.assert_allclose(
    model(TOKENS_BL), saved.load(str(moved), step=1).model(TOKENS_BL), atol=1e-6
  )
