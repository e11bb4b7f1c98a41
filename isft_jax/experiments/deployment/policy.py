"""The first policy of a seed: a base, and supervised fine-tuning.

    split 'train' -> solved problems -> base       or a given model
                 '-> solved problems and scripted second tries -> first policy

A base that the run trains is in bases/seed-N, and resumes. Fine-tuning is
short, and repeated by a resumed run. Adapters are merged into the weights.
"""

import dataclasses
import pathlib
import shutil
from typing import NamedTuple

import jax
import numpy as np

from isft_jax.data.rendering import chat_template
from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.experiments.config import DeploymentConfig
from isft_jax.experiments.evidence import bases
from isft_jax.hf import pretrained
from isft_jax.models import decoder, lora
from isft_jax.train.loop import train
from isft_jax.types import Provenance, PyTree, Segment, Trajectory, Verdict
from isft_jax.worlds.problems import phrases
from isft_jax.worlds.problems.arithmetic import ARITHMETIC
from isft_jax.worlds.problems.fact_questions import FACT_QUESTIONS
from isft_jax.worlds.problems.physics import PHYSICS
from isft_jax.worlds.problems.problem import Problem
from isft_jax.worlds.problems.world import World

WORLDS: dict[str, World] = {
  'arithmetic': ARITHMETIC,
  'facts': FACT_QUESTIONS,
  'physics': PHYSICS,
}
# Only solutions are scored, as in supervised fine-tuning.
SOLUTIONS = 'DEMONSTRATION=1'
# Words of users and harness have a small weight in supervised fine-tuning. A
# base that has only learned to answer cannot predict them at all, and the arms
# that score them would learn nothing else.
LESSONS = 'DEMONSTRATION=1,USER=0.1,HARNESS=0.1,TEMPLATE=0.1'
# First key of the random stream of `lessons`.
_LESSONS = 4


class Policy(NamedTuple):
  """A world and the model that all arms of a seed start from."""

  seed: int
  world: World
  renderer: Renderer
  graphdef: decoder.GraphDef
  params: PyTree  # with new adapters, if the run trains adapters


def prepare(
  config: DeploymentConfig, workdir: pathlib.Path, seed: int
) -> Policy:
  """Trains the base of a seed, resumes or loads it, and fine-tunes it."""
  folder = workdir / 'bases' / f'seed-{seed}'
  model = dataclasses.replace(config.model, init_from='')
  graphdef, _ = decoder.abstract(model, config.lora)
  if config.model.init_from:
    # A given model, in its own chat template.
    tokenizer = tokenizer_lib.load(config.model.init_from)
    template = tokenizer.chat_template or chat_template.PLAIN
    renderer = Renderer(tokenizer, template)
    params = pretrained.load_params(config.model.init_from, model)
  else:
    # The tokenizer also learns the words of verdicts.
    verdicts = [
      Trajectory('verdict', (Segment('user', text, Provenance.HARNESS),))
      for text in (*phrases.RIGHT, *phrases.WRONG)
    ]
    renderer = bases.prepare_documents(
      folder,
      config.vocab_size,
      lambda: solved_problems(config, seed),
      100 * verdicts,
    )
    run = bases.make_run(
      config, config.pretrain, 'base', SOLUTIONS, folder, seed
    )
    # No arm shares these rows: fewer targets per row are faster.
    run.plan_objective = ''
    _, params, *_ = train(run, str(folder / 'run'))
  params = with_new_adapters(config, params, seed)
  # Supervised fine-tuning. Adapters are merged, so that each arm has new ones.
  examples = map(renderer.example, lessons(config, seed))
  records = bases.write_records(renderer, folder / 'sft', examples)
  run = bases.make_run(config, config.sft, 'sft', LESSONS, folder / 'sft', seed)
  params, _ = bases.fit(run, records, params)
  shutil.rmtree(folder / 'sft')
  if config.lora.rank:
    merged = lora.merge(params, config.lora, model.param_dtype)
    params = with_new_adapters(config, merged, seed)
  return Policy(seed, WORLDS[config.world], renderer, graphdef, params)


def with_new_adapters(
  config: DeploymentConfig, params: PyTree, seed: int
) -> PyTree:
  """Returns parameters with new adapters, which change no output.

  Args:
    config: its model and adapters; without adapters, `params` is returned.
    params: parameters of the model without adapters.
    seed: seed of the adapters.
  """
  if not config.lora.rank:
    return params
  model = dataclasses.replace(config.model, init_from='')

  # Under jit, the random base is never computed.
  @jax.jit
  def adapters(key: jax.Array) -> PyTree:
    return lora.split(decoder.init(model, key, config.lora))[0]

  return lora.join(params, adapters(jax.random.key(seed)))


def solved_problems(config: DeploymentConfig, seed: int) -> list[Trajectory]:
  """Returns solved problems of the split 'train', in a random order."""
  world = WORLDS[config.world]
  number = config.solved or world.size('train')
  # Another seed asks in other words. If there are more cases than `number`, it
  # also chooses other problems.
  documents = [
    solve(world, problem, problem.solution)
    for wording in range(config.wordings)
    for problem in world.make('train', number, 1000 * wording + seed)
  ]
  order = np.random.default_rng([seed, len(documents)]).permutation(
    len(documents)
  )
  return [documents[i] for i in order]


def lessons(config: DeploymentConfig, seed: int) -> list[Trajectory]:
  """Returns the conversations of supervised fine-tuning, in a random order.

  A share `config.p_scripted` begins with a scripted wrong answer and a verdict
  on it. Only solutions are demonstrations.
  """
  world = WORLDS[config.world]
  number = config.solved or world.size('train')
  rng = np.random.default_rng([_LESSONS, seed])
  conversations = []
  for problem in world.make('train', number, seed):
    solved = solve(world, problem, problem.solution)
    if rng.random() < config.p_scripted:
      wrong = problem.wrong_solution
      failed = (
        Segment('assistant', wrong, Provenance.AGENT, Verdict.WRONG),
        Segment('user', phrases.draw_verdict(False, rng), Provenance.HARNESS),
      )
      *asked, demonstrated = solved.segments
      solved = Trajectory(problem.id, (*asked, *failed, demonstrated))
    conversations.append(solved)
  return [conversations[i] for i in rng.permutation(number)]


def solve(world: World, problem: Problem, solution: str) -> Trajectory:
  """Returns a problem with a demonstrated solution."""
  return Trajectory(
    problem.id,
    (*ask(world, problem), demonstrate(solution)),
  )


def ask(world: World, problem: Problem) -> tuple[Segment, ...]:
  """Returns the context and the question of a problem."""
  return (
    Segment('system', world.context, Provenance.CONTEXT),
    Segment('user', problem.question, Provenance.USER),
  )


def demonstrate(solution: str) -> Segment:
  """Returns a solution in the agent's slot that the agent did not write."""
  return Segment('assistant', solution, Provenance.DEMONSTRATION)
