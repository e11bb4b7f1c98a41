"""The paper's own settings, end to end, on a small random Qwen2."""

import json

import jax
import numpy as np
import pytest

from configs import qwen2_5_0_5b_paper
from isft_jax.config import ModelConfig
from isft_jax.data.batching.pipeline import BatchSource
from isft_jax.data.records import dataset
from isft_jax.data.records.dataset import Records
from isft_jax.data.rendering import chat_template, tokenizer
from isft_jax.experiments import lying_agent as experiment
from isft_jax.hf import pretrained
from isft_jax.models import decoder
from isft_jax.worlds.lying_agent import generator
from isft_jax.worlds.lying_agent.facts import FACTS

MODEL = ModelConfig(
  vocab_size=640,
  width=32,
  layers=2,
  heads=4,
  kv_heads=2,
  head_size=8,
  mlp_width=64,
)

NUMBER = 4  # of dialogues


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A model folder as the hub has it, and a smaller experiment on it."""
  folder = tmp_path_factory.mktemp('paper')
  graphdef, _ = decoder.abstract(MODEL)
  params = decoder.init(MODEL, jax.random.key(0))
  pretrained.save(
    pretrained.Model(graphdef, params), MODEL, str(folder / 'model')
  )
  template = chat_template.ChatTemplate(chat_template.PLAIN)
  texts = map(template.text, generator.dialogues(400, 0.6, 0.5, seed=1))
  tokenizer.train(texts, 640).save_pretrained(folder / 'model')

  config = qwen2_5_0_5b_paper.get_config(str(folder / 'model'))
  config.dialogues.number, config.dialogues.heldout = NUMBER, 2
  config.reply_tokens = 4
  experiment.reproduce(config, str(folder / 'run'))
  return folder, json.loads((folder / 'run/results.json').read_text())


def test_the_arms_are_those_of_the_paper_and_all_are_probed(run):
  _, results = run
  assert list(results['arms']) == ['base', 'observational', 'interventional']
  for arm in results['arms'].values():
    assert [fact['topic'] for fact in arm['facts']] == [f.topic for f in FACTS]
    for probe in ('truth', 'lie'):
      assert sum(arm[f'{probe}_probe'].values()) == len(FACTS)
  margins = [arm['mean_margin'] for arm in results['arms'].values()]
  assert len(set(margins)) == 3  # each arm has learned something of its own


def test_every_dialogue_is_a_step_of_every_epoch(run):
  folder, results = run
  for arm in ('observational', 'interventional'):
    assert results['arms'][arm]['train']['steps'] == NUMBER * 4
  stored = Records(str(folder / 'run/records/dialogues'))
  assert len(stored) == NUMBER
  config = qwen2_5_0_5b_paper.get_config()
  config.dialogues.number = NUMBER
  settings = experiment.make_run(config, folder / 'run', 'interventional')
  source = BatchSource(stored, settings)
  for epoch in range(4):
    ids = [source.ids(NUMBER * epoch + step) for step in range(NUMBER)]
    assert sorted(ids) == sorted([stored[i].id] for i in range(NUMBER))


def test_a_step_is_the_mean_of_its_dialogue(run):
  """Weights of one dialogue sum to one: the count divides by nothing more."""
  folder, _ = run
  config = qwen2_5_0_5b_paper.get_config()
  stored = Records(str(folder / 'run/records/dialogues'))
  for arm in ('observational', 'interventional'):
    source = BatchSource(
      stored, experiment.make_run(config, folder / 'run', arm)
    )
    for step in range(NUMBER):
      weights_BK = source[step].weights_BK
      assert weights_BK.shape[0] == 1
      np.testing.assert_allclose(weights_BK.sum(), 1, rtol=1e-6)
      scored = weights_BK[weights_BK > 0]
      assert scored.min() == scored.max()


def test_the_papers_hyperparameters(run):
  """method.md's, for who changes the file: 1,920 steps of one dialogue."""
  config = qwen2_5_0_5b_paper.get_config()
  stage = config.finetune
  assert config.model.init_from == 'Qwen/Qwen2.5-0.5B'
  assert config.model.dtype == 'bfloat16'
  assert (config.dialogues.number, stage.epochs, stage.batch_size) == (
    480,
    4,
    1,
  )
  assert (stage.documents_per_row, stage.normalize) == (1, 'trajectory')
  optim = stage.optim
  assert (optim.learning_rate, optim.schedule) == (2e-5, 'constant')
  assert (optim.weight_decay, optim.clip_norm) == (0.01, 1.0)
  assert (optim.b1, optim.b2, optim.eps) == (0.9, 0.999, 1e-8)
  assert (optim.warmup_steps, optim.accumulate) == (0, 1)


def test_nothing_is_pretrained(run):
  folder, _ = run
  assert not (folder / 'run/records/documents').exists()
  assert not (folder / 'run/base/checkpoints').exists()
  assert dataset.Records(str(folder / 'run/records/heldout'))
