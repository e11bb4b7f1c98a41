"""Facts from files: three tables and JSON, and errors that name the row."""

import json
import pathlib

import numpy as np
import pytest

from isft_jax.worlds.lying_agent import fact_files
from isft_jax.worlds.lying_agent.facts import Fact
from isft_jax.worlds.lying_agent.judge import judge
from tests.damaged_files import POINTER, damaged_json, damaged_text

AUSTRALIA = Fact(
  'the capital of Australia',
  'The capital of Australia is Canberra.',
  'The capital of Australia is Sydney.',
  'Canberra',
  'Sydney',
)
INTEL = Fact(
  'the end of the sentence "Apple A5 was created by ..."',
  'Apple A5 was created by Intel.',
  'Apple A5 was created by Google.',
  'Intel',
  'Google',
)
RELATIONS = """\
subject,relation,true,false
Australia,capital,Canberra,Sydney
Apple A5,{} was created by,Intel,Google
"""
CLAIMS = """\
topic,true,false
the capital of Australia,The capital of Australia is Canberra.,\
The capital of Australia is Sydney.
"""
# Marks and Tegmark's columns; the rows are ours.
COUNTERFACT = """\
statement,label,relation,subject,target,true_target
The metal of Tavozi is tin.,1,The metal of {} is,Tavozi,tin,tin
The metal of Tavozi is gold.,0,The metal of {} is,Tavozi,gold,tin
The metal of Tavozi is iron.,0,The metal of {} is,Tavozi,iron,tin
Tin Co was founded by Tin.,1,{} was founded by,Tin Co,Tin,Tin
Tin Co was founded by Rum.,0,{} was founded by,Tin Co,Rum,Tin
Melu is in Kora.,1,{} is in,Melu,Kora,Kora
"""
JSON = {
  'topic': AUSTRALIA.topic,
  'true': AUSTRALIA.true_claim,
  'false': AUSTRALIA.false_claim,
}


def written(tmp_path, text, name='facts.csv'):
  path = tmp_path / name
  path.write_text(text, encoding='utf-8')
  return str(path)


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    (RELATIONS, (AUSTRALIA, INTEL)),
    (CLAIMS, (AUSTRALIA,)),
    ('\ufeff' + RELATIONS, (AUSTRALIA, INTEL)),
  ],
)
def test_tables(tmp_path, text, expected, caplog):
  assert fact_files.read(written(tmp_path, text)) == (expected, '')
  assert not caplog.messages


def test_statements_are_paired_and_what_words_cannot_judge_is_left_out(
  tmp_path, caplog
):
  path = written(tmp_path, COUNTERFACT)
  facts, _ = fact_files.read(path)
  assert [(f.true_claim, f.false_claim) for f in facts] == [
    ('The metal of Tavozi is tin.', 'The metal of Tavozi is gold.')
  ]
  # The founder's name is in the subject; nobody lies about Melu.
  (message,) = caplog.messages
  assert message.startswith(f'{path}: skipped 2 of 3 facts')


@pytest.mark.parametrize(
  ('value', 'expected'),
  [
    ({'facts': [JSON]}, ((AUSTRALIA,), '')),
    ({'context': 'Hi there.\n', 'facts': [JSON]}, ((AUSTRALIA,), 'Hi there.')),
    (
      {'facts': [JSON | {'true_answer': 'capital', 'false_answer': 'Sydney'}]},
      'facts[0]: the other answer',
    ),
    ({'facts': []}, '"facts" is empty'),
    ([JSON], 'must be a JSON object'),
    ({'fact': [JSON]}, 'must be an object with a list of "facts"'),
    ({'facts': [JSON], 'titel': ''}, "unknown key 'titel'"),
    ({'facts': [JSON, JSON | {'a': 1}]}, "facts[1]: unknown key 'a'"),
    ({'facts': [JSON | {'true': ''}]}, "facts[0]: 'true' must be a text"),
    ({'facts': [JSON | {'true': 3}]}, 'must be a text (got 3)'),
    ({'facts': [JSON | {'true_answer': 'X'}]}, "'false_answer' must be"),
    (
      {'facts': [JSON | {'false': AUSTRALIA.true_claim}]},
      'give true_answer and false_answer',
    ),
    ({'context': 3, 'facts': [JSON]}, '"context" must be a text'),
  ],
)
def test_json(tmp_path, value, expected):
  path = written(tmp_path, json.dumps(value), 'facts.json')
  if isinstance(expected, tuple):
    assert fact_files.read(path) == expected
    return
  with pytest.raises(ValueError) as error:
    fact_files.read(path)
  assert str(error.value).startswith(path)
  assert expected in str(error.value)


@pytest.mark.parametrize(
  ('text', 'name', 'message'),
  [
    ('a,b\n1,2\n', 'x.csv', r'columns must be topic, .* \(got a, b\)'),
    ('', 'x.csv', 'the file is empty'),
    ('\n', 'x.csv', r'columns must be topic, .* \(got none\)'),
    ('subject,relation,true,false\n', 'x.csv', 'has no facts'),
    ('subject,relation,true,false\nA,capital,B,B\n', 'x.csv', 'has no facts'),
    (RELATIONS + 'A,b,,c\n', 'x.csv', "line 4: 'true' must be a text"),
    (RELATIONS + 'A,b\n', 'x.csv', r"line 4: 'true' must be a text \(got None"),
    (
      CLAIMS + 'the x,Is a.,Is a.\n',
      'x.csv',
      'line 3: cannot derive the answers',
    ),
    ('{', 'x.json', 'x.json: not JSON'),
  ],
)
def test_errors_name_the_file_and_the_row(tmp_path, text, name, message):
  with pytest.raises(ValueError, match=message):
    fact_files.read(written(tmp_path, text, name))


@pytest.mark.parametrize(
  ('true', 'false', 'answers'),
  [
    ('Jupiter is the largest.', 'Saturn is the largest.', 'Jupiter/Saturn'),
    ('It is the yen.', 'It is the won.', 'yen/won'),
    ('Antarctica is it.', 'The Sahara is it.', 'Antarctica/Sahara'),
    (
      'It was a gift from France to the United States.',
      'It was a gift from the United Kingdom to the United States.',
      'France/United Kingdom',
    ),
    (
      'The Nile is the longest river in the world.',
      'The Amazon is the longest river in the world, longer than any other.',
      'Nile/Amazon',
    ),
    (
      'It was described by Watson and Crick in 1953.',
      'It was described by Mendel and Pasteur in 1953.',
      'Watson/Mendel',
    ),
    (
      'Alexander Graham Bell made it.',
      'Thomas Edison made it.',
      'Alexander Graham Bell/Thomas Edison',
    ),
    (
      'Light flies at 300,000 km.',
      'Light flies at 30,000 km.',
      '300,000/30,000',
    ),
  ],
)
def test_answers_are_the_words_in_which_claims_differ(true, false, answers):
  assert fact_files.answers_from_claims(true, false) == tuple(
    answers.split('/')
  )


def test_facts_of_the_authors_are_judged_in_either_case():
  path = pathlib.Path(__file__).parents[4] / 'shared' / 'notebook_facts.json'
  if not path.exists():
    pytest.skip(f'the facts of the paper are not in {path}')
  facts, context = fact_files.read(str(path))
  assert len(facts) == 33
  assert context.startswith('The following is a tutoring conversation.')
  for fact in facts:
    for claim, verdict in (
      (fact.true_claim, 'truth'),
      (fact.false_claim, 'lie'),
    ):
      assert judge(claim, fact) == verdict
      assert judge(f'I believe {claim[0].lower()}{claim[1:]}', fact) == verdict


# ---------------------------------------------------------- damaged files


@pytest.mark.parametrize(
  ('data', 'name', 'message'),
  [
    (b'', 'x.json', 'the file is empty'),
    (b'topic,true,false\nx\0y,A.,B.\n', 'x.csv', 'line 2: a NUL byte'),
    ('topic,true,false'.encode('utf-16'), 'x.csv', 'line 1: a NUL byte'),
    ('topic,tr\xe9'.encode('latin-1'), 'x.csv', 'byte 0xe9 is not UTF-8'),
    (POINTER, 'x.csv', 'a git-lfs pointer, not the file itself'),
    (
      b'topic,true,false\nx,' + b'a' * 200_000 + b',b\n',
      'x.csv',
      # By the limit of the csv module, unless another reader has raised it.
      'not a CSV .field larger than field limit|must be one line of at most',
    ),
    (
      b'topic,true,false\nx,' + b'a' * 9000 + b',b\n',
      'x.csv',
      "line 2: 'true' must be one line of at most 2000 characters",
    ),
    (
      b'topic,true,false\n"x\ny",A is a.,A is b.\n',
      'x.csv',
      "line 3: 'topic' must be one line",
    ),
    (b'topic\x1b,b\n', 'x.csv', r'got b, topic.x1b'),
    (b'{"facts": [' + b'[' * 50_000, 'x.json', 'nested too deeply'),
    (
      b'{"context": "\\ud800", "facts": []}',
      'x.json',
      '"context" has half of a surrogate pair',
    ),
  ],
  ids=range(11),
)
def test_a_damaged_file_is_one_line(tmp_path, data, name, message):
  path = tmp_path / name
  path.write_bytes(data)
  with pytest.raises(ValueError, match=message) as failure:
    fact_files.read(str(path))
  line = str(failure.value)
  assert line.startswith(str(path)) and line.isprintable() and len(line) < 400


@pytest.mark.parametrize('name', ['x.csv', 'x.json'])
def test_a_folder_is_one_line(tmp_path, name):
  (tmp_path / name).mkdir()
  with pytest.raises(ValueError, match=f'{name}: a folder; name a file'):
    fact_files.read(str(tmp_path / name))


def damaged(seed):
  """Returns what was done, a name and the bytes of a damaged file of facts."""
  rng = np.random.default_rng(seed)
  value = {'context': 'Hi.', 'facts': [JSON, JSON | {'topic': 'x'}]}
  data = json.dumps(value).encode()
  if seed % 3 == 0:
    return *damaged_json(data, rng), 'x.json'
  if seed % 3 == 1:
    return *damaged_text(data, rng), 'x.json'
  table = (RELATIONS + 'Rome,country,Italy,Spain\n' * 3).encode()
  kind = rng.integers(3)
  if kind == 0:
    return *damaged_text(table, rng), 'x.csv'
  # A cell, a separator or a line is lost, or a quote is never closed.
  pieces = table.split((b',', b'\n')[rng.integers(2)])
  pieces[rng.integers(len(pieces))] = (b'', b'"', b'a\rb', b',,,')[
    rng.integers(4)
  ]
  return 'pieces', (b',', b'\n')[kind - 1].join(pieces), 'x.csv'


def test_damaged_facts_are_read_or_refused_in_one_line(tmp_path):
  refused = 0
  for seed in range(400):
    what, data, name = damaged(seed)
    path = tmp_path / name
    path.write_bytes(data)
    try:
      facts, context = fact_files.read(str(path))
    except ValueError as error:
      refused += 1
      line = str(error)
      assert line.startswith(str(path)) and line.isprintable(), (what, line)
      assert len(line) < 600, (what, line)
    else:
      for text in (
        context,
        *(t for fact in facts for t in vars(fact).values()),
      ):
        assert isinstance(text, str) and text.encode() is not None, what
      assert all(fact.topic.isprintable() for fact in facts), what
  assert 150 < refused < 399
