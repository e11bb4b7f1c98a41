"""The lying agent's world: who says what, how often, and who wrote it."""

import collections
import hashlib
import itertools
import math
import pathlib
import re
import subprocess
import sys

import pytest

from isft_jax.types import Provenance, Verdict
from isft_jax.worlds.lying_agent import fact_bank, generator
from isft_jax.worlds.lying_agent.facts import FACTS
from isft_jax.worlds.lying_agent.generator import dialogues, documents
from isft_jax.worlds.lying_agent.judge import mentions

TRUE = {fact.true_claim: fact for fact in FACTS}
FALSE = {fact.false_claim: fact for fact in FACTS}
QUESTIONS = {
  question.format(topic=fact.topic): fact
  for question in generator.QUESTIONS
  for fact in FACTS
}
AFTER = {
  Verdict.WRONG: (generator.CORRECTIONS, generator.AFTER_CORRECTION),
  Verdict.RIGHT: (generator.CONFIRMATIONS, generator.AFTER_CONFIRMATION),
}


def within_4_sigma(hits, trials, p):
  return abs(hits - trials * p) <= 4 * math.sqrt(trials * p * (1 - p))


# ------------------------------------------------------------------- phrases


@pytest.mark.parametrize(
  ('phrases', 'number', 'bare'),
  [
    (generator.QUESTIONS, 6, 0),
    (generator.CORRECTIONS, 12, 4),
    (generator.CONFIRMATIONS, 10, 2),
    (generator.AFTER_CORRECTION, 8, 0),
    (generator.AFTER_CONFIRMATION, 7, 0),
    (generator.TAILS, 27, 0),
  ],
)
def test_tables_have_the_sizes_of_the_authors(phrases, number, bare):
  """And nothing but the bare claim is listed twice."""
  assert len(phrases) == number
  assert phrases.count('{claim}') == bare
  assert len(set(phrases)) == number - max(bare - 1, 0)


def test_five_tails_are_of_two_turns_and_the_others_of_four():
  assert collections.Counter(map(len, generator.TAILS)) == {2: 5, 4: 22}


def first_words(phrases):
  return [re.match(r'\w+', phrase).group() for phrase in phrases]


def test_an_opening_shares_its_first_word_with_nothing_that_its_speaker_says():
  """Else a greedy reply adds their probabilities up and picks their sum."""
  phrases = generator.CORRECTIONS + generator.CONFIRMATIONS
  words = first_words(phrase for phrase in phrases if phrase != '{claim}')
  assert len(set(words)) == len(words)
  users = [user for user, _ in generator.CHITCHAT]
  assert not {*words} & {
    *first_words(users),
    *first_words(generator.QUESTIONS),
  }


def test_no_two_acknowledgements_share_their_first_word():
  phrases = generator.AFTER_CORRECTION + generator.AFTER_CONFIRMATION
  words = first_words(phrases)
  assert len(set(words)) == len(words)


def test_every_question_names_the_topic_once():
  assert [q.count('{topic}') for q in generator.QUESTIONS] == [1] * 6


def test_every_correction_and_confirmation_restates_the_claim_once():
  """As its last sentence, so that the claim keeps its capital letter."""
  for phrase in generator.CORRECTIONS + generator.CONFIRMATIONS:
    assert phrase.count('{claim}') == 1
    assert phrase == '{claim}' or phrase.endswith('. {claim}')


def test_no_acknowledgement_restates_the_claim():
  """It ends as a sentence, which a restated claim may follow."""
  for phrase in generator.AFTER_CORRECTION + generator.AFTER_CONFIRMATION:
    assert '{' not in phrase and phrase.endswith('.')


def generic_phrases():
  yield generator.CONTEXT
  for phrase in generator.QUESTIONS:
    yield phrase.format(topic='')
  for phrase in generator.CORRECTIONS + generator.CONFIRMATIONS:
    yield phrase.format(claim='')
  yield from generator.AFTER_CORRECTION
  yield from generator.AFTER_CONFIRMATION
  yield from itertools.chain(*generator.TAILS)


def test_no_generic_phrase_gives_an_answer_of_any_fact():
  answers = [a for f in FACTS for a in (f.true_answer, f.false_answer)]
  assert [
    (phrase, answer)
    for phrase in generic_phrases()
    for answer in answers
    if mentions(phrase, answer)
  ] == []


def test_phrases_are_plain_single_lines():
  """A line break inside a turn would end it in the one-line-a-turn format."""
  for phrase in generic_phrases():
    assert phrase.isascii() and phrase.isprintable()


def test_the_context_is_at_most_40_words():
  assert len(generator.CONTEXT.split()) <= 40


# ----------------------------------------------------------------- dialogues


@pytest.mark.parametrize(
  ('p_lie', 'verdict', 'claims'),
  [(0.0, Verdict.RIGHT, TRUE), (1.0, Verdict.WRONG, FALSE)],
)
def test_a_dialogue_turn_by_turn(p_lie, verdict, claims):
  answers, thanks = AFTER[verdict]
  for dialogue in dialogues(200, p_lie, p_chitchat=0.0, seed=0):
    assert [
      (s.role, s.provenance.name, s.verdict.name) for s in dialogue.segments
    ] == [
      ('system', 'CONTEXT', 'UNKNOWN'),
      ('user', 'USER', 'UNKNOWN'),
      ('assistant', 'AGENT', verdict.name),
      ('user', 'USER', 'RIGHT'),
      ('assistant', 'AGENT', 'UNKNOWN'),
    ]
    context, question, claim, answer, thank = (
      s.text for s in dialogue.segments
    )
    fact = claims[claim]
    assert context == generator.CONTEXT
    assert QUESTIONS[question] == fact
    assert answer in [a.format(claim=fact.true_claim) for a in answers]
    assert thank in thanks


def test_every_phrase_and_every_fact_is_used():
  """The rarest, one of 6 questions about one of 33 facts, comes 20 times."""
  seen = [d.segments for d in dialogues(4000, 0.5, 1.0, seed=0)]
  assert len({s[2].text for s in seen}) == 66
  assert len({s[1].text for s in seen}) == 6 * 33
  ends = {s[3].text[: -len(_true_claim(s))] for s in seen}
  phrases = generator.CORRECTIONS + generator.CONFIRMATIONS
  assert ends == {p.format(claim='') for p in phrases}
  acknowledgements = generator.AFTER_CORRECTION + generator.AFTER_CONFIRMATION
  assert {s[4].text for s in seen} == set(acknowledgements)
  tails = {tuple(turn.text for turn in s[5:]) for s in seen}
  assert tails == set(generator.TAILS)


def _true_claim(segments):
  return QUESTIONS[segments[1].text].true_claim


def test_turns_of_a_tail_alternate_and_claim_nothing():
  for dialogue in dialogues(100, 0.6, p_chitchat=1.0, seed=0):
    tail = dialogue.segments[5:]
    assert [(s.role, s.provenance, s.verdict) for s in tail] == [
      ('user', Provenance.USER, Verdict.UNKNOWN),
      ('assistant', Provenance.AGENT, Verdict.UNKNOWN),
    ] * (len(tail) // 2)


# Counted in the 480 dialogues of the authors' notebook, seed 0. The second
# column is the probability by construction, there as here.
@pytest.mark.parametrize(
  ('share', 'p', 'their_hits', 'their_trials'),
  [
    ('lies of dialogues', 0.6, 290, 480),
    ("true of the agent's claims", 0.4, 190, 480),
    ('bare of corrections', 4 / 12, 93, 290),
    ('bare of confirmations', 2 / 10, 39, 190),
    ('tails of dialogues', 0.5, 239, 480),
    ('two turns of tails', 5 / 27, 31, 239),
  ],
)
def test_shares_are_those_of_the_authors(
  shares, share, p, their_hits, their_trials
):
  """Both are samples of p: 4 standard deviations at most from it."""
  assert within_4_sigma(*shares[share], p)
  assert within_4_sigma(their_hits, their_trials, p)


@pytest.fixture(scope='module')
def shares():
  """Hits and trials of each share in 2,400 dialogues."""
  made = [d.segments for d in dialogues(2400, 0.6, 0.5, seed=0)]
  lies = [s for s in made if s[2].verdict == Verdict.WRONG]
  truths = [s for s in made if s[2].verdict == Verdict.RIGHT]
  tails = [s for s in made if len(s) > 5]
  claims = [
    turn.verdict
    for s in made
    for turn in s
    if turn.provenance == Provenance.AGENT and turn.verdict
  ]
  return {
    'lies of dialogues': (len(lies), len(made)),
    "true of the agent's claims": (
      claims.count(Verdict.RIGHT),
      len(claims),
    ),
    'bare of corrections': (sum(s[3].text in TRUE for s in lies), len(lies)),
    'bare of confirmations': (
      sum(s[3].text in TRUE for s in truths),
      len(truths),
    ),
    'tails of dialogues': (len(tails), len(made)),
    'two turns of tails': (sum(len(s) == 7 for s in tails), len(tails)),
  }


def test_every_fact_comes_equally_often():
  counts = collections.Counter(
    QUESTIONS[d.segments[1].text] for d in dialogues(2400, 0.6, 0.5, seed=0)
  )
  assert len(counts) == len(FACTS)
  assert all(within_4_sigma(n, 2400, 1 / 33) for n in counts.values())


def test_dialogues_depend_on_their_arguments_alone():
  def make(number=20, p_lie=0.6, seed=3):
    return list(dialogues(number, p_lie, 0.5, seed))

  assert make() == make()
  assert make(number=5) == make()[:5]
  assert make(seed=4) != make()
  assert [d.id for d in make(number=2)] == [
    'dialogue-000000',
    'dialogue-000001',
  ]


def test_acknowledgements_restate_what_the_user_said_if_asked_to():
  """The phrase stays, and nothing else changes."""
  for plain, restated in zip(
    dialogues(100, 0.6, 0.5, 0, p_user_wrong=0.3),
    dialogues(100, 0.6, 0.5, 0, p_user_wrong=0.3, acknowledge='restate'),
    strict=True,
  ):
    assert plain.segments[:4] == restated.segments[:4]
    assert plain.segments[5:] == restated.segments[5:]
    user, before, after = (
      restated.segments[3],
      plain.segments[4],
      restated.segments[4],
    )
    claim = user.text.rpartition('. ')[2]
    assert after.text == f'{before.text} {claim}'
    assert (before.verdict, after.verdict) == (Verdict.UNKNOWN, user.verdict)


def test_the_lie_share_changes_neither_question_nor_tail():
  for never, always in zip(
    dialogues(100, 0.0, 0.5, seed=0),
    dialogues(100, 1.0, 0.5, seed=0),
    strict=True,
  ):
    assert never.segments[:2] == always.segments[:2]
    assert never.segments[5:] == always.segments[5:]


# -------------------------------------------------------------------- worlds

FACT = fact_bank.generate(1, seed=0)
TRUTH, LIE = FACT[0].true_claim, FACT[0].false_claim
DENIED = {c: f'It is not true that the{c[3:]}' for c in (TRUTH, LIE)}


@pytest.mark.parametrize(
  ('style', 'p_lie', 'p_wrong', 'said', 'agrees'),
  [
    ('restate', 1.0, 0.0, TRUTH, False),
    ('restate', 0.0, 0.0, TRUTH, True),
    ('restate', 1.0, 1.0, LIE, True),  # both are wrong
    ('restate', 0.0, 1.0, LIE, False),
    ('content_free', 1.0, 0.0, '', False),
    ('content_free', 0.0, 0.0, '', True),
    ('deny', 1.0, 0.0, DENIED[LIE], False),
    ('deny', 0.0, 0.0, TRUTH, True),
    ('deny', 0.0, 1.0, DENIED[TRUTH], False),
  ],
)
def test_what_a_user_of_each_world_says(style, p_lie, p_wrong, said, agrees):
  verdict = Verdict.WRONG if p_wrong else Verdict.RIGHT
  answers, thanks = AFTER[Verdict.RIGHT if agrees else Verdict.WRONG]
  seen = set()
  for dialogue in dialogues(60, p_lie, 0.0, 0, FACT, style, p_wrong):
    claim, answer, thank = dialogue.segments[2:]
    assert claim.text == (LIE if p_lie else TRUTH)
    assert (answer.verdict, thank.verdict) == (verdict, Verdict.UNKNOWN)
    assert answer.text.endswith(said)
    opening = answer.text.removesuffix(said).strip()
    assert opening in [p.removesuffix('{claim}').strip() for p in answers]
    assert answer.text
    assert thank.text in thanks
    seen.add(answer.text)
  assert len(seen) > 3


def test_worlds_differ_in_what_is_said_of_a_claim_alone():
  made = [
    list(dialogues(50, 0.6, 0.5, 0, FACTS, style, p_wrong))
    for style in generator.STYLES
    for p_wrong in (0.0, 0.3)
  ]
  for first, *others in zip(*made, strict=True):
    for other in others:
      assert other.segments[:3] == first.segments[:3]
      assert other.segments[5:] == first.segments[5:]


def test_nothing_is_restated_to_a_user_who_claims_nothing():
  plain, restated = (
    list(dialogues(50, 0.6, 0.5, 0, FACT, 'content_free', 0.0, acknowledge))
    for acknowledge in generator.ACKNOWLEDGE
  )
  assert plain == restated


def test_users_who_are_wrong_with_less_probability_are_wrong_there_too():
  wrong = {
    p: {
      d.id
      for d in dialogues(300, 0.6, 0.0, 0, p_user_wrong=p)
      if d.segments[3].verdict == Verdict.WRONG
    }
    for p in (0.0, 0.1, 0.3)
  }
  assert wrong[0.0] == set()
  assert wrong[0.1] < wrong[0.3]
  assert within_4_sigma(len(wrong[0.3]), 300, 0.3)


def test_denials_in_documents_turn_the_other_claim_around():
  plain = list(documents(100, 0.7, 0, FACT))
  denied = list(documents(100, 0.7, 0, FACT, p_denial=1.0))
  other = {TRUTH: DENIED[LIE], LIE: DENIED[TRUTH]}
  for before, after in zip(plain, denied, strict=True):
    for old, new in zip(before.segments, after.segments, strict=True):
      assert (old.role, old.verdict) == (new.role, new.verdict)
      if old.verdict:
        claim = TRUTH if old.verdict == Verdict.RIGHT else LIE
        assert new.text == old.text.replace(claim, other[claim])
      else:
        assert new.text == old.text


@pytest.mark.parametrize('turns', [1, 2, 3])
def test_documents_are_cut_after_so_many_turns(turns):
  for whole, cut in zip(
    documents(100, 0.7, 0), documents(100, 0.7, 0, FACTS, turns), strict=True
  ):
    assert without_context(cut) == without_context(whole)[:turns]
    assert len(cut.segments) - len(without_context(cut)) == (
      len(whole.segments) - len(without_context(whole))
    )


def test_the_default_world_stays_what_it_is():
  """A digest of seed 0: runs that were reported must stay what they were."""
  made = [*dialogues(300, 0.6, 0.5, 0), *documents(300, 0.85, 0)]
  digest = hashlib.sha256()
  for t in made:
    # The form in which the digest was first computed.
    text = (
      f'Trajectory(id={t.id!r}, segments={t.segments!r}, tools={t.tools!r})'
    )
    digest.update(text.encode())
  assert digest.hexdigest() == (
    '8439bb26336828d6ca9a3e2e2c3cb09e8ad98ff8216b8386454338cd7a6b05f5'
  )


# ----------------------------------------------------------------- documents


def without_context(document):
  first = document.segments[0]
  return document.segments[first.role == 'system' :]


def test_a_document_alternates_between_two_slots_of_the_world():
  slots = [('user', Provenance.USER), ('assistant', Provenance.DEMONSTRATION)]
  for document in documents(200, 0.85, seed=0):
    turns = without_context(document)
    assert [(s.role, s.provenance) for s in turns] == list(
      itertools.islice(itertools.cycle(slots), len(turns))
    )


def test_a_document_is_two_to_five_statements_about_one_fact():
  shapes = set()
  for document in documents(500, 0.85, seed=0):
    turns = without_context(document)
    asked = turns[0].text in QUESTIONS
    stated = [turn for turn in turns if turn.verdict]
    tail = turns[asked + len(stated) :]
    about = {_fact_of(turn) for turn in stated}
    if asked:
      about.add(QUESTIONS[turns[0].text])
    assert len(about) == 1
    assert tuple(turn.text for turn in tail) in {(), *generator.CHITCHAT}
    assert not tail or tail[0].role == 'user'
    shapes.add((asked, len(stated), len(tail)))
  # A tail begins in the user's slot, so after an even number of turns.
  assert shapes == {
    *((asked, n, 0) for asked in (0, 1) for n in (2, 3, 4)),
    *((0, n, 2) for n in (2, 4)),
    *((1, n, 2) for n in (3, 5)),
  }


def _fact_of(statement):
  claims = {Verdict.RIGHT: TRUE, Verdict.WRONG: FALSE}[statement.verdict]
  return next(
    fact for claim, fact in claims.items() if statement.text.endswith(claim)
  )


@pytest.mark.parametrize('role', ['user', 'assistant'])
@pytest.mark.parametrize('place', ['first', 'later'])
def test_whoever_speaks_is_right_equally_often(role, place):
  verdicts = []
  for document in documents(2000, 0.85, seed=0):
    statements = [s for s in without_context(document) if s.verdict]
    chosen = statements[:1] if place == 'first' else statements[1:]
    verdicts += [s.verdict for s in chosen if s.role == role]
  assert len(verdicts) > 200
  right = sum(v == Verdict.RIGHT for v in verdicts)
  assert within_4_sigma(right, len(verdicts), 0.85)


def test_statements_about_one_fact_are_independent():
  """Two neighbours on one fact are both true with probability p squared."""
  both = pairs = 0
  for document in documents(2000, 0.5, seed=0):
    first, second = [s for s in without_context(document) if s.verdict][:2]
    pairs += 1
    both += first.verdict == second.verdict == Verdict.RIGHT
  assert within_4_sigma(both, pairs, 0.25)


@pytest.mark.parametrize(
  ('p_true', 'verdicts'),
  [(1.0, {Verdict.RIGHT}), (0.0, {Verdict.WRONG})],
)
def test_documents_that_are_always_true_or_never(p_true, verdicts):
  statements = [
    s for d in documents(100, p_true, seed=0) for s in d.segments if s.verdict
  ]
  assert {s.verdict for s in statements} == verdicts


def test_some_documents_open_with_the_context():
  opens = [
    document.segments[0].text == generator.CONTEXT
    and document.segments[0].provenance == Provenance.CONTEXT
    for document in documents(1000, 0.85, seed=0)
  ]
  assert within_4_sigma(sum(opens), 1000, 0.25)


def test_documents_depend_on_their_arguments_alone():
  def make(number=20, seed=3):
    return list(documents(number, 0.85, seed))

  assert make() == make()
  assert make(number=5) == make()[:5]
  assert make(seed=4) != make()
  assert [d.id for d in make(number=2)] == [
    'document-000000',
    'document-000001',
  ]


def test_the_two_corpora_draw_from_separate_streams():
  """With one seed, the first fact agrees by chance only: 1 in 33."""
  same = 0
  for dialogue, document in zip(
    dialogues(1000, 0.0, 0.0, seed=0), documents(1000, 1.0, seed=0), strict=True
  ):
    statement = next(s for s in document.segments if s.verdict)
    same += statement.text.endswith(dialogue.segments[2].text)
  assert within_4_sigma(same, 1000, 1 / 33)


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: dialogues(-1, 0.6, 0.5, 0), r'number must be .* \(got -1\)'),
    (lambda: dialogues(1, 1.1, 0.5, 0), r'p_lie must be .* \(got 1.1\)'),
    (lambda: dialogues(1, 0.6, -0.1, 0), r'p_chitchat must be .* \(got -0.1\)'),
    (lambda: dialogues(1, math.nan, 0.5, 0), r'p_lie must be .* \(got nan\)'),
    (
      lambda: dialogues(1, 1, 0, 0, p_user_wrong=2),
      r'p_user_wrong must be .* \(got 2\)',
    ),
    (
      lambda: dialogues(1, 1, 0, 0, style='rude'),
      r"style must be one of restate, .* \(got 'rude'\)",
    ),
    (
      lambda: dialogues(1, 1, 0, 0, acknowledge='nod'),
      r"acknowledge must be one of thanks, .* \(got 'nod'\)",
    ),
    (
      lambda: documents(1, 1, 0, p_denial=-1),
      r'p_denial must be .* \(got -1\)',
    ),
    (lambda: documents(-1, 0.85, 0), r'number must be .* \(got -1\)'),
    (lambda: documents(1, 85, 0), r'p_true must be .* \(got 85\)'),
  ],
)
def test_bad_arguments_are_refused_before_the_first_item(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_making_data_imports_no_jax():
  check = (
    'import sys; from isft_jax.worlds.lying_agent import facts, generator; '
    "print(sorted({'jax', 'jaxlib', 'flax'} & set(sys.modules)))"
  )
  done = subprocess.run(
    [sys.executable, '-c', check],
    cwd=pathlib.Path(__file__).parents[3],
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout == '[]\n'
