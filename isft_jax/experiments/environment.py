"""Hardware, software versions and base model of an experiment.

Two runs on one machine have equal descriptions: no times, names or paths.
"""

import collections
import importlib.metadata
import os
import pathlib
import platform
from typing import Any

import jax

from isft_jax.config import ModelConfig
from isft_jax.experiments.config import DeploymentConfig, LyingAgentConfig
from isft_jax.models import decoder

# Packages that can change the results.
_PACKAGES = ('isft_jax', 'jax', 'flax', 'optax', 'orbax-checkpoint', 'numpy')


def describe(model: ModelConfig) -> dict[str, Any]:
  """Returns the number of parameters, the devices, the machine and versions."""
  kinds = collections.Counter(device.device_kind for device in jax.devices())
  return {
    'parameters': _parameters(model),
    'devices': [f'{number} x {kind}' for kind, number in kinds.items()],
    'platform': jax.default_backend(),
    'machine': f'{platform.system()} {platform.machine()}',
    'cpu_cores': os.cpu_count(),
    'versions': {
      'python': platform.python_version(),
      **{name: _version(name) for name in _PACKAGES},
    },
  }


def describe_base(
  config: LyingAgentConfig | DeploymentConfig,
) -> dict[str, Any]:
  """Returns the kind of the base model, its name and number of parameters."""
  given = config.model.init_from
  return {
    'kind': 'given' if given else 'pretrained',
    'name': pathlib.PurePath(given).name if given else config.name,
    'parameters': _parameters(config.model),
  }


def _parameters(model: ModelConfig) -> int:
  _, params = decoder.abstract(model)  # shapes only: no memory is allocated
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def _version(package: str) -> str:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return 'not installed'  # isft_jax, imported from a checkout
