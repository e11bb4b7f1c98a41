"""isft-prepare and isft-inspect --input: a first look, and then the records."""

import gzip
import importlib.util
import json

import pytest

from isft_jax.data.records import dataset
from isft_jax.data.rendering import tokenizer
from tests.commands import command, error_line
from tests.fixtures import needs

RUN = {
  'id': 'a',
  'messages': [
    {'role': 'user', 'content': 'Weather?'},
    {'role': 'assistant', 'content': 'look up'},
    {'role': 'tool', 'content': 'sunny'},
    {'role': 'assistant', 'content': 'Sunny.'},
  ],
}
TEMPLATE = (
  '{% for m in messages %}<{{ m.role }}>{{ m.content }}</>\n{% endfor %}'
  '{% if add_generation_prompt %}<assistant>{% endif %}'
)


@pytest.fixture
def place(tmp_path):
  """Agent runs, a tokenizer and a template, as a researcher has them."""
  lines = [json.dumps(RUN), '{"no": "messages"}']
  (tmp_path / 'runs.jsonl').write_text('\n'.join(lines))
  tokenizer.train([TEMPLATE, str(RUN)], 400).save_pretrained(
    tmp_path / 'tokenizer'
  )
  (tmp_path / 'template.jinja').write_text(TEMPLATE)
  return tmp_path


def test_mistyped_marks_are_shown(place):
  """At the end of isft-prepare, and by isft-inspect."""
  marked = json.loads(json.dumps(RUN))
  marked['messages'][1] |= {'verdict': 'incorrect', 'weight': 'high'}
  (place / 'runs.jsonl').write_text(json.dumps(marked))
  done = command('prepare', *flags_of(place), f'--output={place}/out')
  assert done.returncode == 0, done.stderr
  lines = [line.split() for line in done.stdout.splitlines()]
  assert ['verdict', "'incorrect'", '1'] in lines
  assert ['weight', "'high'", '1'] in lines
  shown = command('inspect', *flags_of(place))
  assert "verdict 'incorrect', weight 'high'" in shown.stderr


def flags_of(place):
  return [
    f'--input={place}/runs.jsonl',
    f'--tokenizer={place}/tokenizer',
    f'--chat_template={place}/template.jinja',
  ]


def test_records_of_agent_runs(place):
  done = command('prepare', *flags_of(place), f'--output={place}/out')
  assert done.returncode == 0, done.stderr
  table = [line.split() for line in done.stdout.splitlines()]
  for line in (
    ['rows', 'read', '2'],
    ['written', '1'],
    ['set', 'aside', '1'],
    ['malformed', '1'],
    ['role', 'user', 'USER'],  # the rules in force
  ):
    assert line in table
  assert f'--config.records={place}/out' in done.stdout
  (example,) = list(dataset.Records(str(place / 'out')))
  encoder = tokenizer.load(tokenizer.beside(str(place / 'out')))
  assert encoder.decode(example.tokens_T[example.provenance_T == 5]) == (
    'look up</>Sunny.</>'
  )
  again = command('prepare', *flags_of(place), f'--output={place}/out')
  assert 'existed already' in again.stdout


def test_what_was_not_read_ends_the_output(place):
  run = {**RUN, 'reward': 1, 'note': 'a\nb', 'messages': [*RUN['messages']]}
  run['messages'].append({'role': 'exit', 'content': 'bye'})
  (place / 'runs.jsonl').write_text(json.dumps(run))
  rules = {'rules': [{'when': {'role': 'exit'}, 'drop': True}]}
  (place / 'rules.json').write_text(json.dumps(rules))
  flags = *flags_of(place), f'--authors={place}/rules.json'
  done = command('prepare', *flags, f'--output={place}/out')
  assert done.returncode == 0, done.stderr
  _, _, end = done.stdout.partition('\nkeys that were not used\n')
  table, _, end = end.partition('\n\n')
  rows = [line.split() for line in table.splitlines()]
  assert rows[0] == ['key', 'rows']
  assert {('row.reward', '1'), ('row.note', '1')} <= {*map(tuple, rows)}
  assert end.splitlines()[0] == 'turns left out'
  assert end.splitlines()[2].split() == ['exit', '1']
  shown = command('inspect', *flags)
  assert shown.returncode == 0, shown.stderr
  first, second = shown.stderr.splitlines()
  assert first.startswith('keys that were not used: ')
  assert 'row.note, row.reward' in first
  assert second == 'turns left out: exit (1)'


def test_a_folder_with_compressed_runs_and_other_files(place):
  folder = place / 'runs'
  folder.mkdir()
  (folder / 'a.jsonl').write_text(json.dumps(RUN))
  packed = gzip.compress(json.dumps({**RUN, 'id': 'b'}).encode())
  (folder / 'b.jsonl.gz').write_bytes(packed)
  for name in ('README.md', 'log.txt', '.hidden'):
    (folder / name).touch()
  done = command(
    'prepare',
    f'--input={folder}',
    *flags_of(place)[1:],
    f'--output={place}/out',
    cwd=place,
  )
  assert done.returncode == 0, done.stderr
  assert (
    'files not read, because of their suffix (1 .md, 1 .txt): runs/README.md, '
    'runs/log.txt\n'
  ) in done.stdout
  ids = [example.id for example in dataset.Records(str(place / 'out'))]
  assert ids == ['a', 'b']


def test_several_processes_and_a_look_at_every_byte(place):
  flags = '--num_workers=2', '--num_shards=4', f'--output={place}/out'
  done = command('prepare', *flags_of(place), *flags)
  assert done.returncode == 0, done.stderr
  whole = command('prepare', f'--verify={place}/out')
  assert (whole.returncode, whole.stdout) == (
    0,
    f'{place}/out is complete and undamaged\n',
  )
  (shard,) = (place / 'out').glob('trajectories/*/*array_record*')
  shard.write_bytes(shard.read_bytes()[:-1])
  damaged = command('prepare', f'--verify={place}/out')
  assert damaged.returncode == 1
  assert damaged.stdout == f'{shard}: its bytes have changed\n'
  assert damaged.stderr.splitlines()[-1] == (  # after what it is reading
    f'error: {place}/out is damaged in 1 places; prepare or copy it again'
  )


@pytest.mark.skipif(
  importlib.util.find_spec('apache_beam') is not None, reason='Beam is there'
)
def test_beam_that_is_not_installed_is_named(place):
  flags = f'--output={place}/out', '--beam_runner=DirectRunner'
  assert error_line('prepare', *flags_of(place), *flags) == (
    "error: --beam_runner needs pip install -e '.[beam]' (No module named "
    "'apache_beam')\n"
  )


@needs('apache-beam')
def test_records_on_beam(place):
  flags = '--beam_runner=DirectRunner', f'--output={place}/out'
  more = '--beam_options=--direct_num_workers=1 --job_name=a'
  done = command('prepare', *flags_of(place), *flags, more)
  assert done.returncode == 0, done.stderr
  assert len(dataset.Records(str(place / 'out'))) == 1


def test_rules_of_authorship(place):
  rules = {
    'rules': [{'when': {'role': 'assistant'}, 'author': 'DEMONSTRATION'}]
  }
  (place / 'rules.json').write_text(json.dumps(rules))
  done = command(
    'prepare',
    *flags_of(place),
    f'--output={place}/out',
    f'--authors={place}/rules.json',
  )
  assert done.returncode == 0, done.stderr
  (example,) = list(dataset.Records(str(place / 'out')))
  assert 5 not in example.provenance_T
  assert 6 in example.provenance_T


def test_a_row_before_there_are_records(place):
  shown = command('inspect', *flags_of(place), '--index=0')
  assert shown.returncode == 0, shown.stderr
  rows = [line.split() for line in shown.stdout.splitlines()]
  assert ['a', 'AGENT'] in [row[2:4] for row in rows if len(row) > 4]
  page = place / 'page.html'
  command('inspect', *flags_of(place), f'--html={page}')
  assert 'sunny' in page.read_text()


def test_a_row_that_would_be_set_aside_says_why(place):
  assert error_line('inspect', *flags_of(place), '--index=1').startswith(
    f'error: {place}/runs.jsonl, row 2, would be set aside as malformed: '
  )


BAD = {
  'no input': (['--input='], 'name agent runs with --input=FILE_OR_FOLDER'),
  'no such input': (['--input=nowhere'], "no trajectories in 'nowhere'"),
  'no tokenizer': (
    ['--tokenizer='],
    'name a tokenizer with --tokenizer=PLACE: its folder, a hub id',
  ),
  'no such tokenizer': (['--tokenizer=/nowhere'], '/nowhere: no tokenizer'),
  'no output': (['--output='], 'name the folder to create with --output=DIR'),
  'no such template': (
    ['--chat_template=nope.jinja'],
    "--chat_template must be a file or 'plain' (got 'nope.jinja')",
  ),
  'a template that is none': (['--chat_template=BAD'], 'does not compile'),
  'rules that are none': (['--authors=setup.py'], 'setup.py: '),
  'a share above one': (['--heldout=2'], '--heldout=2.0 must be'),
  'a window of context': (
    ['--max_length=5', '--overlap=9'],
    '--overlap=9 must be',
  ),
  'no workers': (['--num_workers=0'], '--num_workers=0 must be 1 or more'),
  'a split of files': (['--split=test'], '--split=test is only for data sets'),
  'nothing to extend': (['--extends=nope'], 'nope is not a prepared data set'),
  'an unknown format': (['--format=csv'], 'csv'),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_flags_are_one_clear_line(case, place):
  flags, message = BAD[case]
  (place / 'bad.jinja').write_text('{% for %}')
  flags = [flag.replace('BAD', f'{place}/bad.jinja') for flag in flags]
  flags = *flags_of(place), f'--output={place}/out', *flags
  assert message in error_line('prepare', *flags)
  assert not (place / 'out').exists()


def test_help_shows_the_command_and_its_flags():
  shown = command('prepare', '--help').stdout
  assert 'isft-prepare --input=RUNS' in shown
  for flag in ('input', 'chat_template', 'special_text', 'heldout', 'overlap'):
    assert f'--{flag}:' in shown or f'--[no]{flag}:' in shown
