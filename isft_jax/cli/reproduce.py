"""Runs a whole experiment: data, base model, arms, probes, report.

isft-reproduce --config=configs/lying_agent_tiny.py
isft-reproduce --config=configs/lying_agent_tiny.py --config.seed=1
"""

from absl import app, flags, logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'A file whose get_config() returns the experiment.'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Where everything goes; default runs/<name>-seed<seed>.'
)


def main(argv):
  del argv
  # Imported late, so that --help is quick.
  from isft_jax.experiments import lying_agent

  logging.set_verbosity(logging.WARNING)

  config = _CONFIG.value
  workdir = _WORKDIR.value or f'runs/{config.name}-seed{config.seed}'
  lying_agent.reproduce(config, workdir)


def run():
  flags.mark_flag_as_required('config')
  app.run(main)
