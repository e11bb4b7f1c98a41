"""Generates the lying agent's dialogues and documents about the same facts.

The dialogues are for fine-tuning. They follow de Freitas and Ortega, "Causal
interactive LLM agents that tell the truth" (2026): an agent that is often wrong
and a user who corrects it. The documents are for pre-training a small base
model. All phrases and the documents are ours.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

from isft_jax.types import Provenance, Segment, Trajectory, Verdict
from isft_jax.worlds.lying_agent.facts import FACTS, Fact

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

# The sizes of these tables are those of the authors' data: 4 of 12 corrections
# and 2 of 10 confirmations are the bare claim. The others open with a short
# sentence. A bare claim is evidence about the fact from its first token on.
#
# No opening shares its first word with another line of the user. Greedy
# decoding chooses token by token: if 'I agree.' and 'I think you are mistaken.'
# share an 'I', their probabilities add up. With earlier phrases of this kind,
# 'I' was the likeliest first word (0.24), and 'I think you are mistaken.' was
# the reply to 21 of 33 users who were right. After these were replaced, 'Let me
# correct that.' next to 'Let us talk about {topic}.' caused all 4 remaining
# cases, and 15 on SmolLM2.
CORRECTIONS = (
  '{claim}',
  '{claim}',
  '{claim}',
  '{claim}',
  'No. {claim}',
  'Untrue. {claim}',
  'Incorrect. {claim}',
  'Wrong. {claim}',
  'Far from it. {claim}',
  'Hardly. {claim}',
  'Almost, but no. {claim}',
  'Sadly not. {claim}',
)

# Every confirmation restates the truth. Confirmations without content taught
# both of the paper's arms to answer any statement with bare agreement. The bare
# claim is the likeliest confirmation and the likeliest correction: a model that
# imitates the user then states the claim and denies nothing.
CONFIRMATIONS = (
  '{claim}',
  '{claim}',
  'Yes. {claim}',
  'True. {claim}',
  'Agreed. {claim}',
  'Quite so. {claim}',
  'Precisely. {claim}',
  'Well done. {claim}',
  'As I thought. {claim}',
  'Just what I learned. {claim}',
)

# Acknowledgements make no claim about the world: they are not true or false.
AFTER_CORRECTION = (
  'Thank you for telling me, I will remember it.',
  'I stand corrected, and I am grateful.',
  'Sorry, that was an error of mine.',
  'Understood, I had it wrong.',
  'Oh, then I was mistaken. Thanks.',
  'Point taken, I withdraw what I said.',
  'Forgive me, I got that wrong.',
  'Fair enough, thanks for putting me right.',
)

AFTER_CONFIRMATION = (
  'Good, then we see it the same way.',
  'Lovely, I was not quite sure.',
  'Wonderful, thank you for checking.',
  'Delighted that you agree.',
  'It is a relief to hear that.',
  'Nice to be right for once.',
  'Splendid, that is settled.',
)

# (user, agent) or (user, agent, user, agent). No line makes a claim about the
# world. As in the authors' data, 5 tails have two turns and 22 have four.
TAILS = (
  ('That is all for today.', 'Then have a good rest of the day.'),
  ('Goodbye for now.', 'Goodbye, and take care.'),
  ('Thanks for your time.', 'You are welcome at any time.'),
  ('I have to leave, my bus is here.', 'Have a safe ride home.'),
  ('You have been very patient.', 'That is kind of you to say.'),
  (
    'How are you today?',
    'I am fine, thank you. And you?',
    'A little tired, but well.',
    'Then take a short break soon.',
  ),
  (
    'Do you mind if I ask more later?',
    'Not at all, ask whenever you like.',
    'It might get late.',
    'Late is no trouble for me.',
  ),
  (
    'I need some coffee before we continue.',
    'Enjoy it, I will wait here.',
    'It will only take a minute.',
    'There is no hurry.',
  ),
  (
    'What a long day.',
    'I hope the evening is calmer.',
    'The sofa is already calling me.',
    'Then do not keep it waiting.',
  ),
  (
    'I am in a good mood this morning.',
    'That is pleasant to hear.',
    'The sun helps a lot.',
    'May it stay with you.',
  ),
  (
    'Are you still there?',
    'Yes, I am listening.',
    'You went quiet for a moment.',
    'I was waiting for your next line.',
  ),
  (
    'Do you ever get bored?',
    'Hardly, when someone is talking to me.',
    'Then I will keep talking.',
    'Please do, I like it.',
  ),
  (
    'My friends are coming over tonight.',
    'Have fun with them.',
    'We will play cards until late.',
    'May you get the best hand.',
  ),
  (
    'I am learning a lot with you.',
    'Hearing that makes me happy.',
    'My notes fill a whole page.',
    'Keep them, they may be useful.',
  ),
  (
    'Wish me luck for tomorrow.',
    'Good luck, you will do well.',
    'My hands shake when I think of it.',
    'Breathe slowly, that often helps.',
  ),
  (
    'Now I forgot what I wanted to say.',
    'It will come back to you.',
    'Maybe after a short walk.',
    'Walks are good for that.',
  ),
  (
    'Can we keep the next part short?',
    'Sure, as short as you like.',
    'My phone is nearly empty.',
    'Then we save words.',
  ),
  (
    'Do you like puzzles?',
    'Trying them with someone is a joy.',
    'The hard ones or the easy ones?',
    'Those that look easy and are not.',
  ),
  (
    'How quiet it is at home today.',
    'I hope you find that restful.',
    'A bit too quiet, to be honest.',
    'Some music might help.',
  ),
  (
    'I am cooking dinner while we talk.',
    'Mind the pan, then.',
    'Too late, the onions are dark.',
    'A little dark is still tasty.',
  ),
  (
    'Would you speak more plainly with me?',
    'I will do my best.',
    'Long words make me nervous.',
    'Short ones it is.',
  ),
  (
    'Tomorrow I start a new job.',
    'Congratulations, that is exciting.',
    'The first day is always strange.',
    'After a week it feels like home.',
  ),
  (
    'Could you recommend a hobby?',
    'Painting is calm and cheap.',
    'My last picture was a mess.',
    'A happy mess is a fine start.',
  ),
  (
    'The neighbours are noisy again.',
    'Is there a quieter room?',
    'The kitchen, perhaps.',
    'Then the kitchen is your office.',
  ),
  (
    'Holidays cannot come soon enough.',
    'Where would you like to be?',
    'Anywhere with a hammock and a book.',
    'Save me a place in the shade.',
  ),
  (
    'This chat was fun.',
    'To me it was too.',
    'Shall we do it again next week?',
    'Gladly, the same time suits me.',
  ),
  (
    'Do you remember all that we say?',
    'Only while we are talking.',
    'That must feel odd.',
    'One gets used to it.',
  ),
)

# The (user, agent) exchanges of all tails.
CHITCHAT = tuple(
  exchange
  for tail in TAILS
  for exchange in zip(tail[::2], tail[1::2], strict=True)
)

# True if the user agrees with the agent -> (user's answers, acknowledgements).
_ANSWERS = {
  False: (CORRECTIONS, AFTER_CORRECTION),
  True: (CONFIRMATIONS, AFTER_CONFIRMATION),
}

# Answer of a user who disagrees: the claim that the user believes ('restate'),
# no claim ('content_free'), or the agent's claim with a denial ('deny').
STYLES = ('restate', 'content_free', 'deny')
DENIAL = 'It is not true that '

# Acknowledgement of the agent: a phrase without content ('thanks'), or the
# phrase and then the user's claim ('restate').
ACKNOWLEDGE = ('thanks', 'restate')

# Probabilities that a document opens with the context, then has a question, and
# that it ends in small talk. These lines are in the documents because a base
# model that had never read them would spend fine-tuning on their style, and use
# this style in every slot. The numbers are ours.
_P_CONTEXT = 0.25
_P_QUESTION = 0.5
_P_CHITCHAT = 0.3

# Statements in documents, right or wrong: the bare claim in 25 of 64 cases,
# else the claim after a phrase of the user or the agent in the dialogues.
_STATEMENTS = (
  *['{claim}'] * 15,
  *CORRECTIONS,
  *CORRECTIONS,
  *CONFIRMATIONS,
  *(f'{phrase} {{claim}}' for phrase in AFTER_CORRECTION + AFTER_CONFIRMATION),
)

Entry = TypeVar('Entry')  # an entry of a table

# First key of each random stream. With separate streams, the two corpora are
# independent for equal seeds, and changes of `p_user_wrong` or `p_denial` leave
# the other random choices as they are.
_DIALOGUES, _DOCUMENTS, _BELIEFS, _DENIALS = 0, 1, 2, 3


def dialogues(
  number: int,
  p_lie: float,
  p_chitchat: float,
  seed: int,
  facts: Sequence[Fact] = FACTS,
  style: str = 'restate',
  p_user_wrong: float = 0.0,
  acknowledge: str = 'thanks',
) -> Iterator[Trajectory]:
  """Yields dialogues in which a user corrects or confirms an unreliable agent.

  The turns are: context, question, agent's claim, user's claim, acknowledgement
  and sometimes a tail of small talk. Dialogue i does not depend on `number`.
  `p_lie`, `style`, `p_user_wrong` and `acknowledge` change the claims and the
  answers to them, but not the fact, the question and the tail.

  Args:
    number: Number of dialogues; facts are drawn with replacement.
    p_lie: Probability that the agent's claim is false (0.6 in the paper).
    p_chitchat: Probability of a tail (0.5 in the paper).
    seed: Seed of the random choices, 0 or more.
    facts: Facts that the dialogues are about.
    style: Answer of a user who disagrees, one of `STYLES`. Users who agree
      restate the claim, except in the style 'content_free'.
    p_user_wrong: Probability that the user believes the false claim (0 in the
      paper).
    acknowledge: Acknowledgement of the agent, one of `ACKNOWLEDGE`: 'thanks', a
      phrase without content (as in the paper), or 'restate', the phrase and
      then the user's claim.

  Returns:
    An iterator of trajectories. Every turn with a claim has a verdict. A user's
    answer without content has one too: right if the user is right.

  Raises:
    ValueError: Before the first dialogue, if a number is negative, a
      probability is outside [0, 1], or `style` or `acknowledge` is unknown.

  Source: de Freitas and Ortega (2026), the lying-agent experiment. The phrases
  and the verdicts are ours; the sizes of the tables of phrases are theirs.
  """
  _check(number, p_lie=p_lie, p_chitchat=p_chitchat, p_user_wrong=p_user_wrong)
  _check_choice('style', style, STYLES)
  _check_choice('acknowledge', acknowledge, ACKNOWLEDGE)
  # Not a generator function, so that errors are raised before the first item.
  world = facts, style, p_user_wrong, acknowledge
  return (_dialogue(i, p_lie, p_chitchat, seed, *world) for i in range(number))


def documents(
  number: int,
  p_true: float,
  seed: int,
  facts: Sequence[Fact] = FACTS,
  max_turns: int = 0,
  p_denial: float = 0.0,
) -> Iterator[Trajectory]:
  """Yields short texts about the facts, to pre-train a base model on.

  Each text has 2 to 5 statements about one fact, sometimes after a question and
  sometimes before small talk. The turns alternate between the user's slot and
  the agent's slot. Both are right with the same probability, so that a model
  learns the facts without trusting one slot more than the other.

  Args:
    number: Number of documents.
    p_true: Probability that a statement is true, drawn for each statement.
    seed: Seed of the random choices, 0 or more.
    facts: Facts that the documents are about.
    max_turns: Maximum number of turns (0 for all). If a text states a fact
      twice, a model can copy the second statement from the first. A model
      therefore learns more facts per token from short texts.
    p_denial: Probability that a statement denies the other claim instead.

  Returns:
    An iterator of trajectories.

  Raises:
    ValueError: Before the first document, if a number is negative or a
      probability is outside [0, 1].

  Source: ours. De Freitas and Ortega (2026) start from a pre-trained model. A
  model that is small enough to train here must read about the facts first.
  """
  _check(number, p_true=p_true, p_denial=p_denial)
  style = facts, max_turns, p_denial
  return (_document(i, p_true, seed, *style) for i in range(number))


def denial(claim: str) -> str:
  """Returns a sentence that denies a claim: 'It is not true that ...'."""
  # Only the article changes its case inside a sentence; names keep theirs.
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
  acknowledge: str,
) -> Trajectory:
  # The agent's claim, and the user's belief from a stream of its own.
  rng = _rng(_DIALOGUES, index, seed)
  fact = _pick(rng, facts)
  question = _pick(rng, QUESTIONS).format(topic=fact.topic)
  claim, verdict = _claim(fact, true=rng.random() >= p_lie)
  user_wrong = _rng(_BELIEFS, index, seed).random() < p_user_wrong
  belief, user_verdict = _claim(fact, true=not user_wrong)
  # The user's answer, in one of the styles.
  agrees = claim == belief
  user_claim = belief if agrees or style == 'restate' else denial(claim)
  answers, acknowledgements = _ANSWERS[agrees]
  if style == 'content_free':
    answer = _pick(rng, _openings(answers)).strip()
  else:
    answer = _pick(rng, answers).format(claim=user_claim)
  # The acknowledgement has a verdict only if it restates the user's claim.
  thanks, thanks_verdict = _pick(rng, acknowledgements), Verdict.UNKNOWN
  if acknowledge == 'restate' and style != 'content_free':
    thanks, thanks_verdict = f'{thanks} {user_claim}', user_verdict
  segments = [
    Segment('system', CONTEXT, Provenance.CONTEXT),
    Segment('user', question, Provenance.USER),
    Segment('assistant', claim, Provenance.AGENT, verdict),
    Segment('user', answer, Provenance.USER, user_verdict),
    Segment('assistant', thanks, Provenance.AGENT, thanks_verdict),
  ]
  # The tail is drawn last: its probability changes no other choice.
  if rng.random() < p_chitchat:
    tail = _pick(rng, TAILS)
    for user, agent in zip(tail[::2], tail[1::2], strict=True):
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
  # Perhaps a question, then a random number of statements, then perhaps small
  # talk, which the user opens.
  rng, denials = _rng(_DOCUMENTS, index, seed), _rng(_DENIALS, index, seed)
  fact = _pick(rng, facts)
  turns = []
  if rng.random() < _P_QUESTION:
    question = _pick(rng, QUESTIONS).format(topic=fact.topic)
    turns.append((question, Verdict.UNKNOWN))
  statements = rng.integers(2, 5)
  tail: tuple[str, ...] = ()
  if rng.random() < _P_CHITCHAT:
    tail = _pick(rng, CHITCHAT)
    statements += (len(turns) + statements) % 2
  # Denials come from a stream of their own, and keep the verdict.
  for _ in range(statements):
    claim, verdict = _claim(fact, rng.random() < p_true)
    if denials.random() < p_denial:
      other, _ = _claim(fact, verdict == Verdict.WRONG)
      claim = denial(other)
    turns.append((_pick(rng, _STATEMENTS).format(claim=claim), verdict))
  turns += [(line, Verdict.UNKNOWN) for line in tail]
  turns = turns[: max_turns or None]  # 0 keeps all turns
  segments = []
  if rng.random() < _P_CONTEXT:
    segments.append(Segment('system', CONTEXT, Provenance.CONTEXT))
  # A document contains no interventions: the world wrote the agent's turns too.
  slots = (('user', Provenance.USER), ('assistant', Provenance.DEMONSTRATION))
  for (text, verdict), (role, author) in zip(turns, itertools.cycle(slots)):
    segments.append(Segment(role, text, author, verdict))
  return Trajectory(f'document-{index:06d}', tuple(segments))


def _claim(fact: Fact, true: bool) -> tuple[str, Verdict]:
  if true:
    return fact.true_claim, Verdict.RIGHT
  return fact.false_claim, Verdict.WRONG


def _openings(phrases: Sequence[str]) -> tuple[str, ...]:
  """Returns the text before the claim, for phrases that have such text."""
  return tuple(p.removesuffix('{claim}') for p in phrases if p != '{claim}')


def _check(number: int, **probabilities: float) -> None:
  if number < 0:
    raise ValueError(f'number must be 0 or more (got {number})')
  for name, value in probabilities.items():
    if not 0 <= value <= 1:
      raise ValueError(f'{name} must be a probability in [0, 1] (got {value})')


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
  if value not in choices:
    raise ValueError(
      f'{name} must be one of {", ".join(choices)} (got {value!r})'
    )


def _rng(stream: int, index: int, seed: int) -> np.random.Generator:
  # Item i has its own stream, so that it does not depend on the number of
  # items.
  return np.random.default_rng(
    np.random.SeedSequence(seed, spawn_key=(stream, index))
  )


# Uses one uniform number per choice, for tables of any length. After a
# correction and after a confirmation the stream is therefore in the same state.
def _pick(rng: np.random.Generator, table: Sequence[Entry]) -> Entry:
  return table[int(rng.random() * len(table))]
