"""From a checkpoint to a folder that transformers and vLLM load."""

import json
import pathlib

import jax

from isft_jax import sharding
from isft_jax.config import MeshConfig, ModelConfig
from isft_jax.data import tokenizer
from isft_jax.models import decoder, hf
from isft_jax.train.checkpoint import Checkpoints


def export(workdir: str, output: str, dtype: str = '') -> None:
  """Writes config, weights, tokenizer with chat template, generation config.

  workdir: of a run; its newest checkpoint is taken.
  dtype: of the weights; '' keeps theirs.

  Raises ValueError if there is no checkpoint, or something in output already.
  """
  folder = pathlib.Path(output)
  if folder.exists() and any(folder.iterdir()):
    raise ValueError(f'{folder} is not empty; name another --output')
  if not (pathlib.Path(workdir) / 'checkpoints').is_dir():
    raise ValueError(f'{workdir}: no checkpoints there; name a --workdir')
  with Checkpoints(workdir) as checkpoints:
    if checkpoints.latest() is None:
      raise ValueError(f'{workdir}: no finished checkpoint there')
    run = checkpoints.restore_run()['config']
    model = ModelConfig(**run['model'])
    if dtype:
      model.param_dtype = dtype
    graphdef, shapes = decoder.abstract(model)  # Orbax casts to these
    params, _ = checkpoints.restore_params(_placed(shapes))
  encoder = tokenizer.load(run['tokenizer'] or tokenizer.beside(run['records']))
  hf.save(hf.Model(graphdef, params), model, str(folder))
  encoder.save_pretrained(folder)
  ids = {
    'bos_token_id': encoder.bos_token_id,
    'eos_token_id': encoder.eos_token_id,
    'pad_token_id': encoder.pad_token_id,
  }
  (folder / 'generation_config.json').write_text(
    json.dumps({name: id for name, id in ids.items() if id is not None}) + '\n'
  )


def _placed(shapes):
  """Returns shapes with shardings that part them over this host's devices.

  Over as many as divide the parameters: whatever the run's mesh was, no device
  holds the whole model unless there is but one.
  """
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
