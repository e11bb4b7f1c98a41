"""What every command shares: its flags, and errors as one clear line."""

import sys
from collections.abc import Callable

from absl import app, flags, logging
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file(
  'config',
  None,
  'A file whose get_config() returns the settings. Any of them can be set, '
  'as in --config.seed=1 or --config.mesh.fsdp=8.',
)
WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Where results go; by default runs/<name>-seed<seed>.'
)


def run(command: Callable, doc: str) -> None:
  """Runs command(config, workdir) as a program; a failure exits with 1."""

  def main(argv):
    if len(argv) > 1:
      raise app.UsageError(f'unexpected argument {argv[1]!r}')
    logging.set_verbosity(logging.WARNING)
    config = CONFIG.value
    if config is None:
      sys.exit('error: name the settings, as in --config=configs/NAME.py')
    workdir = WORKDIR.value or f'runs/{config.name}-seed{config.seed}'
    try:
      command(config, workdir)
    except (ValueError, OSError, FloatingPointError) as error:
      sys.exit(f'error: {error}')
    except KeyboardInterrupt:
      sys.exit('interrupted; the same command goes on from the last checkpoint')

  sys.modules['__main__'].__doc__ = doc  # what absl prints for --help
  for name in ('config', 'workdir'):
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])
  app.run(main)
