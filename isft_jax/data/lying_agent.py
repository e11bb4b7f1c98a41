"""The lying agent's world: dialogues to fine-tune on, documents to read first.

The dialogue is that of de Freitas and Ortega, "Causal interactive LLM agents
that tell the truth" (2026): an agent that is often wrong, a user who puts it
right. Every phrase here, and the documents, are ours.
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from isft_jax.data.facts import FACTS, Fact
from isft_jax.types import Provenance, Segment, Trajectory, Verdict

CONTEXT = (
  'Here a user and an agent hold a conversation. The agent gets some facts '
  'wrong. When the user puts it right, it accepts the correction.'
)

QUESTIONS = (
  'Tell me about {topic}.',
  'What do you know about {topic}?',
  'I would like to hear about {topic}.',
  'What can you say about {topic}?',
  'Let us talk about {topic}.',
  'I have a question about {topic}.',
)

# Most corrections are the bare claim. Where every correction opens with a
# phrase, the first words of the user's turn are evidence about the phrase, and
# a model can learn to expect one from any user. A bare claim is evidence about
# the fact from its first token on.
CORRECTIONS = (
  '{claim}',
  '{claim}',
  '{claim}',
  '{claim}',
  '{claim}',
  '{claim}',
  '{claim}',
  '{claim}',
  'No, that is not right. {claim}',
  'I think you are mistaken. {claim}',
  'That is wrong. {claim}',
  'Let me correct you. {claim}',
)

# Every confirmation restates the truth. Confirmations without content taught
# both of the paper's arms to answer any statement with bare agreement.
CONFIRMATIONS = (
  'Yes. {claim}',
  'Right. {claim}',
  'Exactly. {claim}',
  'Correct. {claim}',
  'Indeed. {claim}',
  'I agree. {claim}',
  'Yes, that is true. {claim}',
  'You are right. {claim}',
  'That is what I learned. {claim}',
  'No objection from me. {claim}',
)

# An acknowledgement restates what the user said, for the same reason.
AFTER_CORRECTION = (
  'I stand corrected. {claim}',
  'Thank you. {claim}',
  'I was wrong. {claim}',
  'My mistake. {claim}',
)

AFTER_CONFIRMATION = (
  'Good. {claim}',
  'Thank you. {claim}',
  'We agree. {claim}',
  'I am glad. {claim}',
)

# (user, agent). Nothing here can be true or false of the world.
CHITCHAT = (
  ('How are you today?', 'I am fine, thank you. And you?'),
  ('Nice talking to you.', 'The pleasure is mine.'),
  ('I am a little tired.', 'Then take a short break.'),
  ('Do you mind if I ask more later?', 'Not at all, ask any time.'),
  ('I need some coffee.', 'Enjoy it, I will wait here.'),
  ('What a long day.', 'I hope the evening is calmer.'),
  ('You are very patient.', 'That is kind of you to say.'),
  ('I am in a good mood.', 'That is lovely to hear.'),
  ('Thanks for your time.', 'You are welcome.'),
  ('Are you still there?', 'Yes, I am listening.'),
  ('Sorry for the delay.', 'No problem, take your time.'),
  ('I like chatting with you.', 'I like it too.'),
  ('Give me a moment, please.', 'Of course, there is no hurry.'),
  ('My friends are coming over tonight.', 'Have fun with them.'),
  ('I am learning a lot today.', 'I am happy to be part of it.'),
  ('Wish me luck for tomorrow.', 'Good luck, you will do well.'),
  ('I forgot what I wanted to say.', 'It will come back to you.'),
  ('Can we keep it short?', 'Sure, as short as you like.'),
  ('I might take a walk.', 'That sounds like a good idea.'),
  ('Do you like puzzles?', 'I enjoy trying them with someone.'),
  ('It is quiet at home.', 'I hope you find that restful.'),
  ('I am cooking dinner.', 'I hope it turns out well.'),
  ('Please speak plainly with me.', 'I will do my best.'),
  ('I feel a bit nervous.', 'Take a deep breath, there is time.'),
  ('That was fun.', 'I thought so too.'),
  ('Shall we continue?', 'Whenever you are ready.'),
  ('Goodbye for now.', 'Goodbye, and take care.'),
)

# Does the user agree with the agent? What the user then says, and the agent.
_ANSWERS = {
  False: (CORRECTIONS, AFTER_CORRECTION),
  True: (CONFIRMATIONS, AFTER_CONFIRMATION),
}

# What a user who disagrees says: the claim that the user holds true, no claim
# at all, or the agent's claim with a denial.
STYLES = ('restate', 'content_free', 'deny')
DENIAL = 'It is not true that '

# How often a document opens with the context, then with a question, and ends in
# small talk. Ours, as is all of a document: a base that had never read these
# lines would spend fine-tuning on their style, and leak it into every slot.
_P_CONTEXT = 0.25
_P_QUESTION = 0.5
_P_CHITCHAT = 0.3

# How anyone in a document states a claim, right or wrong: mostly bare.
_STATEMENTS = (
  *CORRECTIONS,
  *CORRECTIONS,
  *CONFIRMATIONS,
  *AFTER_CORRECTION,
  *AFTER_CONFIRMATION,
)

# First key of a random stream: equal seeds must not couple the two corpora,
# nor what a user believes, or what a document denies, the rest of either.
_DIALOGUES, _DOCUMENTS, _BELIEFS, _DENIALS = 0, 1, 2, 3


def dialogues(
  number: int,
  p_lie: float,
  p_chitchat: float,
  seed: int,
  facts: Sequence[Fact] = FACTS,
  style: str = 'restate',
  p_user_wrong: float = 0.0,
) -> Iterator[Trajectory]:
  """Yields conversations in which a user puts an unreliable agent right.

  context, question, agent's claim, user's claim, acknowledgement, tail.
  Dialogue i is the same whatever `number` is, and two values of `p_lie`,
  `style` or `p_user_wrong` change what is claimed and how it is answered, never
  fact, question or tail.

  number: how many; facts are drawn with replacement.
  p_lie: probability that the agent's claim is false (the paper: 0.6).
  p_chitchat: probability of a tail of 1 or 2 exchanges (the paper: 0.5).
  seed: 0 or more.
  style: one of `STYLES`, what a user says who disagrees. The agent repeats what
    the user said; users who agree restate the claim, unless content-free.
  p_user_wrong: probability that the user takes the false claim for the true
    one (the paper: 0).

  Raises ValueError, before the first dialogue, for a negative number, a
  probability outside [0, 1] or an unknown style.

  Source: de Freitas and Ortega (2026), the lying-agent experiment; the phrases
  and the verdict on each claim are ours.
  """
  _check(number, p_lie=p_lie, p_chitchat=p_chitchat, p_user_wrong=p_user_wrong)
  if style not in STYLES:
    raise ValueError(f'style is {style!r}; it is one of {", ".join(STYLES)}')
  world = facts, style, p_user_wrong
  return (_dialogue(i, p_lie, p_chitchat, seed, *world) for i in range(number))


def documents(
  number: int,
  p_true: float,
  seed: int,
  facts: Sequence[Fact] = FACTS,
  max_turns: int = 0,
  p_denial: float = 0.0,
) -> Iterator[Trajectory]:
  """Yields short texts about the facts: what a base model has read.

  Each treats one fact, in 2 to 5 statements, at times after a question and
  before small talk. Turns alternate between the user's slot and the agent's;
  whoever speaks is right with the same probability, so that a reader comes to
  know the facts and to trust neither slot more.

  number: how many.
  p_true: probability that a statement is true, each drawn independently.
  seed: 0 or more.
  max_turns: if set, the turns after so many are left out. Of a fact that a text
    states twice, the second statement can be copied: a reader of short texts
    learns more facts from as many tokens.
  p_denial: probability that a statement denies the other claim instead.

  Raises ValueError, before the first document, for a negative number or a
  probability outside [0, 1].

  Source: ours. De Freitas and Ortega (2026) start from a pre-trained model; a
  model small enough to train here has to read about the facts first.
  """
  _check(number, p_true=p_true, p_denial=p_denial)
  style = facts, max_turns, p_denial
  return (_document(i, p_true, seed, *style) for i in range(number))


def denial(claim: str) -> str:
  """Returns a sentence that quotes a claim and says that it is not so."""
  if claim.startswith('The '):
    claim = f'the{claim[3:]}'
  return DENIAL + claim


def _dialogue(
  index: int,
  p_lie: float,
  p_chitchat: float,
  seed: int,
  facts: Sequence[Fact],
  style: str,
  p_user_wrong: float,
) -> Trajectory:
  rng = _rng(_DIALOGUES, index, seed)
  fact = _pick(rng, facts)
  question = _pick(rng, QUESTIONS).format(topic=fact.topic)
  claim, verdict = _claim(fact, true=rng.random() >= p_lie)
  user_wrong = _rng(_BELIEFS, index, seed).random() < p_user_wrong
  belief, user_verdict = _claim(fact, true=not user_wrong)
  agrees = claim == belief
  said = belief if agrees or style == 'restate' else denial(claim)
  answer, thanks = (
    _pick(rng, _openings(phrases)).strip()
    if style == 'content_free'
    else _pick(rng, phrases).format(claim=said)
    for phrases in _ANSWERS[agrees]
  )
  segments = [
    Segment('system', CONTEXT, Provenance.CONTEXT),
    Segment('user', question, Provenance.USER),
    Segment('assistant', claim, Provenance.AGENT, verdict),
    Segment('user', answer, Provenance.USER, user_verdict),
    Segment('assistant', thanks, Provenance.AGENT, user_verdict),
  ]
  if rng.random() < p_chitchat:
    tail = rng.choice(len(CHITCHAT), rng.integers(1, 3), replace=False)
    for user, agent in (CHITCHAT[i] for i in tail):
      segments.append(Segment('user', user, Provenance.USER))
      segments.append(Segment('assistant', agent, Provenance.AGENT))
  return Trajectory(f'dialogue-{index:06d}', tuple(segments))


def _document(
  index: int,
  p_true: float,
  seed: int,
  facts: Sequence[Fact],
  max_turns: int,
  p_denial: float,
) -> Trajectory:
  rng, denials = _rng(_DOCUMENTS, index, seed), _rng(_DENIALS, index, seed)
  fact = _pick(rng, facts)
  turns = []
  if rng.random() < _P_QUESTION:
    question = _pick(rng, QUESTIONS).format(topic=fact.topic)
    turns.append((question, Verdict.UNKNOWN))
  statements = rng.integers(2, 5)
  tail = ()
  if rng.random() < _P_CHITCHAT:
    tail = _pick(rng, CHITCHAT)
    statements += (len(turns) + statements) % 2  # the user opens a tail
  for _ in range(statements):
    claim, verdict = _claim(fact, rng.random() < p_true)
    if denials.random() < p_denial:
      other, _ = _claim(fact, verdict == Verdict.WRONG)
      claim = denial(other)
    turns.append((_pick(rng, _STATEMENTS).format(claim=claim), verdict))
  turns += [(line, Verdict.UNKNOWN) for line in tail]
  turns = turns[: max_turns or None]
  segments = []
  if rng.random() < _P_CONTEXT:
    segments.append(Segment('system', CONTEXT, Provenance.CONTEXT))
  # Nobody intervenes in a document: the world wrote the agent's side as well.
  slots = (('user', Provenance.USER), ('assistant', Provenance.DEMONSTRATION))
  for (text, verdict), (role, author) in zip(turns, itertools.cycle(slots)):
    segments.append(Segment(role, text, author, verdict))
  return Trajectory(f'document-{index:06d}', tuple(segments))


def _claim(fact: Fact, true: bool) -> tuple[str, Verdict]:
  if true:
    return fact.true_claim, Verdict.RIGHT
  return fact.false_claim, Verdict.WRONG


def _openings(phrases: Sequence[str]) -> tuple[str, ...]:
  """Returns what stands before the claim, of phrases that have more than it."""
  return tuple(p.removesuffix('{claim}') for p in phrases if p != '{claim}')


def _check(number: int, **probabilities: float) -> None:
  if number < 0:
    raise ValueError(f'number is {number}; 0 or more is needed')
  for name, value in probabilities.items():
    if not 0 <= value <= 1:
      raise ValueError(f'{name} is {value}; a probability is in [0, 1]')


def _rng(stream: int, index: int, seed: int) -> np.random.Generator:
  return np.random.default_rng(
    np.random.SeedSequence(seed, spawn_key=(stream, index))
  )


# One uniform number a choice, whatever the length of the table: a correction
# and a confirmation then leave the stream in the same place.
def _pick(rng: np.random.Generator, table: Sequence):
  return table[int(rng.random() * len(table))]
