"""Continual learning: deployments in one skill after the other.

    policy --answers problems of a skill--> turns --> rows --> next policy

Each increment samples from the live policy. An arm is trained on the rows of
the latest increment only, always for the same number of steps:

    arm        rows                                          scored
    oracle     x, y*                                         y*
    solutions  x and its solution, also of solved problems   solutions
    joint      those of all increments at once               solutions
    OBJECTIVE, interventional_paper: see `arms.py`

`joint` is the reference without increments. It has the steps of all of them.
"""

import dataclasses
import pathlib
import shutil
from typing import Any

import numpy as np

from isft_jax.experiments.config import DeploymentConfig
from isft_jax.experiments.deployment import answers, arms, stream
from isft_jax.experiments.deployment import policy as policies
from isft_jax.experiments.deployment.arms import Deployment
from isft_jax.experiments.deployment.policy import SOLUTIONS
from isft_jax.experiments.evidence import bases
from isft_jax.types import Example, PyTree
from isft_jax.worlds.problems.problem import Problem

JOINT, SOLUTION_ROWS = 'joint', 'solutions'
# First key of the random order of skills.
_SKILLS = 3


def check_arm(name: str) -> None:
  """Raises ValueError unless an arm can learn in increments."""
  if name in (JOINT, SOLUTION_ROWS):
    return
  arm = arms.arm_from_name(name)
  allowed = ('stream', 'pairs', 'both', 'verdicts')
  if arm.rows not in allowed or arm.has_tokens_of_paper:
    raise ValueError(
      f'the arm {name!r} does not learn from turns, so that it has no '
      'increments; remove it from config.continual.arms'
    )


def run(
  config: DeploymentConfig,
  deployment: Deployment,
  folder: pathlib.Path,
  name: str,
) -> dict[str, Any]:
  """Runs all increments of an arm for one seed.

  Args:
    config: settings of the experiment.
    deployment: the deployment of the seed, for its policy.
    folder: scratch folder for records, deleted at the end.
    name: name of the arm.

  Returns:
    'skills', in the order of the increments; 'right', a text per evaluation
    with '1' for each test problem whose greedy answer is right; 'test_skills',
    the skill of each test problem; 'deployed', the share of right answers in
    each increment; 'train', a summary per fit.
  """
  policy, settings = deployment.policy, config.continual
  world, seed = policy.world, policy.seed
  order = np.random.default_rng([_SKILLS, seed]).permutation(world.skill_names)
  skills = [str(skill) for skill in order]
  tests = arms.make_tests(config, world, settings.tests, seed)

  params = policy.params
  right = [_evaluate(config, deployment, params, tests)]
  deployed: list[float] = []
  trained: list[dict[str, Any]] = []
  # The reference sees all problems at once.
  increments = [skills] if name == JOINT else [[skill] for skill in skills]
  for number, names in enumerate(increments):
    problems = [
      problem
      for skill in names
      for problem in world.make(
        'agent',
        min(settings.turns, world.size('agent', [skill])),
        seed,
        [skill],
      )
    ]
    rows, share = _make_rows(config, deployment, params, problems, name, number)
    # If no answer has ended, there is nothing to learn from.
    if rows:
      params, summary = _fit(
        config, deployment, folder, name, number, rows, params, len(names)
      )
      trained.append(summary)
    if share is not None:
      deployed.append(share)
    right.append(_evaluate(config, deployment, params, tests))
  shutil.rmtree(folder, ignore_errors=True)
  return {
    'skills': skills,
    'test_skills': [problem.skill for problem in tests],
    'right': right,
    'deployed': deployed,
    'train': trained,
  }


def _make_rows(
  config: DeploymentConfig,
  deployment: Deployment,
  params: PyTree,
  problems: list[Problem],
  name: str,
  number: int,
) -> tuple[list[Example], float | None]:
  """Returns the records of an increment, and the share of right answers."""
  policy = deployment.policy
  if name in (JOINT, SOLUTION_ROWS):
    return [
      policy.renderer.example(
        policies.solve(policy.world, problem, problem.solution)
      )
      for problem in problems
    ], None
  arm = arms.arm_from_name(name)
  # The live policy answers.
  replies = answers.meet(
    policy,
    params,
    problems,
    config.reply_tokens,
    temperature=1.0,
    seed=answers.sampling_seed(policy.seed, answers.DEPLOYED, 1 + number),
  )
  turns = stream.make_turns(
    policy.world, problems, replies, policy.seed, arm.wrong_share
  )
  share = float(np.mean([turn.outcome.is_right for turn in turns]))
  ended = [turn for turn in turns if turn.answer.has_ended]
  return arms.make_rows(config, deployment, arm.rows, ended), share


def _fit(
  config: DeploymentConfig,
  deployment: Deployment,
  folder: pathlib.Path,
  name: str,
  number: int,
  rows: list[Example],
  params: PyTree,
  increments: int,
) -> tuple[PyTree, dict[str, Any]]:
  """Fine-tunes for the steps of a number of increments."""
  policy, settings = deployment.policy, config.continual
  objective = (
    SOLUTIONS
    if name in (JOINT, SOLUTION_ROWS)
    else arms.arm_from_name(name).objective
  )
  # All fits have the steps of the reference and stop before them, so that one
  # program is compiled.
  most = settings.steps * len(policy.world.skills)
  stage = dataclasses.replace(config.finetune, steps=most)
  records = bases.write_records(policy.renderer, folder, rows)
  run = bases.make_run(
    config, stage, name, objective, folder, policy.seed + 1000 * number
  )
  return bases.fit(run, records, params, settings.steps * increments)


def _evaluate(
  config: DeploymentConfig,
  deployment: Deployment,
  params: PyTree,
  tests: list[Problem],
) -> str:
  policy = deployment.policy
  replies = answers.meet(policy, params, tests, config.reply_tokens)
  return ''.join(
    '01'[policy.world.verify(answer.text, problem).is_right]
    for answer, problem in zip(replies, tests, strict=True)
  )
