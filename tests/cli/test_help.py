"""--help, --version, isft COMMAND, and suggestions for misspelled flags."""

import dataclasses
import functools
import json
import pathlib
import re
import runpy
import shlex
import subprocess
import sys

import pytest
from absl import flags
from ml_collections import config_flags

import isft_jax
from isft_jax.cli import commands, config_help, flag_help

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = sorted((ROOT / 'configs').glob('[!_]*.py'))


@functools.cache
def isft(*arguments):
  """Runs python -m isft_jax as a person would."""
  return subprocess.run(
    [sys.executable, '-m', 'isft_jax', *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )


def config_of(path):
  return runpy.run_path(str(path))['get_config']()


# ------------------------------------------------------------- the fields


@dataclasses.dataclass
class Engine:
  """Turns fuel into motion.

  The rest of a docstring is not shown.
  """

  # Number of cylinders, and so
  # of pistons. 0: electric
  cylinders: int = 4
  fuels: tuple[str, ...] = ('petrol',)  # that the tank may hold

  power: float = 1e5  # in watts
  silent: bool = False


@dataclasses.dataclass
class Vehicle:
  name: str = 'a "car"'  # shown to buyers


@dataclasses.dataclass
class Car(Vehicle):
  """A car with two engines."""

  name: str = "a 'car'"
  # Drives the front axle.
  front: Engine = dataclasses.field(default_factory=Engine)
  rear: Engine = dataclasses.field(default_factory=lambda: Engine(2))


def test_comments_stand_above_a_field_or_behind_it_and_are_inherited():
  assert config_help.field_comments(Engine) == {
    'cylinders': 'Number of cylinders, and so of pistons. 0: electric',
    'fuels': 'that the tank may hold',
    'power': 'in watts',
  }
  assert config_help.field_comments(Car) == {
    'name': 'shown to buyers',
    'front': 'Drives the front axle.',
  }


def test_without_source_no_field_has_a_comment():
  made = dataclasses.make_dataclass('Made', [('size', int, 3)])
  assert config_help.field_comments(made) == {}
  assert '  --config.size=3 (int)' in config_help.describe(made())


def test_fields_are_listed_and_a_class_is_explained_once():
  assert (
    config_help.describe(Car())
    == """\
config: A car with two engines.
  --config.name='a '"'"'car'"'"'' (str)
      Shown to buyers.

config.front: Drives the front axle. Turns fuel into motion.
  --config.front.cylinders=4 (int)
      Number of cylinders, and so of pistons. 0: electric.
  --config.front.fuels="('petrol',)" (tuple[str, ...])
      That the tank may hold.
  --config.front.power=100000.0 (float)
      In watts.
  --config.front.silent=False (bool)

config.rear: Turns fuel into motion. Its fields are explained under
config.front.
  --config.rear.cylinders=2 (int)
  --config.rear.fuels="('petrol',)" (tuple[str, ...])
  --config.rear.power=100000.0 (float)
  --config.rear.silent=False (bool)"""
  )


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_the_flags_that_help_shows_give_the_same_config(path):
  """A line of help can be pasted: a shell and absl read the value back."""
  config = config_of(path)
  text = config_help.describe(config).replace('\n' + 10 * ' ', ' ')
  shown = re.findall(
    r'^  (--config\..+) \(\w+(?:\[.+\])?\)$', text, re.MULTILINE
  )
  words = shlex.split('\n'.join(shown))
  argv = ['program', f'--config={path}', *words]
  values = flags.FlagValues()
  holder = config_flags.DEFINE_config_file(
    'config', flag_values=values, sys_argv=argv
  )
  values(argv)
  assert holder.value == config
  sections = list(config_help.sections(config))
  assert len(words) == sum(len(part.fields) for part in sections) > 20


def test_a_shell_gives_back_every_value():
  values = ('', 'a b', '$HOME', "it's", '`id`', ('$HOME',), ('a', "it's"), 1e-5)
  words = ' '.join(config_help._quoted(value) for value in values)
  printed = subprocess.run(
    ['bash', '-c', f"printf '%s\\n' {words}"], capture_output=True, text=True
  )
  assert printed.stdout.splitlines() == [str(value) for value in values]


def test_a_list_of_fields_is_80_columns_wide():
  for path in CONFIGS:
    lines = config_help.describe(config_of(path)).splitlines()
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_every_field_has_a_comment_that_stands_on_its_own(path):
  config = config_of(path)
  for section in config_help.sections(config):
    assert section.comment[:1].isupper() and section.comment.endswith('.')
    for field in section.fields:
      assert re.match("[A-Z'0-9].{9,}\\.$", field.comment), field
      assert not re.match('(Of|At|In|From|Or|For|By|See) ', field.comment), (
        field
      )
      assert re.match(r'(bool|int|float|str|tuple\[.+\])$', field.type), field
  shown = config_help.describe(config)
  for flag in re.findall(r'^  (--config\.\S+)=', shown, re.MULTILINE):
    assert shown.count(f'  {flag}=') == 1


# --------------------------------------------------------------- suggestions


@pytest.mark.parametrize(
  ('name', 'flags'),
  [
    (
      'learning_rate',
      ['pretrain.optim.learning_rate', 'finetune.optim.learning_rate'],
    ),
    ('finetune.optim.learning_rate', ['finetune.optim.learning_rate']),
    ('optim.b1', ['pretrain.optim.b1', 'finetune.optim.b1']),
    ('reply_token', ['reply_tokens']),
    ('rope_thta', ['model.rope_theta']),
    ('xyz', []),
    ('rate', []),  # the end of a word is not a name
  ],
)
def test_a_name_suggests_the_fields_that_it_may_stand_for(name, flags):
  config = config_of(ROOT / 'configs/lying_agent_tiny.py')
  assert config_help.suggest(config, name) == [f'--config.{f}' for f in flags]


@pytest.mark.parametrize(
  ('path', 'line'),
  [
    (
      'config.front.fuel',
      "config.front has no field 'fuel'; did you mean --config.front.fuels?",
    ),
    (
      'config.frnt.power',
      "config has no field 'frnt'; did you mean --config.front.power?",
    ),
    (
      'config.power',
      "config has no field 'power'; did you mean --config.front.power or "
      '--config.rear.power?',
    ),
    ('config.wings', "config has no field 'wings'; it has name, front, rear"),
    (
      'config.name.x',
      'config.name is one value: set it with --config.name=VALUE',
    ),
    ('config.front.power', None),
    ('config.front', None),
  ],
)
def test_a_field_that_does_not_exist_is_explained(path, line):
  assert config_help.explain_unknown(Car(), path) == line


@pytest.mark.parametrize(
  ('arguments', 'line'),
  [
    (
      'train --config=qwen2_5_0_5b --records=DIR',
      'unknown flag --records; did you mean --config.records?',
    ),
    (  # before a config is named, too
      'train --records=DIR',
      'unknown flag --records; did you mean --config.records?',
    ),
    (
      'reproduce --config=lying_agent_tiny --learning_rate=1',
      'unknown flag --learning_rate; did you mean '
      '--config.pretrain.optim.learning_rate or '
      '--config.finetune.optim.learning_rate?',
    ),
    (
      'train --config=train_tiny --config.learning_rate=1',
      "config has no field 'learning_rate'; did you mean "
      '--config.optim.learning_rate?',
    ),
    (
      'train --config=train_tiny --wrkdir=DIR',
      'unknown flag --wrkdir; did you mean --workdir?',
    ),
    ('export --heldout=DIR', 'unknown flag --heldout; --help lists the flags'),
    (
      'train --config=train_tiny --config.records.x=1',
      'config.records is one value: set it with --config.records=VALUE',
    ),
    ('trian', "unknown command 'trian'; did you mean train?"),
    (
      'fly',
      "unknown command 'fly'; use inspect, diff, prepare, train, report, "
      'generate, probe, export, compile, reproduce, theory',
    ),
  ],
)
def test_a_misspelled_flag_points_to_the_one_that_was_meant(arguments, line):
  failed = isft(*arguments.split())
  assert (failed.returncode, failed.stdout) == (1, '')
  assert failed.stderr == f'error: {line}\n'


# ---------------------------------------------------------------- the flags


def flag(define, *arguments, **kwargs):
  """Returns the flag that absl defines, apart from those of commands."""
  values = flags.FlagValues()
  define('size', *arguments, flag_values=values, **kwargs)
  return values['size']


@pytest.mark.parametrize(
  ('made', 'text'),
  [
    (
      flag(flags.DEFINE_integer, 16, 'Rows per batch.'),
      'Rows per batch (default 16).',
    ),
    (flag(flags.DEFINE_float, 0.5, 'A share.', 0), 'A share (default 0.5).'),
    (flag(flags.DEFINE_boolean, False, 'A page.'), 'A page (default false).'),
    (flag(flags.DEFINE_list, ['a', 'b'], 'Parts.'), 'Parts (default a,b).'),
    (flag(flags.DEFINE_string, '', 'A file.'), 'A file.'),
    (
      flag(flags.DEFINE_list, [], 'Parts (default all).'),
      'Parts (default all).',
    ),
    (flag(flags.DEFINE_string, None, 'A file.'), 'A file.'),
    (
      flag(flags.DEFINE_enum, 'a', ['a', 'b', 'c'], 'A letter.'),
      '<a|b|c>: A letter (default a).',
    ),
    (
      flag(flags.DEFINE_enum, '', ['', 'a', 'b'], 'A letter (default none).'),
      '<a|b>: A letter (default none).',
    ),
  ],
)
def test_a_flag_is_a_sentence_with_its_choices_and_default(made, text):
  assert flag_help.sentence(made) == text


def flags_of(name):
  """Returns the lines of the flags of a command: name -> text."""
  _, _, rest = isft(name, '--help').stdout.partition('\nFlags:\n')
  block = rest.partition('\n\n')[0].replace('\n    ', ' ')
  return dict(line.strip().split(': ', 1) for line in block.splitlines())


@pytest.mark.parametrize('name', commands.NAMES)
def test_every_line_of_help_stands_on_its_own(name):
  shown = isft(name, '--help')
  assert (shown.returncode, shown.stderr) == (0, '')
  assert max(map(len, shown.stdout.splitlines())) <= 80
  assert f'\n  isft-{name} ' in shown.stdout
  listed = flags_of(name)
  names = [flag.replace('[no]', '') for flag in listed]
  assert len(names) > 1 and names == sorted(names)
  for flag, text in listed.items():
    assert re.fullmatch(r'--(\[no\])?[a-z_]+', flag)
    # The choices of a flag come first.
    text = re.sub(r'^<\S+>: ', '', text)
    assert re.fullmatch(r"[A-Z].{8,}[\w)']\.", text), text
    assert not re.match('(Of|The|A|An|Which|What|Whose|By) ', text), text
    is_number = re.match('(Number|Maximum|Minimum|Index|Seconds) ', text)
    if '[no]' in flag or is_number:
      assert re.search('[(;] ?default ', text), text


DESCRIBE = """
import json, sys
from absl import flags
from isft_jax.cli import {name}, main

def parse(argv, doc, flag_holders, config_types, takes_arguments):
  ours = [flags.FLAGS[holder.name] for holder in flag_holders]
  defaults = {{
    flag.name: flag.default_as_str.strip("'")
    for flag in ours
    if flag.default not in (None, '', [])
  }}
  slow = ('jax', 'numpy', 'flax', 'tensorflow', 'transformers')
  print(json.dumps([defaults, [name for name in slow if name in sys.modules]]))
  sys.exit()

main.parse = parse
{name}.run()
"""


@pytest.mark.parametrize('name', commands.NAMES)
def test_help_has_every_default_and_waits_for_no_library(name):
  """The defaults that absl shows, which finds them by itself."""
  done = subprocess.run(
    [sys.executable, '-c', DESCRIBE.format(name=name)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  defaults, slow = json.loads(done.stdout)
  assert slow == []
  assert defaults or name in ('export', 'reproduce')
  listed = {
    flag.removeprefix('--').replace('[no]', ''): text
    for flag, text in flags_of(name).items()
  }
  for flag_name, default in defaults.items():
    ending = f'default {default.removesuffix(".0")}).'
    assert listed[flag_name].endswith(ending), flag_name


# ------------------------------------------------------------------- the pages


@pytest.mark.parametrize('word', ['-h', '--help', '--helpshort'])
def test_help_has_three_spellings(word):
  shown = isft('export', word)
  assert shown.stdout == isft('export', '--help').stdout
  assert (shown.returncode, shown.stderr) == (0, '')


def test_help_lists_the_packaged_configs_that_a_command_takes():
  training = {'qwen2_5_0_5b', 'qwen2_5_7b', 'llama3_70b', 'train_tiny'}
  experiments = {'lying_agent_tiny', 'evidence_tiny', 'flywheel_smollm2'}
  deployments = {'deployment_tiny', 'deployment_smollm2'}
  for name, some, others in (
    ('train', training, experiments),
    ('reproduce', experiments | deployments, training),
    ('compile', training | experiments, deployments),
  ):
    block = isft(name, '--help').stdout.partition('\nPackaged configs')[2]
    listed = set(re.findall(r'^  (\w+)  ', block, re.MULTILINE))
    assert some <= listed and not others & listed


def test_help_with_a_config_lists_its_fields():
  by_help = isft('train', '--config', 'qwen2_5_0_5b', '-h').stdout
  flags_only, mark, fields = by_help.partition('Fields of ')
  assert flags_only.startswith('Trains a model') and '\nFlags:\n' in flags_only
  assert 'Packaged configs' not in flags_only
  assert isft('train', '--config=qwen2_5_0_5b', '--config.help').stdout == (
    mark + fields
  )
  lines = fields.splitlines()
  assert lines[0] == 'the config qwen2_5_0_5b (--config.FIELD=VALUE sets one):'
  assert '  --config.optim.learning_rate=1e-05 (float)' in lines
  assert '  --config.model.width=896 (int)' in lines
  assert '  --config.model.rope_scaling="()" (tuple[float, ...])' in lines


def test_the_argument_of_a_config_shows_in_its_fields():
  shown = isft('train', '--config=qwen2_5_0_5b:batch=16', '--config.help')
  assert '\n  --config.batch_size=16 (int)\n' in shown.stdout


def test_the_fields_of_the_usual_config_are_listed_without_one():
  assert isft('train', '--config.help').stdout.startswith(
    'Fields of RunConfig ('
  )
  assert isft('reproduce', '--config.help').stdout.startswith(
    'Fields of LyingAgentConfig ('
  )


def test_a_config_with_a_space_is_read_and_overridden():
  """The run starts, and refuses only what an override asks for."""
  failed = isft(
    *('train', '--config', 'train_tiny'),
    *('--config.records=DIR', '--config.batch_size', '0'),
  )
  assert failed.returncode == 1
  assert failed.stderr.startswith('error: config.batch_size')


# ------------------------------------------------------------------- isft


def test_isft_lists_every_command_with_one_line():
  shown = isft()
  assert (shown.returncode, shown.stderr) == (0, '')
  for word in ('-h', '--help', 'help'):
    assert isft(word).stdout == shown.stdout
  lines = shown.stdout.splitlines()
  assert max(map(len, lines)) <= 80
  assert lines[:3] == [
    isft_jax.__doc__.splitlines()[0],
    '',
    '  isft COMMAND [FLAGS]',
  ]
  assert [line.split()[0] for line in lines if re.match(r'  \w+  ', line)] == [
    *commands.NAMES
  ]
  assert '  train       Trains a model on records' in shown.stdout


def test_isft_knows_every_command():
  modules = {
    path.stem
    for path in (ROOT / 'isft_jax/cli').glob('*.py')
    if '\ndef run() -> None:\n' in path.read_text()
  }
  assert sorted(commands.NAMES) == sorted(modules)


@pytest.mark.parametrize('arguments', [(), ('train',), ('export',)])
def test_every_command_has_a_version(arguments):
  shown = isft(*arguments, '--version')
  assert (shown.returncode, shown.stderr) == (0, '')
  python = re.escape('.'.join(map(str, sys.version_info[:3])))
  ours = re.escape(isft_jax.__version__)
  assert re.fullmatch(
    rf'isft_jax {ours}, jax 0\.[\d.]+, Python {python}\n', shown.stdout
  )


WITHOUT_JAX = """
import atexit, sys
from isft_jax.cli import commands

def tell():
  print('jax' in sys.modules, 'numpy' in sys.modules)

atexit.register(tell)
sys.argv = ['isft', *{arguments}]
commands.main()
"""


@pytest.mark.parametrize(
  'arguments',
  [
    ['--help'],
    ['--version'],
    ['train', '--version'],
    ['train', '--config=qwen2_5_0_5b', '--help'],
    ['reproduce', '--help'],
  ],
)
def test_what_is_shown_without_a_run_waits_for_no_library(arguments):
  script = WITHOUT_JAX.format(arguments=arguments)
  done = subprocess.run(
    [sys.executable, '-c', script], cwd=ROOT, capture_output=True, text=True
  )
  assert done.stdout.splitlines()[-1] == 'False False', done.stderr
