"""Arms: what is made of the deployment of one frozen policy.

    first policy --sampled answers--> turns --> rows (arm) --objective--> model

All arms start from the first policy, and have the same number of steps with the
same number of records each, but for `reinforce`. Rows with and without y^ come
in the same order.

    arm                   rows                                scored
    sft                   none: the first policy
    sft_more              conversations of the first policy   y*; x, v a little
    rest                  right ones of K samples per problem the samples
    reinforce             K samples per problem, live         by advantage
    oracle                x, y*                               y*
    interventional_paper  x, y^, v, y*                        y*
    both                  those of the last two               y*
    verdict_only          x, y^, v                            x, v
    OBJECTIVE             x, y^, v, y*                        as it says

A problem that the agent has solved has no y*. In the rows of `oracle` it keeps
its answer, which no loss scores. Two endings of a name change an arm:

    ARM_wrong10   10 % of the corrections are wrong
    ARM_tokens    steps for as many scored tokens as interventional_paper has

Source: N. de Freitas, "CIC: Continual, Interactive, Causal Agents" (2026), for
sft, rest, oracle, observational and interventional_paper.
"""

import pathlib
import re
import shutil
from collections.abc import Sequence
from typing import Any, NamedTuple

from isft_jax import objectives
from isft_jax.data.batching.packing import count_targets
from isft_jax.data.records.dataset import Index, Records
from isft_jax.experiments.config import DeploymentConfig
from isft_jax.experiments.deployment import answers, reinforce, stream
from isft_jax.experiments.deployment import policy as policies
from isft_jax.experiments.deployment.policy import SOLUTIONS, Policy
from isft_jax.experiments.deployment.stream import Answer, Turn
from isft_jax.experiments.evidence import bases
from isft_jax.types import Example, Provenance, Segment, Trajectory, Verdict
from isft_jax.worlds.problems.problem import Problem
from isft_jax.worlds.problems.world import World

PAPER = 'interventional_paper'


class Arm(NamedTuple):
  """What an arm is trained on."""

  rows: str  # 'none', 'lessons', 'samples', 'live', 'pairs', 'stream', ...
  objective: str = ''
  wrong_share: float = 0.0  # share of the corrections that are wrong
  has_tokens_of_paper: bool = False  # as many scored tokens as PAPER


_NAMED = {
  'sft': Arm('none'),
  'sft_more': Arm('lessons', policies.LESSONS),
  'rest': Arm('samples', 'truth_only'),
  'reinforce': Arm('live'),
  'oracle': Arm('pairs', SOLUTIONS),
  PAPER: Arm('stream', SOLUTIONS),
  'both': Arm('both', SOLUTIONS),
  'verdict_only': Arm('verdicts', 'interventional'),
}


class Deployment(NamedTuple):
  """The first policy of a seed, what it met, and how it is evaluated."""

  policy: Policy
  problems: list[Problem]  # of the deployment
  answers: list[Answer]  # sampled from the first policy
  tests: list[Problem]  # to evaluate on
  frozen: list[Turn]  # greedy turns of the first policy on the tests

  @property
  def seed(self) -> int:
    return self.policy.seed

  def turns(self, wrong_share: float = 0.0) -> list[Turn]:
    """Returns the turns of the deployment whose answers have ended."""
    turns = stream.make_turns(
      self.policy.world, self.problems, self.answers, self.seed, wrong_share
    )
    return [turn for turn in turns if turn.answer.has_ended]


def arm_from_name(name: str) -> Arm:
  """Returns an arm. Raises ValueError for an unknown name."""
  if match := re.fullmatch(r'(.+)_wrong(\d\d?)', name):
    share = int(match[2]) / 100
    return arm_from_name(match[1])._replace(wrong_share=share)
  if match := re.fullmatch(r'(.+)_tokens', name):
    return arm_from_name(match[1])._replace(has_tokens_of_paper=True)
  if name in _NAMED:
    return _NAMED[name]
  objectives.weight_table(name)
  return Arm('stream', name)


def deploy(
  config: DeploymentConfig, workdir: pathlib.Path, seed: int
) -> Deployment:
  """Returns the deployment of a seed: the frozen policy answers by sampling."""
  policy = policies.prepare(config, workdir, seed)
  world = policy.world
  problems = world.make('agent', config.turns, seed)
  tests = make_tests(config, world, config.tests, seed)
  tries = answers.meet(policy, policy.params, tests, config.reply_tokens)
  return Deployment(
    policy,
    problems,
    answers.meet(
      policy,
      policy.params,
      problems,
      config.reply_tokens,
      temperature=1.0,
      seed=answers.sampling_seed(seed, answers.DEPLOYED),
    ),
    tests,
    stream.make_turns(world, tests, tries, seed),
  )


def make_tests(
  config: DeploymentConfig, world: World, number: int, seed: int
) -> list[Problem]:
  """Returns problems to evaluate on.

  These are test problems, or those of the deployment in other words.

  Args:
    config: its `evaluate_on`.
    world: the world.
    number: their number.
    seed: seed of the run.
  """
  wording = seed if config.evaluate_on == 'test' else 1000 + seed
  return world.make(config.evaluate_on, number, wording)


def run(
  config: DeploymentConfig,
  deployment: Deployment,
  folder: pathlib.Path,
  name: str,
) -> dict[str, Any]:
  """Trains an arm from the first policy of a seed, and evaluates it.

  Args:
    config: settings of the experiment.
    deployment: the deployment of the seed, which stays unchanged.
    folder: scratch folder for records, deleted at the end.
    name: name of the arm.

  Returns:
    What `answers.evaluate` returns; 'asked_again', greedy first answers to the
    problems that were answered wrongly in the deployment; 'turns',
    'corrections' and 'wrong_corrections', their numbers; 'train', a summary, or
    None.
  """
  arm, policy = arm_from_name(name), deployment.policy
  params, trained = policy.params, None
  turns = deployment.turns(arm.wrong_share)
  if arm.rows == 'live':
    params, trained = reinforce.train(config, policy, deployment.problems)
  elif arm.rows != 'none':
    examples = make_rows(config, deployment, arm.rows, turns)
    # A policy that solves nothing has no samples to learn from.
    if examples:
      records = bases.write_records(policy.renderer, folder, examples)
      settings = bases.make_run(
        config, config.finetune, name, arm.objective, folder, policy.seed
      )
      steps = config.finetune.steps
      if arm.has_tokens_of_paper:
        steps = _matched_steps(
          deployment, records, arm.objective, folder, steps
        )
      params, trained = bases.fit(settings, records, params, steps)
  shutil.rmtree(folder, ignore_errors=True)
  wrong = [turn for turn in turns if not turn.outcome.is_right]
  # The problems of the corrections again, in the same words.
  replies = answers.meet(
    policy, params, [turn.problem for turn in wrong], config.reply_tokens
  )
  return answers.evaluate(
    policy, params, deployment.tests, deployment.frozen, config.reply_tokens
  ) | {
    'asked_again': ''.join(
      '01'[policy.world.verify(reply.text, turn.problem).is_right]
      for reply, turn in zip(replies, wrong, strict=True)
    ),
    'turns': len(turns),
    'corrections': len(wrong),
    'wrong_corrections': sum(
      turn.correction != turn.problem.solution for turn in wrong
    ),
    'train': trained,
  }


def make_rows(
  config: DeploymentConfig,
  deployment: Deployment,
  rows: str,
  turns: Sequence[Turn],
) -> list[Example]:
  """Returns the records of an arm.

  Args:
    config: settings of the experiment.
    deployment: the deployment of the seed.
    rows: `Arm.rows`, other than 'none' and 'live'.
    turns: turns of the deployment.
  """
  policy = deployment.policy
  world, renderer = policy.world, policy.renderer
  if rows == 'lessons':
    lessons = policies.lessons(config, policy.seed)
    return [renderer.example(each) for each in lessons[: len(turns)]]
  if rows == 'samples':
    return _right_samples(config, deployment)
  examples = []
  if rows in ('pairs', 'both'):
    examples += [make_pair(policy, turn) for turn in turns]
  if rows in ('stream', 'both', 'verdicts'):
    examples += [
      stream.example(world, turn, renderer, corrected=rows != 'verdicts')
      for turn in turns
    ]
  return examples


def make_pair(policy: Policy, turn: Turn) -> Example:
  """Returns a problem with its correction, or with the agent's right answer."""
  if not turn.outcome.is_right:
    return policy.renderer.example(
      policies.solve(policy.world, turn.problem, turn.correction)
    )
  return make_single(policy, turn.problem, turn.answer, Verdict.RIGHT)


def make_single(
  policy: Policy, problem: Problem, answer: Answer, verdict: Verdict
) -> Example:
  """Returns a problem with the sampled ids of an answer, and nothing after."""
  slot = Segment('assistant', problem.solution, Provenance.AGENT)
  rendered = policy.renderer.example(
    Trajectory(problem.id, (*policies.ask(policy.world, problem), slot))
  )
  return stream.splice(rendered, answer, verdict)


def _right_samples(
  config: DeploymentConfig, deployment: Deployment
) -> list[Example]:
  """Returns the different right answers among K samples per problem."""
  policy, world = deployment.policy, deployment.policy.world
  problems = [p for p in deployment.problems for _ in range(config.samples)]
  sampled = answers.meet(
    policy,
    policy.params,
    problems,
    config.reply_tokens,
    temperature=1.0,
    seed=answers.sampling_seed(policy.seed, answers.RESAMPLED),
  )
  # Problem and ids -> the first sample of these ids.
  right = {
    (problem.id, answer.ids_T.tobytes()): (problem, answer)
    for problem, answer in zip(problems, sampled, strict=True)
    if answer.has_ended and world.verify(answer.text, problem).is_right
  }
  return [make_single(policy, *each, Verdict.RIGHT) for each in right.values()]


def _matched_steps(
  deployment: Deployment,
  records: Records,
  objective: str,
  folder: pathlib.Path,
  steps: int,
) -> int:
  """Returns the steps after which PAPER's number of tokens is scored."""
  policy = deployment.policy
  paper = bases.write_records(
    policy.renderer,
    folder / 'paper',
    (
      stream.example(policy.world, turn, policy.renderer)
      for turn in deployment.turns()
    ),
  )
  ratio = _targets_per_record(paper.index, SOLUTIONS) / _targets_per_record(
    records.index, objective
  )
  return min(steps, max(1, round(ratio * steps)))


def _targets_per_record(index: Index, objective: str) -> float:
  table_PV = objectives.weight_table(objective)
  return float(count_targets(index, table_PV).mean())
