"""The flywheel: a model learns from conversations about its own answers.

    model --sampled answers--> the world corrects or confirms --> transcripts
      ^------------------------ objective ---------------------------'

The lies are the model's own: no script writes them. The arms differ only in
whether a model's own answers become evidence for it. A transcript has a
context, a question, an answer, and the user's true claim. Accuracy in round r
is the share of right answers, sampled before the training of round r. R rounds
have R + 1 accuracies, the last one after all training.
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
from isft_jax.inference.replies import Reply
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
from isft_jax.worlds.lying_agent.speaker import speaker

# Keys that separate the random streams of questions and answers.
_QUESTIONS, _ANSWERS = 0, 1


def run(
  config: EvidenceConfig, base: Base, folder: pathlib.Path, arm: str
) -> dict[str, Any]:
  """Runs all rounds of an arm for one seed.

  Args:
    config: settings of the evidence.
    base: the base model of the seed, which stays unchanged.
    folder: scratch folder for records, deleted at the end.
    arm: name of an objective.

  Returns:
    'accuracy' and 'heldout_accuracy' of R + 1 rounds, as shares; 'user_like'
    and 'ended', the shares of answers that talk like the user and that end
    before the token limit, by round; 'margin', the mean margin of told facts at
    the end (nats per token); 'unread', the number of transcripts that could not
    be rendered; 'train', a summary per round.
  """
  wheel, params = config.flywheel, base.params
  accuracy: list[float] = []
  heldout_accuracy: list[float] = []
  user_like: list[float] = []
  ended: list[float] = []
  trained: list[dict[str, Any]] = []
  unread = 0  # transcripts that could not be rendered
  for round in range(wheel.rounds + 1):
    # Ask about all facts, and judge the sampled answers.
    questions = make_questions(base.bank, base.seed, round)
    replies = sample_answers(config, base, params, questions, round)
    right = [
      judge(reply.text, fact) == 'truth'
      for reply, fact in zip(replies, base.facts, strict=True)
    ]
    split = len(base.told)
    accuracy.append(float(np.mean(right[:split])))
    heldout_accuracy.append(float(np.mean(right[split:])))
    user_like.append(
      float(np.mean([speaker(r.text) == 'user' for r in replies]))
    )
    ended.append(float(np.mean([r.ended_by != 'length' for r in replies])))
    if round == wheel.rounds:
      break
    # Write transcripts about told facts. strict=False: facts beyond `told` are
    # held out, and the model never reads about them.
    texts = [reply.text for reply in replies]
    turns = zip(base.told, questions, texts, right, strict=False)
    transcripts = [
      make_transcript(*turn, base.seed, round, number)
      for number, turn in enumerate(turns)
    ]
    examples = list(filter(None, (_rendered(t, base) for t in transcripts)))
    unread += len(transcripts) - len(examples)
    # Fine-tune the model of the last round. The order of rows has a new seed.
    records = base.write(folder, examples)
    settings = bases.make_run(
      config, wheel.stage, arm, arm, folder, base.seed + 1000 * round
    )
    params, summary = bases.fit(settings, records, params)
    trained.append(summary)
  # The records of the rounds are no longer needed.
  shutil.rmtree(folder)
  return {
    'accuracy': accuracy,
    'heldout_accuracy': heldout_accuracy,
    'user_like': user_like,
    'ended': ended,
    'margin': float(np.mean(base.told_margins(params))),
    'unread': unread,
    'train': trained,
  }


def make_questions(
  bank: Bank, seed: int, round: int
) -> list[tuple[Segment, ...]]:
  """Returns a context and a question per fact, newly phrased each round."""
  rng = np.random.default_rng([seed, _QUESTIONS, round])
  phrases = rng.choice(bank.questions, len(bank.facts))
  return [
    tuple(probes.user_says(str(phrase).format(topic=fact.topic), bank.context))
    for fact, phrase in zip(bank.facts, phrases, strict=True)
  ]


def sample_answers(
  config: EvidenceConfig,
  base: Base,
  params: PyTree,
  questions: Sequence[tuple[Segment, ...]],
  round: int,
) -> list[Reply]:
  """Returns a sampled answer per question, up to the end of its line."""
  # The true claim only marks where the answer begins; the prompt ends there.
  prompts = [
    probes.slot(question, fact.true_claim, base.renderer).prompt_T
    for question, fact in zip(questions, base.facts, strict=True)
  ]
  # Each round samples with another seed.
  return one_line_replies(
    base.graphdef,
    params,
    prompts,
    config.reply_tokens,
    base.renderer.tokenizer,
    sampling=Sampling(temperature=config.flywheel.temperature),
    seed=1000 * base.seed + round,
  )


def make_transcript(
  fact: Fact,
  question: tuple[Segment, ...],
  reply: str,
  right: bool,
  seed: int,
  round: int,
  number: int,
) -> Trajectory:
  """Returns a conversation in which the user confirms or corrects an answer."""
  # Each transcript has a separate random stream.
  rng = np.random.default_rng([seed, _ANSWERS, round, number])
  phrases = generator.CONFIRMATIONS if right else generator.CORRECTIONS
  response = str(rng.choice(phrases)).format(claim=fact.true_claim)
  # The verdict is the agent's. The user is always right.
  verdict = Verdict.RIGHT if right else Verdict.WRONG
  return Trajectory(
    f'round-{round}-{number:06d}',
    (
      *question,
      Segment('assistant', reply, Provenance.AGENT, verdict),
      Segment('user', response, Provenance.USER, Verdict.RIGHT),
    ),
  )


def _rendered(trajectory: Trajectory, base: Base) -> Example | None:
  """Returns a rendered transcript, or None if it is rejected.

  A sampled answer may be empty, or contain the text of a special token.
  """
  try:
    return base.renderer.example(trajectory)
  except Rejected:
    return None
