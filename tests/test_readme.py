"""What we tell people to type is what the commands take.

Every `isft-` line of the README, of docs, of a config's docstring and of a
command's help is parsed by the command itself, up to where its work would
begin. The flags of README and docs are also run, by the tests of the command or
by a notebook.
"""

import ast
import json
import re
import shlex
import subprocess
import sys
import textwrap

import pytest
from absl import app

from isft_jax.types import STRADDLE_ORDER
from tests.commands import ROOT, command

README = (ROOT / 'README.md').read_text(encoding='utf-8')
PAGES = {
  str(path.relative_to(ROOT)): path.read_text(encoding='utf-8')
  for path in (ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md')))
}


def commands(text: str) -> list[str]:
  """Returns the `isft-` lines of indented blocks, with what goes on below.

  What is in brackets may be left out, and is kept here; a remark after three
  spaces is no part of the line; N is a number, and dots are what was said.
  """
  found, indent = [], None
  for line in textwrap.dedent(text).splitlines():
    if match := re.match(r'( +)(?:pip .*&& )?(isft-\w+ .*)', line):
      indent = len(match[1])
      found.append(match[2])
    elif indent and line.startswith(' ' * (indent + 1)):
      found[-1] += ' ' + line.strip()
    else:
      indent = None
  return [tidy(line) for line in found]


def tidy(line: str) -> str:
  line = re.sub(r'(isft-\S+ +\S.*?) {3,}.*', r'\1', line)
  line = re.sub(r'[\[\]]|\\(?= )', '', line)
  line = line.replace('--config=...', '--config=train_tiny')
  return re.sub(r'=N\b', '=1', line.replace('... ', ''))


def documented() -> list[tuple[str, str]]:
  """Returns (where, line) of all that we tell people to type, each once."""
  files = [*(ROOT / 'configs').glob('*.py')]
  files += (ROOT / 'isft_jax/cli').glob('*.py')
  texts = PAGES | {
    path.name: ast.get_docstring(ast.parse(path.read_text()), False) or ''
    for path in sorted(files)
  }
  found = {}
  for where, text in texts.items():
    for line in commands(text):
      found.setdefault(line, where)
  return [(where, line) for line, where in found.items()]


def _parse_only():
  app.run = lambda main, flags_parser: flags_parser(sys.argv)


def parsed(line: str) -> str:
  """Returns what a command says against a line; it parses it and ends."""
  name, *arguments = shlex.split(line, comments=True)
  name = name.removeprefix('isft-')
  return command(name, *arguments, before=_parse_only).stderr


@pytest.mark.parametrize(
  ('where', 'line'), documented(), ids=lambda text: text[:60]
)
def test_a_command_takes_what_we_say(where, line):
  assert parsed(line) == '', where


@pytest.mark.parametrize(
  ('line', 'message'),
  [
    ('isft-export --checkpoint=W --outptu=F', 'outptu'),
    ('isft-train --config=nope --config.records=D', 'no config file nope'),
    ('isft-train --config=train_tiny --config.rows_=1', "no field 'rows_'"),
  ],
)
def test_what_a_command_does_not_take_is_seen(line, message):
  assert message in parsed(line)


def test_lines_are_found_and_joined():
  text = """
    Say

        isft-a   --b=N \\
          --c [--d]   why
        pip x && isft-e ... f  # who
          "g

        isft-h --config=... i
  """
  assert [' '.join(line.split()) for line in commands(text)] == [
    'isft-a --b=1 --c --d',
    'isft-e f # who "g',
    'isft-h --config=train_tiny i',
  ]
  assert len(documented()) > 30


def flags_of(line: str) -> set[tuple[str, str]]:
  """Returns (command, flag) of a line; fields of a config are one flag."""
  name, *arguments = shlex.split(line, comments=True)
  return {
    (name, flag[1])
    for argument in arguments
    if (flag := re.match(r'--(\w+)', argument))
  }


def test_every_flag_of_the_readme_is_run():
  """By the tests of its command, or in a notebook, which is a test."""
  run = set()
  for path in (ROOT / 'colabs').glob('*.ipynb'):
    for cell in json.loads(path.read_text())['cells']:
      source = ''.join(cell['source']).replace('\\\n', ' ')
      for line in re.findall(r'(?m)^ *!(isft-.*)$', source):
        run |= flags_of(line)
  for path in (ROOT / 'tests/cli').glob('test_*.py'):
    used = re.findall(r'--(\w+)', path.read_text())
    run |= {(f'isft-{path.stem.removeprefix("test_")}', flag) for flag in used}
  lines = (line for text in PAGES.values() for line in commands(text))
  shown = set().union(*map(flags_of, lines))
  assert len(shown) > 20
  assert shown - run == set()


@pytest.mark.parametrize('page', PAGES)
def test_a_page_names_files_and_extras_that_exist(page):
  text, folder = PAGES[page], (ROOT / page).parent
  for place in re.findall(r'\]\(([^):#]+)\)', text):
    assert (folder / place).exists(), place
  for place in re.findall(r'(?:tests|docs)/[\w/]+\.\w+', text):
    assert (ROOT / place).exists(), place
  setup = (ROOT / 'setup.py').read_text()
  for extras in re.findall(r"'\.\[([\w,-]+)\]'", text):
    for extra in extras.split(','):
      assert f"'{extra}': " in setup, extra


def test_every_page_of_docs_is_named_in_the_readme():
  named = set(re.findall(r'docs/\w+\.md', README))
  assert named == {page for page in PAGES if page != 'README.md'}


def test_the_readme_is_short():
  assert README.count('\n') <= 150
  assert len(README.split()) <= 1300


def test_lines_are_at_most_100_columns():
  for page, text in PAGES.items():
    for number, line in enumerate(text.splitlines(), 1):
      is_free = line.startswith(('|', '[![', '    '))
      assert len(line) <= 100 or is_free, f'{page}:{number}'


def test_the_examples_of_extending_print_what_they_say():
  """A python block that is followed by its output."""
  examples = re.findall(
    r'```python\n(.*?)```\n\n```\n(.*?)```',
    PAGES['docs/extending.md'],
    re.DOTALL,
  )
  assert len(examples) == 1
  for code, output in examples:
    done = subprocess.run(
      [sys.executable, '-c', code], capture_output=True, text=True, check=True
    )
    assert done.stdout == output


def test_troubleshooting_quotes_messages_that_the_code_has():
  source = ''
  for path in (ROOT / 'isft_jax').rglob('*.py'):
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.JoinedStr):
        source += ''.join(
          part.value if isinstance(part, ast.Constant) else '\0'
          for part in node.values
        )
      elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        source += node.value
      source += '\n'
  missing, quotes = [], 0
  rows = PAGES['docs/troubleshooting.md'].splitlines()
  for row in rows:
    if not row.startswith('| `'):
      continue
    for quote in re.findall(r'`([^`]+)`', row.split(' | ')[0]):
      quotes += 1
      words = re.split(r'NAME| \.\.\.', quote)
      missing += [w for w in words if w.strip() and w not in source]
  assert quotes > 15
  assert missing == []


def test_the_docs_have_the_order_of_authors_that_share_a_token():
  order = ', '.join(author.name for author in STRADDLE_ORDER)
  assert order in ' '.join(PAGES['docs/preparing_data.md'].split())
