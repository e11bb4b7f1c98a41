"""isft-inspect: which record, which tokenizer, and errors as one line."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import pytest

from isft_jax.cli import sources
from isft_jax.config import RunConfig
from isft_jax.data.records import dataset
from isft_jax.data.rendering import chat_template, tokenizer
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.experiments.config import LyingAgentConfig
from isft_jax.worlds.lying_agent import generator
from tests.commands import ROOT, command

NUMBER = 5


def trajectories():
  return generator.dialogues(NUMBER, p_lie=0.6, p_chitchat=0.5, seed=0)


def make_tokenizer(folder, vocab_size):
  texts = (segment.text for t in trajectories() for segment in t.segments)
  tokenizer.train(texts, vocab_size).save_pretrained(folder)
  return tokenizer.load(str(folder))


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """What an experiment leaves: tokenizer, dialogues, config.json."""
  folder = tmp_path_factory.mktemp('run')
  encoder = make_tokenizer(folder / 'tokenizer', 300)
  renderer = Renderer(encoder, chat_template.PLAIN)
  dataset.write(
    str(folder / 'records' / 'dialogues'),
    lambda: map(renderer.example, trajectories()),
    renderer.metadata(),
  )
  config = dataclasses.asdict(LyingAgentConfig())
  (folder / 'config.json').write_text(json.dumps(config))
  return folder


def read(
  config=None, workdir=None, records='', tokenizer='', index=0
) -> tuple[str, str]:
  example, encoder = sources.read(config, workdir, records, tokenizer, index)
  return example.id, encoder.decode(example.tokens_T)


def expected(index):
  trajectory = list(trajectories())[index]
  return trajectory.id, chat_template.ChatTemplate(chat_template.PLAIN).text(
    trajectory
  )


# ----------------------------------------------------------------- what is read


@pytest.mark.parametrize('index', [0, NUMBER - 1])
def test_records_and_the_tokenizer_of_their_experiment(workdir, index):
  found = read(records=workdir / 'records' / 'dialogues', index=index)
  assert found == expected(index)


def test_a_tokenizer_inside_the_records_comes_first(workdir, tmp_path):
  folder = tmp_path / 'records' / 'dialogues'
  shutil.copytree(workdir / 'records' / 'dialogues', folder)
  shutil.copytree(workdir / 'tokenizer', folder / 'tokenizer')
  make_tokenizer(tmp_path / 'tokenizer', 280)
  assert read(records=folder) == expected(0)


def test_the_config_of_a_training_run(workdir):
  config = RunConfig(
    records=str(workdir / 'records' / 'dialogues'),
    tokenizer=str(workdir / 'tokenizer'),
  )
  assert read(config, index=1) == expected(1)


def test_the_config_of_a_training_run_with_the_tokenizer_beside_its_records(
  workdir, tmp_path
):
  folder = tmp_path / 'records'
  shutil.copytree(workdir / 'records' / 'dialogues', folder)
  shutil.copytree(workdir / 'tokenizer', folder / 'tokenizer')
  assert read(RunConfig(records=str(folder)), index=1) == expected(1)


def test_the_config_of_an_experiment_that_was_run(workdir):
  assert read(LyingAgentConfig(), workdir, index=2) == expected(2)


def test_an_experiment_that_was_not_run_is_prepared_for_now(tmp_path, capsys):
  config = LyingAgentConfig(vocab_size=300)
  config.dialogues.number, config.documents.number = NUMBER, 3
  assert read(config, tmp_path / 'none', index=1) == expected(1)
  assert 'generating them temporarily' in capsys.readouterr().err
  assert list(tmp_path.iterdir()) == []


# ----------------------------------------------------------------------- errors


def test_data_of_another_config_are_not_shown_as_its_own(workdir):
  config = LyingAgentConfig(seed=1)
  config.dialogues.p_lie = 0.5
  with pytest.raises(
    ValueError, match=r'other values of dialogues and seed.*--workdir'
  ):
    read(config, workdir)


def test_a_tokenizer_that_did_not_render_the_records(workdir, tmp_path):
  make_tokenizer(tmp_path, 280)
  with pytest.raises(ValueError, match='was rendered with fingerprint'):
    read(records=workdir / 'records' / 'dialogues', tokenizer=tmp_path)


def test_records_without_a_tokenizer(workdir, tmp_path):
  folder = tmp_path / 'a' / 'b' / 'c'
  shutil.copytree(workdir / 'records' / 'dialogues', folder)
  with pytest.raises(ValueError, match=r'name it with --tokenizer=DIR'):
    read(records=folder)


@pytest.mark.parametrize('index', [-1, NUMBER])
def test_an_index_out_of_range_names_the_range(workdir, index):
  with pytest.raises(ValueError, match=f'--index={index}: .* records 0 to 4'):
    read(records=workdir / 'records' / 'dialogues', index=index)


@pytest.mark.parametrize(
  ('config', 'folder'),
  [(None, ''), (LyingAgentConfig(), 'somewhere'), (RunConfig(), 'somewhere')],
)
def test_a_config_or_a_folder_but_not_both(config, folder):
  message = 'name either --records=DIR, --config=FILE or --input=RUNS'
  with pytest.raises(ValueError, match=message):
    read(config, records=folder)


def test_a_config_without_records():
  with pytest.raises(ValueError, match=r'config\.records is empty'):
    read(RunConfig())


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    ([], 'name either --records=DIR, --config=FILE or --input=RUNS'),
    (['--records=/nowhere'], '/nowhere: no records there; prepare them first'),
    (['--records=x', '--objective=nope'], "unknown objective 'nope'; use one "),
    (['--records=x', '--color=red'], 'flag --color=red: value should be one '),
    (['--config=nope.py'], 'no config file nope.py; the package has '),
  ],
  ids=lambda value: ' '.join(value) if isinstance(value, list) else '',
)
def test_an_error_is_one_line(flags, message):
  done = command('inspect', *flags)
  assert done.returncode == 1
  assert done.stderr.startswith(f'error: {message}')
  assert done.stderr.count('\n') == 1 and done.stdout == ''


# ------------------------------------------------------------------ the command


def test_a_pipe_gets_plain_lines(workdir):
  done = command(
    'inspect', f'--records={workdir / "records" / "dialogues"}', '--index=1'
  )
  assert (done.returncode, done.stderr) == (0, '')
  lines = done.stdout.split('\n')
  assert lines[0].startswith('dialogue-000001: ')
  assert lines[0].endswith(' tokens, objective interventional')
  assert lines[2].split() == [
    'index', 'turn', 'author', 'verdict', 'weight', 'id', 'text'
  ]  # fmt: skip
  assert '\x1b' not in done.stdout


def test_a_row_of_agent_runs_before_it_is_a_record(workdir, tmp_path):
  """The row as isft-prepare would render it, or why it would not."""
  rows = [
    {'messages': [{'role': role, 'content': text} for role, text in turns]}
    for turns in (
      [('user', 'Hi.'), ('assistant', 'Hey.')],
      [('user', 'Two\nlines.'), ('assistant', 'Hey.')],
    )
  ]
  runs = tmp_path / 'runs.jsonl'
  runs.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  tokenizer = f'--tokenizer={workdir / "tokenizer"}'
  source = (f'--input={runs}', tokenizer, '--chat_template=plain')

  done = command('inspect', *source)
  assert (done.returncode, done.stderr) == (0, '')
  assert done.stdout.startswith('runs:1: ')
  said = dict.fromkeys(('TEMPLATE', 'USER', 'AGENT'), '')
  for line in done.stdout.split('\n'):
    if line.lstrip()[:1].isdigit():
      _, _, _, author, *_, text = line.split()
      said[author] += text
  assert said == {'TEMPLATE': 'User:·↵Agent:·', 'USER': 'Hi.', 'AGENT': 'Hey.↵'}

  done = command('inspect', *source, '--index=1')
  assert (done.returncode, done.stdout) == (1, '')
  assert done.stderr.startswith(
    f'error: {runs}, row 2, would be set aside as template_raises: '
  )
  assert done.stderr.count('\n') == 1

  done = command('inspect', *source, '--index=2')
  message = f'error: --index=2: {runs} has no row of this index\n'
  assert (done.returncode, done.stderr) == (1, message)


def test_html_and_color(workdir, tmp_path):
  source = f'--records={workdir / "records" / "dialogues"}'
  done = command('inspect', source, '--color=always')
  assert done.returncode == 0 and '\x1b[38;5;16;48;5;' in done.stdout
  path = tmp_path / 'page.html'
  done = command(
    'inspect', source, f'--html={path}', '--objective=weighted(0.5)'
  )
  assert done.stdout == f'the page is in {path}\n'
  text = path.read_text(encoding='utf-8')
  # A button for each objective that has a name, and for the one asked for.
  assert text.count('type="radio"') == 6
  assert 'checked><span>weighted(0.5)</span>' in text


def test_help_says_what_it_is_and_lists_its_flags():
  done = command('inspect', '--help')
  assert 'isft-inspect --records=DIR' in done.stdout
  flags = {line.split(':')[0].strip() for line in done.stdout.split('\n')}
  assert {'--records', '--tokenizer', '--config', '--workdir'} <= flags
  assert {'--index', '--objective', '--html', '--color'} <= flags


@pytest.mark.parametrize('ending', ['\n', '\n{"messages": []}\n'])
def test_a_line_of_100_megabytes_is_one_line_of_error(
  ending, workdir, tmp_path
):
  """It is read, but not rendered: that would take 200 bytes per character."""
  path = tmp_path / 'large.jsonl'
  turns = [
    {'role': 'user', 'content': 'THIS'},
    {'role': 'assistant', 'content': 'Yes.'},
  ]
  before, _, after = json.dumps({'messages': turns}).partition('THIS')
  with path.open('w') as file:
    file.write(before)
    for _ in range(100):
      file.write('words and ' * 100_000)
    file.write(after + ending)
  process = subprocess.Popen(
    [
      sys.executable,
      '-c',
      'from isft_jax.cli import inspect; inspect.run()',
      f'--input={path}',
      f'--tokenizer={workdir}/tokenizer',
      '--chat_template=plain',
    ],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  output = process.stdout.read()
  _, status, usage = os.wait4(process.pid, 0)
  process.returncode = os.waitstatus_to_exitcode(status)
  assert process.returncode == 1
  assert output.splitlines() == [
    f'error: {path}, row 1, would be set aside as too_long: 100,000,017 '
    'characters in messages and tools; the limit is 16,777,216'
  ]
  # Kilobytes; rendering would take 20 GB.
  assert usage.ru_maxrss < 3_000_000
