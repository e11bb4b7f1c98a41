"""The newest checkpoint of a run, as a model."""

from typing import Any, NamedTuple

import jax

from isft_jax import sharding
from isft_jax.config import MeshConfig, ModelConfig
from isft_jax.data.records.dataset import Records
from isft_jax.data.rendering import tokenizer
from isft_jax.data.rendering.tokenizer import FastTokenizer
from isft_jax.hf import pretrained
from isft_jax.inference.chat_model import ChatModel, template_of
from isft_jax.models import decoder
from isft_jax.train import checkpoint
from isft_jax.train.checkpoint import Checkpoints
from isft_jax.types import PyTree


class Saved(NamedTuple):
  """What a run has learned, and what it reads and writes.

  run: the run's config, as a dict.
  """

  model: pretrained.Model
  config: ModelConfig
  encoder: FastTokenizer
  run: dict[str, Any]


def load(workdir: str, dtype: str = '') -> Saved:
  """Loads the newest checkpoint of a run, whatever its mesh was.

  The parameters are parted over this host's devices, as many as divide them:
  none holds the whole model unless there is but one.

  dtype: of the parameters; '' keeps theirs.

  Raises ValueError if there is no checkpoint.
  """
  if not checkpoint.folder_of(workdir).is_dir():
    raise ValueError(f'{workdir}: no checkpoints there; name a workdir')
  with Checkpoints(workdir) as checkpoints:
    if checkpoints.latest() is None:
      raise ValueError(f'{workdir}: no finished checkpoint there')
    run = checkpoints.restore_run()['config']
    # Sources share a tokenizer and a template: the first speaks for all.
    run['records'] = run['records'] or run['sources'][0][0]
    config = ModelConfig(**run['model'])
    config.param_dtype = dtype or config.param_dtype
    config.attention = 'auto'  # the kernel of the run's devices may not be here
    graphdef, shapes = decoder.abstract(config)  # Orbax casts to these
    params, _ = checkpoints.restore_params(_placed(shapes))
  encoder = tokenizer.load(run['tokenizer'] or tokenizer.beside(run['records']))
  return Saved(pretrained.Model(graphdef, params), config, encoder, run)


def chat_model_from_run(workdir: str) -> ChatModel:
  """Loads the model of a run's newest checkpoint, to chat with.

  Its prompts are rendered as the run's records were. If the records are gone,
  the tokenizer's own template renders them.

  Raises:
    ValueError: there is no checkpoint, or the records were encoded piecewise.
  """
  model, _, encoder, run = load(workdir)
  try:
    rendering = Records(run['records']).metadata['rendering']
  except (OSError, ValueError, KeyError):
    rendering = {'template': template_of(encoder), 'values': {}}
  if rendering.get('piecewise'):
    raise ValueError(
      f'{workdir} was trained on turns whose headers were encoded apart from '
      'the words (config.piecewise), and prompts here are encoded whole; its '
      'own results.json has its probes'
    )
  template, values = rendering['template'], rendering.get('values', {})
  return ChatModel(model, encoder, template, values, {}, run['records'])


def _placed(shapes: PyTree) -> PyTree:
  """Returns shapes with shardings over as many devices as divide them."""
  devices = jax.local_devices()
  for number in range(len(devices), 0, -1):
    mesh = sharding.make_mesh(MeshConfig(1, number, 1), devices[:number])
    try:
      placed = sharding.shardings(shapes, decoder.PARTITION_RULES, mesh)
    except ValueError:
      continue
    return jax.tree.map(
      lambda leaf, where: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=where
      ),
      shapes,
      placed,
    )
  raise AssertionError('one device divides everything')
