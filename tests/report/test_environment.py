"""What a report says of the model, the devices and the versions."""

import json
import platform

import jax

from isft_jax.config import ModelConfig
from isft_jax.experiments import environment


def test_the_environment_of_these_tests():
  model = ModelConfig(
    vocab_size=640, width=32, layers=2, head_size=8, mlp_width=64
  )
  found = environment.describe(model)
  attention = 32 * (4 + 2 + 2) * 8 + (4 + 2 + 2) * 8 + 4 * 8 * 32
  block = attention + 3 * 32 * 64 + 2 * 32
  assert found['parameters'] == 640 * 32 + 2 * block + 32
  (device,) = found['devices']
  assert device == f'{jax.device_count()} x {jax.devices()[0].device_kind}'
  assert found['platform'] == jax.default_backend()
  assert found['cpu_cores'] >= 1
  assert found['versions']['python'] == platform.python_version()
  assert found['versions']['jax'] == jax.__version__


def test_two_runs_on_a_machine_describe_it_alike():
  """Results must not tell an interrupted run from one left alone."""
  first, second = (environment.describe(ModelConfig()) for _ in range(2))
  assert json.dumps(first) == json.dumps(second)
