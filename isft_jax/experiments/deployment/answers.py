"""Samples answers with their exact ids; evaluates first and second tries."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from isft_jax.data.rendering import chat_template
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.data.rendering.tokenizer import decode, special_ids
from isft_jax.experiments.deployment import stream
from isft_jax.experiments.deployment.policy import Policy
from isft_jax.experiments.deployment.stream import Answer, Turn
from isft_jax.inference.generate import generate
from isft_jax.inference.sampling import Sampling
from isft_jax.types import PyTree
from isft_jax.worlds.problems.problem import Problem

# Maximum prompts per batch. Fewer are padded to a multiple: few programs are
# compiled.
ROWS, _MULTIPLE = 128, 16

# Seeds of sampling: one per kind of answers and policy.
DEPLOYED, AGAIN, RESAMPLED, LIVE = 0, 1, 2, 3
_KINDS = 10


def sampling_seed(seed: int, kind: int, number: int = 0) -> int:
  """Returns a sampling seed: of a kind of answers, and of a round of it."""
  return (1000 * seed + number) * _KINDS + kind


def sample(
  policy: Policy,
  params: PyTree,
  prompts: Sequence[np.ndarray],
  max_new_tokens: int,
  temperature: float = 0.0,
  seed: int = 0,
) -> list[Answer]:
  """Returns an answer per prompt, with the ids that were sampled.

  A turn ends with a special token or, in the plain format, with a token that
  has a line break. This token is the last of an answer's ids.

  Args:
    policy: its graphdef and renderer.
    params: parameters of the model.
    prompts: ids before each answer.
    max_new_tokens: maximum tokens per answer.
    temperature: 1 samples from the policy; 0 takes the most likely tokens.
    seed: sampling seed.
  """
  is_end_V = _ends(policy.renderer, len(policy.params['embedding']))

  def has_ended(_: int, ids_T: np.ndarray) -> bool:
    return bool(is_end_V[ids_T].any())

  answers = []
  longest = max(prompts, key=len, default=np.zeros(0, np.int32))
  size = min(ROWS, max(1, -(-len(prompts) // _MULTIPLE)) * _MULTIPLE)
  for start in range(0, len(prompts), size):
    batch = list(prompts[start : start + size])
    # Every batch contains the longest prompt, so that all have one shape.
    filled = [*batch, *[longest] * (size + 1 - len(batch))]
    sampled = generate(
      policy.graphdef,
      params,
      filled,
      max_new_tokens,
      sampling=Sampling(temperature=temperature),
      seed=seed,
      rows=range(start, start + len(filled)),
      watch=has_ended,
    )
    answers += [
      _cut(policy.renderer, ids_T, is_end_V) for ids_T in sampled[: len(batch)]
    ]
  return answers


def _cut(renderer: Renderer, ids_T: np.ndarray, is_end_V: np.ndarray) -> Answer:
  """Returns the answer of sampled ids, without those after its end."""
  ends = np.flatnonzero(is_end_V[ids_T])
  kept_T = ids_T[: ends[0] + 1] if ends.size else ids_T
  text = decode(
    renderer.tokenizer,
    kept_T,
    skip_special_tokens=True,
    clean_up_tokenization_spaces=False,
  )
  return Answer(kept_T, text.strip(), bool(ends.size))


def _ends(renderer: Renderer, vocab_size: int) -> np.ndarray:
  """Returns the ids that end a turn of the agent, bool [V]."""
  tokenizer = renderer.tokenizer
  stops = {*special_ids(tokenizer), tokenizer.eos_token_id} - {None}
  if renderer.rendering['template'] == chat_template.PLAIN:
    stops |= {
      id
      for id in range(min(len(tokenizer), vocab_size))
      if '\n' in tokenizer.decode([id], clean_up_tokenization_spaces=False)
    }
  is_end_V = np.zeros(vocab_size, bool)
  is_end_V[[id for id in stops if id < vocab_size]] = True
  return is_end_V


def meet(
  policy: Policy,
  params: PyTree,
  problems: Sequence[Problem],
  reply_tokens: int,
  *,
  temperature: float = 0.0,
  seed: int = 0,
) -> list[Answer]:
  """Returns the first answer of a policy to each problem.

  Args:
    policy: its world, graphdef and renderer.
    params: parameters of the model.
    problems: the problems.
    reply_tokens, temperature, seed: see `sample`.
  """
  prompts = [stream.prompt(policy.world, p, policy.renderer) for p in problems]
  return sample(policy, params, prompts, reply_tokens, temperature, seed)


def evaluate(
  policy: Policy,
  params: PyTree,
  problems: Sequence[Problem],
  frozen: Sequence[Turn],
  reply_tokens: int,
) -> dict[str, Any]:
  """Returns first and second tries of a policy at problems.

  Args:
    policy: its world, graphdef and renderer.
    params: parameters of the model.
    problems: the problems.
    frozen: the turns of the first policy of the seed on the same problems.
    reply_tokens: maximum tokens per reply.

  Returns:
    Texts with a character per problem, '1' right and '0' not, and '-' if there
    is no second try because the first is right:
    first: greedy answers.
    second: greedy answers after own answer and verdict.
    again: a new sample for the same question, without any verdict.
    after_sft: greedy answers after the first policy's answer and the verdict.
    'unreadable' is the number of greedy first answers without a readable
    answer.
  """
  world = policy.world
  first = stream.make_turns(
    world,
    problems,
    meet(policy, params, problems, reply_tokens),
    policy.seed,
  )
  # Second tries after own answers, and after those of the first policy.
  second, after_sft = (
    _second_tries(policy, params, turns, reply_tokens)
    for turns in (first, frozen)
  )
  # A second sample needs no verdict in the context; the verifier still decides
  # who gets one.
  wrong = [turn.problem for turn in first if not turn.outcome.is_right]
  again = meet(
    policy,
    params,
    wrong,
    reply_tokens,
    temperature=1.0,
    seed=sampling_seed(policy.seed, AGAIN),
  )
  found = iter(
    world.verify(answer.text, problem).is_right
    for answer, problem in zip(again, wrong, strict=True)
  )
  return {
    'first': ''.join('01'[turn.outcome.is_right] for turn in first),
    'second': second,
    'again': ''.join(
      '-' if turn.outcome.is_right else '01'[next(found)] for turn in first
    ),
    'after_sft': after_sft,
    'unreadable': sum(turn.outcome.kind == 'unreadable' for turn in first),
  }


def _second_tries(
  policy: Policy, params: PyTree, turns: Sequence[Turn], reply_tokens: int
) -> str:
  # A first answer without an end has no second try, and stays unsolved.
  world = policy.world
  tried = [
    i
    for i, turn in enumerate(turns)
    if not turn.outcome.is_right and turn.answer.has_ended
  ]
  prompts = [
    stream.second_prompt(world, turns[i], policy.renderer) for i in tried
  ]
  marks = ['-' if turn.outcome.is_right else '0' for turn in turns]
  for i, answer in zip(
    tried, sample(policy, params, prompts, reply_tokens), strict=True
  ):
    is_right = world.verify(answer.text, turns[i].problem).is_right
    marks[i] = '01'[is_right]
  return ''.join(marks)
