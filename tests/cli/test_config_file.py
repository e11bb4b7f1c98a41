"""A config as a file: the file makes it again, without its defaults."""

import runpy

from isft_jax.cli import config_file
from isft_jax.config import MeshConfig, ModelConfig, OptimConfig, RunConfig
from tests.test_configs import CONFIGS, get_config

EXPECTED = '''"""What it is."""

from isft_jax.config import MeshConfig, ModelConfig, RunConfig


def get_config() -> RunConfig:
  """Returns the settings."""
  return RunConfig(
    name='mine',
    mixture=(('DIR', 3, 'interventional'),),
    model=ModelConfig(
      rope_scaling=(8.0,),
      remat='full',
    ),
    mesh=MeshConfig(
      fsdp=-1,
    ),
  )
'''


def test_a_file_has_the_fields_that_are_not_defaults():
  config = RunConfig(
    name='mine',
    mixture=(('DIR', 3, 'interventional'),),
    model=ModelConfig(rope_scaling=(8.0,), remat='full'),
    mesh=MeshConfig(fsdp=-1),
    optim=OptimConfig(),
  )
  assert config_file.source(config, 'What it is.') == EXPECTED


def test_every_packaged_config_can_be_written_and_read(tmp_path):
  for name in CONFIGS:
    config = get_config(name)
    path = tmp_path / f'{name}.py'
    path.write_text(config_file.source(config, f'{name}.'))
    assert runpy.run_path(str(path))['get_config']() == config, name
