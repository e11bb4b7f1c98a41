"""The stream of a deployment: problem, own answer, verdict, correction.

    x  question       USER
    y^ answer         AGENT, with the verdict that is true of it
    v  verdict        HARNESS
    y* correction     DEMONSTRATION, only after a wrong answer

The ids of y^ are those that were sampled, with the token that ended the turn.
The ids before and after it are those of the chat template:

    template, rendered with a solution in place of y^
                  x x x x | a a a . | v v v | y* y* .
    sampled                 b b .
    example       x x x x | b b . | v v v | y* y* .

Source: N. de Freitas, "CIC: Continual, Interactive, Causal Agents" (2026).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from isft_jax.data.rendering.renderer import Renderer
from isft_jax.experiments.deployment import policy as policies
from isft_jax.types import Example, Provenance, Segment, Trajectory, Verdict
from isft_jax.worlds.problems import phrases
from isft_jax.worlds.problems.problem import Outcome, Problem
from isft_jax.worlds.problems.world import World

# First key of each random stream.
_VERDICTS, _ERRORS = 0, 1


class Answer(NamedTuple):
  """A reply of a policy.

  Attributes:
    ids_T: int32, the ids that were sampled, with the one that ended the turn.
    text: the text before the end of the turn.
    has_ended: False if it reached the maximum number of tokens. Nothing can
      follow it then.
  """

  ids_T: np.ndarray
  text: str
  has_ended: bool


class Turn(NamedTuple):
  """A problem that the agent has met, with its answer and what was found."""

  problem: Problem
  answer: Answer
  outcome: Outcome
  verdict: str  # words of the verdict
  correction: str  # words of the correction, whether or not it is shown


def make_turns(
  world: World,
  problems: Sequence[Problem],
  answers: Sequence[Answer],
  seed: int,
  wrong_share: float = 0.0,
) -> list[Turn]:
  """Returns a turn per problem.

  Args:
    world: the world of the problems.
    problems, answers: problems and the agent's answers to them.
    seed: seed of the verdicts' words and of the choice of wrong corrections.
    wrong_share: share of the wrong answers whose correction is wrong too. Their
      number is rounded.
  """
  turns = []
  for number, (problem, answer) in enumerate(
    zip(problems, answers, strict=True)
  ):
    outcome = world.verify(answer.text, problem)
    # A stream per turn: its words do not depend on other turns.
    rng = np.random.default_rng([_VERDICTS, seed, number])
    verdict = phrases.draw_verdict(outcome.is_right, rng)
    turns.append(Turn(problem, answer, outcome, verdict, problem.solution))
  # The corrections of a share of the wrong answers are wrong. A larger share
  # contains a smaller one.
  wrong = [i for i, turn in enumerate(turns) if not turn.outcome.is_right]
  order = np.random.default_rng([_ERRORS, seed]).permutation(wrong)
  for i in order[: round(wrong_share * len(wrong))]:
    turns[i] = turns[i]._replace(correction=turns[i].problem.wrong_solution)
  return turns


def prompt(world: World, problem: Problem, renderer: Renderer) -> np.ndarray:
  """Returns the ids before an answer to a problem, int32 [T]."""
  answer = Segment('assistant', problem.solution, Provenance.AGENT)
  rendered = renderer.example(
    Trajectory(problem.id, (*policies.ask(world, problem), answer))
  )
  start, _ = _agent_span(rendered)
  return rendered.tokens_T[:start]


def example(
  world: World, turn: Turn, renderer: Renderer, corrected: bool = True
) -> Example:
  """Returns the stream of a turn as a record.

  Args:
    world: the world of the problem.
    turn: a turn whose answer has ended.
    renderer: the renderer of the policy.
    corrected: whether a correction follows the verdict on a wrong answer.
  """
  is_corrected = corrected and not turn.outcome.is_right
  more = [policies.demonstrate(turn.correction)] if is_corrected else []
  # The solution takes the place of the answer, whose text the template would
  # encode with other ids.
  rendered = renderer.example(
    Trajectory(
      turn.problem.id,
      (
        *policies.ask(world, turn.problem),
        Segment('assistant', turn.problem.solution, Provenance.AGENT),
        Segment('user', turn.verdict, Provenance.HARNESS),
        *more,
      ),
    )
  )
  return splice(rendered, turn.answer, turn.outcome.verdict)


def second_prompt(world: World, turn: Turn, renderer: Renderer) -> np.ndarray:
  """Returns the ids before a second try: x, y^, v and a header, int32 [T]."""
  streamed = example(world, turn, renderer)
  is_correction_T = streamed.provenance_T == Provenance.DEMONSTRATION
  return streamed.tokens_T[: np.argmax(is_correction_T)]


def splice(rendered: Example, answer: Answer, verdict: Verdict) -> Example:
  """Replaces the agent's tokens of an example by the sampled ids.

  Args:
    rendered: an example with one turn of the agent.
    answer: the answer that the agent has sampled.
    verdict: whether it is right.
  """
  start, stop = _agent_span(rendered)
  size = len(answer.ids_T)

  def joined(column_T: np.ndarray, middle: np.ndarray) -> np.ndarray:
    parts = column_T[:start], middle.astype(column_T.dtype), column_T[stop:]
    return np.concatenate(parts)

  return Example(
    rendered.id,
    joined(rendered.tokens_T, answer.ids_T),
    joined(rendered.provenance_T, np.full(size, Provenance.AGENT)),
    joined(rendered.segment_T, np.full(size, rendered.segment_T[start])),
    joined(rendered.verdict_T, np.full(size, verdict)),
  )


def _agent_span(rendered: Example) -> tuple[int, int]:
  """Returns the first token of the agent, and the one after its last."""
  agent = np.flatnonzero(rendered.provenance_T == Provenance.AGENT)
  return int(agent[0]), int(agent[-1]) + 1
