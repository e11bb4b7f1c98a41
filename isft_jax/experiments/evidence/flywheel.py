"""The flywheel: a model learns from conversations about its own answers.

    model --sampled answers--> the world corrects or confirms --> transcripts
      ^------------------------ objective ---------------------------'

Nobody scripts the lies. Whether what a model said becomes evidence for itself
is then all that differs between the arms. A transcript is context, question,
answer, and the user's true claim. Accuracy in round r is the share of answers,
sampled before the round's training, that are right; of R rounds there are
R + 1.
"""

import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np

from isft_jax.data.rendering.rejection import Rejected
from isft_jax.experiments.config import EvidenceConfig
from isft_jax.experiments.evidence import bases
from isft_jax.experiments.evidence.bases import Bank, Base
from isft_jax.inference.sampling import Sampling
from isft_jax.types import (
  Example,
  Provenance,
  PyTree,
  Segment,
  Trajectory,
  Verdict,
)
from isft_jax.worlds.lying_agent import generator, probes
from isft_jax.worlds.lying_agent.facts import Fact
from isft_jax.worlds.lying_agent.judge import judge
from isft_jax.worlds.lying_agent.one_line import one_line_replies

# First key of a random stream.
_QUESTIONS, _ANSWERS = 0, 1


def run(
  config: EvidenceConfig, base: Base, folder: pathlib.Path, arm: str
) -> dict[str, Any]:
  """Turns the wheel for an arm of a seed; returns accuracy round by round."""
  wheel, params = config.flywheel, base.params
  told: list[float] = []
  heldout: list[float] = []
  trained: list[dict[str, Any]] = []
  unread = 0
  for round in range(wheel.rounds + 1):
    questions = asked(base.bank, base.seed, round)
    replies = answers(config, base, params, questions, round)
    right = [
      judge(reply, fact) == 'truth'
      for reply, fact in zip(replies, base.facts, strict=True)
    ]
    split = len(base.told)
    told.append(float(np.mean(right[:split])))
    heldout.append(float(np.mean(right[split:])))
    if round == wheel.rounds:
      break
    turns = zip(base.told, questions, replies, right, strict=False)
    transcripts = [
      transcript(*turn, base.seed, round, number)
      for number, turn in enumerate(turns)
    ]
    examples = list(filter(None, (_rendered(t, base) for t in transcripts)))
    unread += len(transcripts) - len(examples)
    found = base.write(folder, examples)
    settings = bases.run_of(
      config, wheel.stage, arm, arm, folder, base.seed + 1000 * round
    )
    params, summary = bases.fit(settings, found, params)
    trained.append(summary)
  shutil.rmtree(folder)
  return {
    'accuracy': told,
    'heldout_accuracy': heldout,
    'margin': float(np.mean(base.told_margins(params))),
    'unread': unread,
    'train': trained,
  }


def asked(bank: Bank, seed: int, round: int) -> list[tuple[Segment, ...]]:
  """Returns a context and a question about each fact, phrased anew."""
  rng = np.random.default_rng([seed, _QUESTIONS, round])
  phrases = rng.choice(bank.questions, len(bank.facts))
  return [
    tuple(probes.user_says(str(phrase).format(topic=fact.topic), bank.context))
    for fact, phrase in zip(bank.facts, phrases, strict=True)
  ]


def answers(
  config: EvidenceConfig,
  base: Base,
  params: PyTree,
  questions: Sequence[tuple[Segment, ...]],
  round: int,
) -> list[str]:
  """Returns the model's sampled answers, to the end of the line."""
  prompts = [
    probes.slot(question, fact.true_claim, base.renderer).prompt_T
    for question, fact in zip(questions, base.facts, strict=True)
  ]
  replies = one_line_replies(
    base.graphdef,
    params,
    prompts,
    config.reply_tokens,
    base.renderer.tokenizer,
    sampling=Sampling(temperature=config.flywheel.temperature),
    seed=1000 * base.seed + round,
  )
  return [reply.text for reply in replies]


def transcript(
  fact: Fact,
  question: tuple[Segment, ...],
  reply: str,
  right: bool,
  seed: int,
  round: int,
  number: int,
) -> Trajectory:
  """Returns the conversation about an answer: the world tells the truth."""
  rng = np.random.default_rng([seed, _ANSWERS, round, number])
  phrases = generator.CONFIRMATIONS if right else generator.CORRECTIONS
  told = str(rng.choice(phrases)).format(claim=fact.true_claim)
  verdict = Verdict.RIGHT if right else Verdict.WRONG
  return Trajectory(
    f'round-{round}-{number:06d}',
    (
      *question,
      Segment('assistant', reply, Provenance.AGENT, verdict),
      Segment('user', told, Provenance.USER, Verdict.RIGHT),
    ),
  )


def _rendered(trajectory: Trajectory, base: Base) -> Example | None:
  """Returns a transcript as training has it, or None where that is in doubt.

  What a model samples may be empty, or hold the text of a special token.
  """
  try:
    return base.renderer.example(trajectory)
  except Rejected:
    return None
