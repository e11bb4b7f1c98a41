"""A world, a renderer and a config that are small enough for every test."""

import pytest

from isft_jax.config import MeshConfig, ModelConfig, OptimConfig, StageConfig
from isft_jax.data.rendering import chat_template
from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.experiments.config import ContinualConfig, DeploymentConfig
from isft_jax.experiments.deployment import policy
from isft_jax.types import Provenance, Segment, Trajectory
from isft_jax.worlds.problems import phrases
from isft_jax.worlds.problems.arithmetic import ARITHMETIC


@pytest.fixture(scope='session')
def renderer():
  """The plain format, with a vocabulary that knows the world's words."""
  documents = [
    policy.solve(ARITHMETIC, problem, problem.solution)
    for problem in ARITHMETIC.make('train', 600, 0)
  ]
  verdicts = [
    Trajectory('v', (Segment('user', text, Provenance.HARNESS),))
    for text in (*phrases.RIGHT, *phrases.WRONG)
  ]
  template = chat_template.ChatTemplate(chat_template.PLAIN)
  tokenizer = tokenizer_lib.train(
    map(template.text, (*documents, *10 * verdicts)), 512
  )
  return Renderer(tokenizer, chat_template.PLAIN)


def stage(steps, learning_rate=3e-3, **more):
  optim = OptimConfig(learning_rate=learning_rate)
  return StageConfig(steps=steps, optim=optim, **more)


@pytest.fixture(scope='session')
def config():
  rows = {'batch_size': 2, 'seq_len': 128, 'targets_per_row': 128}
  return DeploymentConfig(
    seeds=2,
    solved=300,
    wordings=1,
    turns=24,
    tests=20,
    samples=2,
    arms=(
      *('sft', 'sft_more', 'rest', 'reinforce', 'oracle', 'observational'),
      *('interventional_paper', 'interventional', 'anchored(0.1)', 'both'),
      *('verdict_only', 'oracle_wrong30', 'observational_tokens'),
    ),
    vocab_size=512,
    model=ModelConfig(
      vocab_size=512, width=16, layers=1, head_size=8, mlp_width=32
    ),
    mesh=MeshConfig(data=1),
    pretrain=stage(60, 1e-2, batch_size=4, seq_len=128),
    sft=stage(4, 3e-3, batch_size=4, seq_len=128),
    finetune=stage(3, documents_per_row=2, **rows),
    reinforce=stage(2, batch_size=3),
    continual=ContinualConfig(
      seeds=1,
      turns=4,
      tests=20,
      steps=1,
      arms=('interventional', 'oracle', 'solutions', 'joint'),
    ),
    reply_tokens=8,
  )
