"""Exports a checkpoint to a model folder for transformers and vLLM."""

import json
import pathlib

from isft_jax.hf import pretrained
from isft_jax.train import saved


def export(workdir: str, output: str, dtype: str = '') -> None:
  """Writes config, weights, tokenizer with chat template, generation config.

  Args:
    workdir: folder of a run. Its newest checkpoint is exported.
    output: folder to create; it must be empty or not exist.
    dtype: data type of the written weights; '' keeps that of the run.

  Raises:
    ValueError: the run has no checkpoint, or `output` is not empty.
  """
  # Never mix an export with files of another model.
  folder = pathlib.Path(output)
  if folder.exists() and any(folder.iterdir()):
    raise ValueError(f'{folder} is not empty; name another --output')
  model, config, tokenizer, _ = saved.load(workdir, dtype)
  pretrained.save(model, config, str(folder))
  # The ids that end a reply: without them, other tools generate forever.
  tokenizer.save_pretrained(folder)
  ids = {
    'bos_token_id': tokenizer.bos_token_id,
    'eos_token_id': tokenizer.eos_token_id,
    'pad_token_id': tokenizer.pad_token_id,
  }
  (folder / 'generation_config.json').write_text(
    json.dumps({name: id for name, id in ids.items() if id is not None}) + '\n'
  )
