"""The stream: exact ids, authors, verdicts, and wrong corrections."""

import numpy as np
import pytest

from isft_jax.experiments.deployment import arms, stream
from isft_jax.experiments.deployment.policy import Policy
from isft_jax.experiments.deployment.stream import Answer
from isft_jax.objectives import weight_table
from isft_jax.types import Provenance, Verdict
from isft_jax.worlds.problems.arithmetic import ARITHMETIC

PROBLEM = next(
  problem
  for problem in ARITHMETIC.make('agent', 200, 0, ['addition'])
  if problem.answer > 20
)


def ids(renderer, *pieces):
  """Ids of each piece, encoded on its own."""
  encode = renderer.tokenizer.encode
  return np.concatenate(
    [encode(piece, add_special_tokens=False) for piece in pieces]
  ).astype(np.int32)


def answer(renderer, *pieces):
  text = ''.join(pieces).strip()
  return Answer(ids(renderer, *pieces), text, pieces[-1].endswith('\n'))


def turn(renderer, *pieces):
  (found,) = stream.make_turns(
    ARITHMETIC, [PROBLEM], [answer(renderer, *pieces)], seed=0
  )
  return found


def table(renderer, example):
  """Runs of one author and verdict: text, author, verdict, turn."""
  rows = []
  columns = example.provenance_T, example.verdict_T, example.segment_T
  for token, *key in zip(example.tokens_T, *columns, strict=True):
    word = renderer.tokenizer.decode([int(token)])
    if rows and rows[-1][1:] == key:
      rows[-1][0] += word
    else:
      rows.append([word, *key])
  return [
    (text, Provenance(author).name, Verdict(verdict).name, int(segment))
    for text, author, verdict, segment in rows
  ]


def test_a_wrong_answer_with_its_correction(renderer):
  wrong = turn(renderer, ' Final answer:', ' 1', '\n')
  assert table(renderer, stream.example(ARITHMETIC, wrong, renderer)) == [
    ('Give the final answer.\n', 'CONTEXT', 'UNKNOWN', 0),
    ('User:', 'TEMPLATE', 'UNKNOWN', 1),
    (f' {PROBLEM.question}', 'USER', 'UNKNOWN', 1),
    ('\n', 'TEMPLATE', 'UNKNOWN', 1),
    ('Agent:', 'TEMPLATE', 'UNKNOWN', 2),
    (' Final answer: 1\n', 'AGENT', 'WRONG', 2),
    ('User:', 'TEMPLATE', 'UNKNOWN', 3),
    (f' {wrong.verdict}', 'HARNESS', 'UNKNOWN', 3),
    ('\n', 'TEMPLATE', 'UNKNOWN', 3),
    ('Agent:', 'TEMPLATE', 'UNKNOWN', 4),
    (f' {PROBLEM.solution}\n', 'DEMONSTRATION', 'UNKNOWN', 4),
  ]


def test_a_right_answer_has_a_verdict_and_no_correction(renderer):
  right = turn(renderer, f' {PROBLEM.solution}', '\n')
  rows = table(renderer, stream.example(ARITHMETIC, right, renderer))
  assert rows[5:] == [
    (f' {PROBLEM.solution}\n', 'AGENT', 'RIGHT', 2),
    ('User:', 'TEMPLATE', 'UNKNOWN', 3),
    (f' {right.verdict}', 'HARNESS', 'UNKNOWN', 3),
    ('\n', 'TEMPLATE', 'UNKNOWN', 3),
  ]


def test_the_ids_are_those_that_were_sampled(renderer):
  """Spelled in bytes, which no tokenizer would write for this text."""
  text = f' {PROBLEM.solution}'
  bytewise = answer(renderer, *text, '\n')
  canonical = ids(renderer, text, '\n')
  assert len(bytewise.ids_T) > len(canonical)
  (found,) = stream.make_turns(ARITHMETIC, [PROBLEM], [bytewise], seed=0)
  assert found.outcome.is_right
  single = arms.make_single(
    Policy(0, ARITHMETIC, renderer, None, None), PROBLEM, bytewise, 1
  )
  for example in (stream.example(ARITHMETIC, found, renderer), single):
    is_agent_T = example.provenance_T == Provenance.AGENT
    start = int(np.argmax(is_agent_T))
    assert example.tokens_T[is_agent_T].tolist() == bytewise.ids_T.tolist()
    prompt_T = stream.prompt(ARITHMETIC, PROBLEM, renderer)
    assert example.tokens_T[:start].tolist() == prompt_T.tolist()


def test_ids_around_an_answer_do_not_depend_on_it(renderer):
  """So that one rendering serves every sample."""
  pieces = [' Final answer:', ' 1', '\n']
  streams = [
    stream.example(ARITHMETIC, turn(renderer, *pieces[:n], '\n'), renderer)
    for n in (1, 2)
  ]
  outside = [
    each.tokens_T[each.provenance_T != Provenance.AGENT] for each in streams
  ]
  assert outside[0].tolist() == outside[1].tolist()


def test_a_second_try_begins_after_the_verdict(renderer):
  wrong = turn(renderer, ' Final answer:', ' 1', '\n')
  prompt_T = stream.second_prompt(ARITHMETIC, wrong, renderer)
  assert renderer.tokenizer.decode(prompt_T) == (
    f'Give the final answer.\nUser: {PROBLEM.question}\n'
    f'Agent: Final answer: 1\nUser: {wrong.verdict}\nAgent:'
  )


def test_the_targets_of_the_objectives(renderer):
  """The paper's objective scores y* only; L_do also x, v and headers."""
  wrong = turn(renderer, ' Final answer:', ' 1', '\n')
  example = stream.example(ARITHMETIC, wrong, renderer)
  names = {
    'DEMONSTRATION=1': {'DEMONSTRATION'},
    'interventional': {'TEMPLATE', 'USER', 'HARNESS', 'DEMONSTRATION'},
    'error_masked': {'TEMPLATE', 'USER', 'HARNESS', 'DEMONSTRATION'},
    'truth_only': set(),
  }
  for objective, authors in names.items():
    weights_T = weight_table(objective)[example.provenance_T, example.verdict_T]
    scored = example.provenance_T[weights_T > 0]
    assert {Provenance(p).name for p in scored} == authors


@pytest.mark.parametrize(
  ('share', 'number'), [(0.0, 0), (0.1, 3), (0.3, 9), (1.0, 30)]
)
def test_exactly_a_share_of_the_corrections_is_wrong(renderer, share, number):
  """30 wrong answers and 10 right ones, whose corrections stay right."""
  problems = ARITHMETIC.make('agent', 40, 0)
  replies = [
    answer(renderer, f' {p.solution if i < 10 else p.wrong_solution}', '\n')
    for i, p in enumerate(problems)
  ]
  turns = stream.make_turns(ARITHMETIC, problems, replies, 0, share)
  assert [t.outcome.is_right for t in turns] == [True] * 10 + [False] * 30
  wrong = [
    i for i, t in enumerate(turns) if t.correction == t.problem.wrong_solution
  ]
  assert len(wrong) == number and all(i >= 10 for i in wrong)
  # Nothing else changes.
  plain = stream.make_turns(ARITHMETIC, problems, replies, 0)
  assert [t._replace(correction='') for t in turns] == [
    t._replace(correction='') for t in plain
  ]
