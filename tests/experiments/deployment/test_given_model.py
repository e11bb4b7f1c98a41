"""A given model with adapters, asked in its own template about real facts."""

import jax
import numpy as np
import pytest
from flax import nnx

from isft_jax.config import (
  LoraConfig,
  MeshConfig,
  ModelConfig,
  OptimConfig,
  StageConfig,
)
from isft_jax.data.rendering import chatml
from isft_jax.experiments.config import ContinualConfig, DeploymentConfig
from isft_jax.experiments.deployment import answers, policy, run, stream
from isft_jax.models import lora
from isft_jax.train import start
from isft_jax.worlds.lying_agent import world_facts
from tests.experiments import given_model

ARMS = ('sft', 'oracle', 'interventional', 'reinforce', 'anchored(0.1)')


def stage(steps, **more):
  optim = OptimConfig(learning_rate=1e-2)
  rows = {'batch_size': 2, 'seq_len': 256, 'targets_per_row': 256}
  return StageConfig(steps=steps, optim=optim, **{**rows, **more})


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  folder = tmp_path_factory.mktemp('given') / 'model'
  texts = [fact.true_claim for fact in world_facts.MIXED]
  given_model.save(folder, chatml.train(texts, 398))
  return DeploymentConfig(
    seeds=1,
    world='facts',
    solved=8,
    turns=6,
    tests=6,
    evaluate_on='agent',
    samples=2,
    arms=ARMS,
    model=start.with_shape(ModelConfig(init_from=str(folder))),
    lora=LoraConfig(rank=2),
    mesh=MeshConfig(data=1, fsdp=1, tensor=1),
    sft=stage(2),
    finetune=stage(2),
    reinforce=stage(2, batch_size=2),
    continual=ContinualConfig(
      seeds=1, turns=4, tests=6, steps=1, arms=('interventional', 'joint')
    ),
    reply_tokens=3,
  )


@pytest.fixture(autouse=True)
def short_answers(monkeypatch):
  """Every first token ends an answer: a random model would never end."""
  monkeypatch.setattr(answers, '_ends', lambda _, size: np.ones(size, bool))


def test_new_adapters_change_no_output_and_fine_tuning_does(config, tmp_path):
  first = policy.prepare(config, tmp_path, seed=0)
  adapters, base = lora.split(first.params)
  assert jax.tree.leaves(adapters)
  merged = lora.merge(first.params, config.lora, 'float32')
  for ours, theirs in zip(
    jax.tree.leaves(merged), jax.tree.leaves(base), strict=True
  ):
    np.testing.assert_array_equal(ours, theirs)
  # The base is not the given model: supervised fine-tuning is merged into it.
  given = policy.with_new_adapters(config, base, seed=1)
  tokens_BL = np.arange(6, dtype=np.int32)[None]
  positions_BL, segments_BL = tokens_BL, np.ones_like(tokens_BL)
  hidden = [
    nnx.merge(first.graphdef, params)(tokens_BL, positions_BL, segments_BL)
    for params in (first.params, given)
  ]
  np.testing.assert_array_equal(*hidden)


def test_the_prompt_is_in_the_models_own_template(config, tmp_path):
  first = policy.prepare(config, tmp_path, seed=0)
  problem = first.world.make('agent', 1, 0)[0]
  prompt_T = stream.prompt(first.world, problem, first.renderer)
  assert first.renderer.tokenizer.decode(prompt_T) == (
    f'<|im_start|>system\n{world_facts.CONTEXT}<|im_end|>\n'
    f'<|im_start|>user\n{problem.question}<|im_end|>\n<|im_start|>assistant\n'
  )


def test_a_run_of_it_and_its_page(config, tmp_path):
  found = run.reproduce(config, str(tmp_path))
  assert found['base']['kind'] == 'given'
  assert list(found['arms']) == list(ARMS)
  trained = {each['name']: each['train'] for each in found['runs']['arms']}
  losses = [trained[arm][0]['final_loss'] for arm in ARMS[1:]]
  assert len({*losses}) == len(losses)
  # Three skills: three increments.
  assert len(found['continual']['interventional']['all']) == 4
  page = (tmp_path / 'deployment.html').read_text()
  assert 'All seeds start from the same model (model, ' in page
