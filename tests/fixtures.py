"""What tests share: how to compile quickly, and which libraries they need."""

import importlib
import os
from importlib import metadata

import jax
import pytest

# Distribution -> the extra that installs it.
_EXTRAS = {
  'accelerate': 'parity',
  'apache-beam': 'beam',
  'libtpu': 'tpu-compile',
  'peft': 'parity',
  'renderers': 'renderers',
  'torch': 'parity',
  'trl': 'diff',
}


# Compiler options for programs that run once, on a few numbers.
FAST = {'xla_backend_optimization_level': 0}


def fast_jit(function, **arguments):
  """Like jax.jit, for a program that is compiled to run once."""
  return jax.jit(function, compiler_options=FAST, **arguments)


def reason_to_skip(*distributions: str) -> str:
  """Returns which distributions are missing and how to install them, or ''.

  A distribution that the environment variable ISFT_REQUIRE lists, separated by
  commas, counts as present: its tests then fail where it is missing. `.ci/run`
  sets the variable, so that no test is skipped there unnoticed.
  """
  required = os.environ.get('ISFT_REQUIRE', '').split(',')
  missing = [
    name
    for name in distributions
    if name not in required and not any(metadata.distributions(name=name))
  ]
  if not missing:
    return ''
  extras = sorted({_EXTRAS.get(name, 'test') for name in missing})
  return (
    f'{", ".join(missing)} not installed: '
    f"pip install -e '.[{','.join(extras)}]'"
  )


def needs(*distributions: str) -> pytest.MarkDecorator:
  """Returns a mark that skips tests when a distribution is missing."""
  reason = reason_to_skip(*distributions)
  return pytest.mark.skipif(bool(reason), reason=reason)


def import_or_skip(module: str, distribution: str = ''):
  """Imports a module, or skips what asks for it.

  distribution: which it needs; by default the one of its own name.
  """
  reason = reason_to_skip(distribution or module)
  if reason:
    pytest.skip(reason, allow_module_level=True)
  return importlib.import_module(module)
