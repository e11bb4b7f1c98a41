"""From a checkpoint to a folder that transformers and vLLM load."""

import json
import pathlib

from isft_jax.hf import pretrained
from isft_jax.train import saved


def export(workdir: str, output: str, dtype: str = '') -> None:
  """Writes config, weights, tokenizer with chat template, generation config.

  workdir: of a run; its newest checkpoint is taken.
  dtype: of the weights; '' keeps theirs.

  Raises ValueError if there is no checkpoint, or something in output already.
  """
  folder = pathlib.Path(output)
  if folder.exists() and any(folder.iterdir()):
    raise ValueError(f'{folder} is not empty; name another --output')
  model, config, encoder, _ = saved.load(workdir, dtype)
  pretrained.save(model, config, str(folder))
  encoder.save_pretrained(folder)
  ids = {
    'bos_token_id': encoder.bos_token_id,
    'eos_token_id': encoder.eos_token_id,
    'pad_token_id': encoder.pad_token_id,
  }
  (folder / 'generation_config.json').write_text(
    json.dumps({name: id for name, id in ids.items() if id is not None}) + '\n'
  )
