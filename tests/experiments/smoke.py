"""The smoke experiment as a process: on one device, interrupted, or killed.

Its programs run for seconds and in several processes, so they are compiled
well, once, unlike those of other tests.
"""

import os
import signal

import jax

from isft_jax.train import checkpoint

FLAGS = (
  '--config=lying_agent_smoke',
  '--config.documents.number=100',
  '--config.model.layers=1',
)


def compile_well():
  os.environ['XLA_FLAGS'] = '--xla_backend_optimization_level=1'
  jax.config.update('jax_disable_most_optimizations', False)


def one_device():
  """Uses one device, and heeds Ctrl-C also in the background of a shell."""
  compile_well()
  jax.config.update('jax_num_cpu_devices', 1)
  signal.signal(signal.SIGINT, signal.default_int_handler)


def die_in_checkpoint():
  """Kills its process when half of its first checkpoint is written."""
  one_device()

  def die(folder):
    os.kill(os.getpid(), signal.SIGKILL)

  checkpoint._write_manifest = die
