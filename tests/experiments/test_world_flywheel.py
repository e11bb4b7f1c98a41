"""The flywheel on real facts: a given model, asked in its own template."""

import dataclasses
import re

import pytest

from isft_jax.config import MeshConfig, ModelConfig, StageConfig
from isft_jax.data.rendering import chatml
from isft_jax.experiments.config import EvidenceConfig, FlywheelConfig
from isft_jax.experiments.evidence import bases, flywheel, grid
from isft_jax.worlds.lying_agent import probes, world_facts
from tests.experiments import given_model


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  folder = tmp_path_factory.mktemp('given') / 'model'
  texts = [fact.true_claim for fact in world_facts.MIXED]
  given_model.save(folder, chatml.train(texts, 398))
  return EvidenceConfig(
    only='flywheel',
    seeds=1,
    bank='world',
    facts=8,
    model=ModelConfig(init_from=str(folder)),
    mesh=MeshConfig(data=1, fsdp=1, tensor=1),
    flywheel=FlywheelConfig(
      rounds=1,
      arms=('observational', 'interventional'),
      stage=StageConfig(batch_size=1, seq_len=256, epochs=1),
    ),
    reply_tokens=3,
  )


@pytest.fixture(autouse=True)
def few_facts(monkeypatch):
  monkeypatch.setattr(world_facts, 'MIXED', world_facts.MIXED[:12])


def test_a_question_in_the_models_own_template(config, tmp_path):
  base = bases.prepare_base(config, tmp_path, seed=0)
  assert base.told == world_facts.MIXED[:8]
  assert base.facts == world_facts.MIXED
  question = flywheel.make_questions(base.bank, 0, 0)[0]
  prompt_T = probes.slot(question, 'It is Au.', base.renderer).prompt_T
  asked = [q.format(topic=base.told[0].topic) for q in world_facts.QUESTIONS]
  assert base.renderer.tokenizer.decode(prompt_T) in [
    f'<|im_start|>system\n{world_facts.CONTEXT}<|im_end|>\n'
    f'<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n'
    for text in asked
  ]


def test_a_round_of_it_and_its_page(config, tmp_path):
  results = grid.reproduce(config, str(tmp_path))
  assert results['base']['kind'] == 'given'
  wheel = results['flywheel']
  assert list(wheel) == ['observational', 'interventional']
  for found in wheel.values():
    assert [len(seed) for seed in found['per_seed']] == [2]
  runs = results['runs']['flywheel']
  losses = [run['train'][0]['final_loss'] for run in runs]
  assert losses[0] != losses[1]
  words = re.sub(r'\s+', ' ', (tmp_path / 'evidence.html').read_text())
  assert 'All runs start from the same model (model, ' in words
  assert 'tiny' not in words and 'invented' not in words


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('only', '', "config.only must be 'flywheel'"),
    ('facts_csv', 'x.csv', 'config.facts_csv must be left empty'),
    ('facts', 212, 'config.facts must be from 2 to 211 .got 212'),
    ('model', ModelConfig(), 'config.model.init_from must be a model'),
  ],
)
def test_what_real_facts_need_is_named(config, tmp_path, field, value, message):
  wrong = dataclasses.replace(config, **{field: value})
  with pytest.raises(ValueError, match=message):
    grid.reproduce(wrong, str(tmp_path))
