"""Errors of a command: one line with the remedy, exit code 1, nothing done."""

import asyncio
import errno
import fnmatch
import functools
import resource
import signal
import threading
import time

import jax
import pytest
from absl import logging

from isft_jax.cli import main
from tests.commands import ROOT, command, error_line, in_process

SMOKE = 'configs/lying_agent_smoke.py'


BAD = {
  'no config': ([], 'name the settings, as in --config=configs/NAME.py'),
  'missing config file': (
    ['--config=configs/nope.py'],
    'no config file configs/nope.py; the package has '
    + ', '.join(sorted(p.stem for p in (ROOT / 'configs').glob('[!_]*.py'))),
  ),
  'a config file that is no Python': (
    ['--config=README.md'],
    'a config is a Python file with get_config()',
  ),
  'unknown flag': (
    [f'--config={SMOKE}', '--wrkdir=x'],
    'unknown flag --wrkdir; did you mean --workdir?',
  ),
  'unknown field': (
    [f'--config={SMOKE}', '--config.model.layer=2'],
    "config.model has no field 'layer'; did you mean --config.model.layers?",
  ),
  'a misspelled old name': (
    [f'--config={SMOKE}', '--config.finetune.row_lenght=2'],
    "config.finetune has no field 'row_lenght'; did you mean "
    '--config.finetune.seq_len?',
  ),
  'an old name of a field of another group': (
    [f'--config={SMOKE}', '--config.dialogues.rows=2'],
    "config.dialogues has no field 'batch_size'; did you mean "
    '--config.pretrain.batch_size or --config.finetune.batch_size?',
  ),
  'an old name without config': (
    [f'--config={SMOKE}', '--rows=2'],
    'unknown flag --rows; did you mean --config.pretrain.batch_size or '
    '--config.finetune.batch_size?',
  ),
  'wrong type': (
    [f'--config={SMOKE}', '--config.seed=abc'],
    "flag --config.seed=abc: invalid literal for int() with base 10: 'abc'",
  ),
  'a fraction for a count': (
    [f'--config={SMOKE}', '--config.pretrain.batch_size=1.5'],
    'flag --config.pretrain.batch_size=1.5',
  ),
  'a value out of range': (
    [f'--config={SMOKE}', '--config.dialogues.p_lie=1.5'],
    'config.dialogues.p_lie must be from 0 to 1 (got 1.5)',
  ),
  'unknown arm': (
    [f'--config={SMOKE}', "--config.arms=('observatoinal',)"],
    "unknown objective 'observatoinal'; use one of observational, ",
  ),
  'stray argument': (
    [f'--config={SMOKE}', 'seed=1'],
    "unexpected argument 'seed=1'; a flag is --NAME=VALUE",
  ),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_flags_are_one_clear_line(case, tmp_path):
  flags, message = BAD[case]
  workdir = tmp_path / 'run'
  assert message in error_line('reproduce', f'--workdir={workdir}', *flags)
  assert not workdir.exists()


def _show(config, workdir):
  stage = config.finetune if hasattr(config, 'finetune') else config
  print(stage.batch_size, stage.shuffle, config.model.mlp_width)
  print(getattr(config, 'mixture', ''))


def shown(*flags, config='--config=train_tiny'):
  """Returns what a command gets from flags: (exit code, stdout, stderr)."""
  done = in_process(main.run_config, _show, '', argv=[config, *flags])
  return done.returncode, done.stdout, done.stderr


def test_a_flag_may_have_the_old_name_of_a_field():
  lines = [
    'warning: --config.rows is the old name of --config.batch_size; version '
    '0.2 will not accept it',
    'warning: --config.model.hidden is the old name of '
    '--config.model.mlp_width; version 0.2 will not accept it',
    'warning: --config.sources is the old name of --config.mixture; version '
    '0.2 will not accept it',
  ]
  old = ['--config.rows=5', '-config.model.hidden', '9']
  mixture = "(('rows', 3, ''),)"
  code, text, warnings = shown(*old, f'--config.sources={mixture}')
  assert (code, text) == (0, f'5 True 9\n{mixture}\n')
  assert warnings.splitlines() == lines
  # A field of a group; the last value counts, and the warning comes once.
  smoke = ['--config.finetune.rows=2', '--config.finetune.rows=3']
  code, text, warnings = shown(*smoke, config='--config=lying_agent_smoke')
  assert (code, text) == (0, '3 True 64\n\n')
  assert warnings == (
    'warning: --config.finetune.rows is the old name of '
    '--config.finetune.batch_size; version 0.2 will not accept it\n'
  )


@pytest.mark.parametrize(
  'flags',
  [
    ('--config.rows=8', '--config.batch_size=8'),
    ('--config.batch_size=8', '--config.rows=8'),
    ('--config.batch_size', '8', '-config.rows', '8'),
  ],
)
def test_both_names_of_a_field_are_an_error(flags):
  assert shown(*flags) == (
    1,
    '',
    'error: --config.rows is the old name of --config.batch_size; give only '
    '--config.batch_size\n',
  )


def test_an_argument_of_a_config_is_refused_without_a_traceback():
  line = error_line('train', '--config=finetune:lora=0')
  assert line.startswith('error: flag --config=')
  assert line.endswith(
    "finetune.py:lora=0: its argument must be 'lora=RANK' with a rank from 1 "
    "to 9999, or nothing (got 'lora=0') (--help lists the flags)\n"
  )


def test_a_config_file_may_have_old_names(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text(
    'from isft_jax.config import ModelConfig, RunConfig\n'
    'def get_config():\n'
    '  config = RunConfig(rows=5, model=ModelConfig(hidden=9))\n'
    "  config.sources = (('DIR', 3, ''),)\n"
    '  return config\n'
  )
  code, text, warnings = shown(config=f'--config={path}')
  assert (code, text) == (0, "5 True 9\n(('DIR', 3, ''),)\n")
  for line, message in (
    (3, 'RunConfig: rows is the old name of batch_size; write batch_size'),
    (3, 'ModelConfig: hidden is the old name of mlp_width; write mlp_width'),
    (4, 'RunConfig: sources is the old name of mixture; write mixture'),
  ):
    warning = f'{path}:{line}: FutureWarning: {message}\n'
    assert warnings.count(warning) == 1, warnings


SMALL = ['--config=lying_agent_smoke', '--config.documents.number=60']


@pytest.mark.parametrize('place', ['/sys/isft', 'a_file/run'])
def test_a_place_that_cannot_be_written_is_one_clear_line(place, tmp_path):
  (tmp_path / 'a_file').write_text('kept')
  error = error_line('reproduce', *SMALL, f'--workdir={tmp_path / place}')
  assert 'name a place in a folder that you may write to' in error
  assert (tmp_path / 'a_file').read_text() == 'kept'


def _limit_files(size):
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, -1))
  # The limit would also hold what jax keeps of compiled programs.
  jax.config.update('jax_enable_compilation_cache', False)


def test_a_full_disk_is_one_clear_line_and_the_run_goes_on_later(
  data_folder, tmp_path
):
  """A limit on the size of a file stands for a disk that is full."""
  experiment = 'reproduce', *SMALL, f'--workdir={tmp_path}/experiment'
  run = (
    *('train', '--config=train_tiny', f'--workdir={tmp_path}/run'),
    *(f'--config.records={data_folder}/records', '--config.steps=1'),
    f'--config.tokenizer={data_folder}/tokenizer',
    *('--config.seq_len=256', '--config.model.layers=1'),
    *('--config.model.width=64', '--config.model.mlp_width=32'),
  )
  # The first fails at its tokenizer; the second at its checkpoint, with an
  # embedding of 128 kB.
  for kilobytes, flags in ((8, experiment), (100, run)):
    limit = functools.partial(_limit_files, kilobytes * 1024)
    error = error_line(*flags, before=limit)
    assert 'File too large' in error
    assert 'free some space, then run the same command to resume' in error
  assert (tmp_path / 'run/config.json').exists()
  assert not [*tmp_path.glob('run/checkpoints/step_1')]

  assert command(*run).returncode == 0
  assert (tmp_path / 'run/checkpoints/step_1').exists()


def _leave_a_thread():
  def start_threads():
    try:
      while True:
        asyncio.run(asyncio.to_thread(time.sleep, 0.01))
    except RuntimeError:
      logging.exception('a checkpoint is not complete')

  threading.Thread(target=start_threads).start()
  raise OSError(errno.ENOSPC, 'No space left on device')


def test_nothing_follows_the_line_of_a_full_disk():
  """Orbax's threads may still run then, and cannot start others."""
  done = in_process(main.run, _leave_a_thread, '', ())
  assert (done.returncode, done.stdout) == (1, '')
  assert done.stderr.startswith('error: [Errno 28] No space left on device')
  assert done.stderr.count('\n') == 1, done.stderr


def _interrupt(*config_and_workdir):
  signal.raise_signal(signal.SIGINT)


def _interrupted(run, *arguments):
  signal.signal(signal.SIGINT, signal.default_int_handler)
  run(_interrupt, '', *arguments)


@pytest.mark.parametrize(
  ('run', 'said'),
  [
    ((main.run, ()), 'interrupted'),
    (
      (main.run_config,),
      'interrupted; run the same command again to resume from '
      'runs/lying_agent_smoke-seed0',
    ),
  ],
)
def test_ctrl_c_is_one_line_that_says_how_to_go_on(run, said):
  done = in_process(_interrupted, *run, argv=[f'--config={SMOKE}'])
  assert (done.returncode, done.stderr) == (130, f'\n{said}\n')


def _bug():
  raise ValueError('a bug')


class _Lost:
  def __del__(self):
    _bug()


def _buggy(config, workdir):
  try:
    _bug()
  except ValueError:
    logging.exception('logged')
  _Lost()
  thread = threading.Thread(target=_bug)
  thread.start()
  thread.join()


def test_a_thread_that_fails_otherwise_keeps_its_traceback():
  """In a log, in a destructor and by itself: nothing of a bug is lost."""
  shown = in_process(
    main.run_config, _buggy, '', argv=['--config=lying_agent_smoke']
  )
  assert shown.stderr.splitlines().count('ValueError: a bug') == 3


TOO_LARGE = {
  # 100 TB of embedding, and twice that of moments
  '--config.model.vocab_size=1_000_000_000_000': (
    'parameters and optimizer state take 384,000.0 GB per device, which has ',
    'make config.model smaller',
  ),
  '--config.pretrain.batch_size=1_000_000_000_000': (
    'Unable to allocate 1.14 PiB for an array with shape (1000000000000, 320)',
    'try fewer rows per step, shorter rows',
  ),
}


@pytest.mark.parametrize('flag', TOO_LARGE)
def test_too_little_memory_is_one_clear_line_before_any_is_used(flag, tmp_path):
  problem, remedy = TOO_LARGE[flag]
  error = error_line(
    'reproduce', *SMALL, flag, f'--workdir={tmp_path}', timeout=300
  )
  assert error.startswith(f'error: out of memory: {problem}')
  assert remedy in error


def test_too_little_memory_is_one_clear_line_in_the_words_of_xla():
  """What else goes wrong keeps its traceback."""
  error = RuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.')
  line = main._as_line(error)
  assert line.startswith('out of memory: RESOURCE_EXHAUSTED: Out of memory')
  assert 'try fewer rows per step' in line
  assert main._as_line(RuntimeError('INTERNAL: a bug')) is None


@pytest.mark.parametrize(
  ('devices', 'expected'),
  [
    (
      [],
      {
        'TPU_SKIP_MDS_QUERY': '1',
        'TPU_ACCELERATOR_TYPE': 'v5litepod-1',
        'TPU_WORKER_HOSTNAMES': 'localhost',
      },
    ),
    (['/dev/accel0'], {}),
    (['/dev/vfio/0'], {}),
  ],
)
def test_libtpu_asks_of_a_tpu_only_where_there_is_one(devices, expected):
  environ = {}
  main._spare_tpus(environ, lambda pattern: fnmatch.filter(devices, pattern))
  assert environ == expected


def test_missing_records_are_one_clear_line(tmp_path):
  error = error_line(
    'train',
    '--config=train_tiny',
    f'--config.records={tmp_path}/none',
    f'--config.tokenizer={tmp_path}',
    f'--workdir={tmp_path}/run',
    cwd=tmp_path,
  )
  assert error == (
    f'error: {tmp_path}/none: no records there; prepare them first\n'
  )


def test_a_command_by_itself_says_where_to_learn_more():
  assert command('train').stderr == (
    'error: name the settings, as in --config=configs/NAME.py (--help shows '
    'how)\n'
  )


@pytest.mark.parametrize('name', ['reproduce', 'train'])
def test_help_shows_the_command_and_its_flags(name):
  shown = command(name, '--help')
  assert f'isft-{name} --config=configs/' in shown.stdout
  for flag in ('--config:', '--workdir:'):
    assert flag in shown.stdout


@pytest.mark.parametrize(
  ('flags', 'added'),
  [
    (['--config.records=D'], True),
    (['--workdir=W', '-config.steps=3'], True),
    (['--noconfig.shuffle'], True),
    # A config is named, or nothing belongs to one.
    (['--config=train_tiny', '--config.records=D'], False),
    (['--config', 'train_tiny', '--config.records=D'], False),
    (['--workdir=W'], False),
    (['--config.help'], False),
    ([], False),
  ],
)
def test_fields_without_a_config_belong_to_the_default_one(flags, added):
  found = main.add_default_config(['isft-train', *flags], 'finetune')
  more = ['--config=finetune'] if added else []
  assert found == ['isft-train', *more, *flags]


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    (
      'a.py',
      'import ml_collections\ndef get_config():\n'
      "  return ml_collections.ConfigDict({'seed': 1})\n",
      'returns a ConfigDict, and isft-train needs a RunConfig',
    ),
    ('a.py', 'def get_config():\n  pass\n', 'returns None, and isft-train'),
    ('a.yaml', 'seed: 1\n', 'a config is a Python file with get_config()'),
  ],
)
def test_a_config_of_another_kind_is_one_clear_line(
  name, content, message, tmp_path
):
  (tmp_path / name).write_text(content)
  done = command('train', f'--config={tmp_path / name}')
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  *_, last = done.stderr.splitlines()
  assert last.startswith('error: ') and message in last


@pytest.mark.parametrize(
  ('name', 'flags', 'message'),
  [
    (
      'train',
      ['--config=lying_agent_tiny'],
      'returns a LyingAgentConfig, and isft-train needs a RunConfig',
    ),
    (
      'reproduce',
      ['--config=train_tiny'],
      'returns a RunConfig, and isft-reproduce needs a LyingAgentConfig',
    ),
    (
      'train',
      ['--config.model.dtype=bf16', '--config.records=D'],
      "config.model.dtype must be one of 'float32', 'bfloat16', 'float16'",
    ),
  ],
)
def test_settings_of_another_kind_are_one_clear_line(name, flags, message):
  assert message in error_line(name, *flags)
