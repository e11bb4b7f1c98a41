"""Exports a checkpoint to a model folder, or its adapters to one for peft."""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging

from isft_jax import files, places, sharding
from isft_jax.config import ModelConfig
from isft_jax.data.records.dataset import Records
from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.data.rendering.tokenizer import FastTokenizer
from isft_jax.hf import adapter_folder, config_json, pretrained, tensor_files
from isft_jax.train import checkpoint, saved
from isft_jax.train.checkpoint import Wanted
from isft_jax.types import PyTree


def export(
  workdir: str,
  output: str,
  dtype: str = '',
  step: Wanted = None,
  tokenizer: str = '',
  base: str = '',
) -> None:
  """Writes config, weights, tokenizer with chat template, generation config.

  Adapters are merged into their base.

  AutoTokenizer must read texts as the run did. It would not if config.json said
  qwen2 and the tokenizer is not Qwen2's. The file then says seed_oss, which is
  the same decoder, and a warning tells.

  A killed export leaves no model in `output`, and can be repeated.

  Args:
    workdir: folder of a run.
    output: folder to create; it must be empty or not exist.
    dtype: data type of the written weights; '' keeps that of the run.
    step: number of the checkpoint, or 'best'; None means the newest.
    tokenizer: place of the tokenizer; '' means the run's own.
    base: place of the base of adapters; '' means where the run had it.

  Raises:
    ValueError: the run has no such checkpoint, `output` is not empty, a weight
      is not finite in this data type, or AutoTokenizer would read another
      tokenizer.
  """
  # Never mix an export with files of another model.
  files.check_free(output)
  _check_is_run(workdir)
  model, config, encoder, run, _ = saved.load(
    workdir, dtype, step, tokenizer, base
  )
  _check_finite(workdir, model.params)
  # The ids that end a reply: without them, other tools generate forever.
  ids = {
    'bos_token_id': encoder.bos_token_id,
    'eos_token_id': encoder.eos_token_id,
    'pad_token_id': encoder.pad_token_id,
  }
  content = {name: id for name, id in ids.items() if id is not None}
  # The folder gets its name when all of its files are written.
  with files.new_folder(output) as folder:
    own = _save_tokenizer(encoder, folder, output, run, config)
    pretrained.save(model, config, folder, own_tokenizer=own)
    (folder / 'generation_config.json').write_text(json.dumps(content) + '\n')


def export_adapter(
  workdir: str, output: str, step: Wanted = None, tokenizer: str = ''
) -> None:
  """Writes the adapters of a run as peft does, and the tokenizer.

  Args:
    workdir: folder of a run.
    output: folder to create; it must be empty or not exist.
    step: number of the checkpoint, or 'best'; None means the newest.
    tokenizer: place of the tokenizer; '' means the run's own.

  Raises:
    ValueError: the run has no such checkpoint or no adapters, `output` is not
      empty, or AutoTokenizer would read another tokenizer.
  """
  files.check_free(output)
  _check_is_run(workdir)
  adapter = saved.load_adapter(workdir, step)
  _check_finite(workdir, adapter.params)
  encoder = saved.load_tokenizer(workdir, adapter.run, tokenizer)
  with files.new_folder(output) as folder:
    adapter_folder.save(
      adapter.params,
      adapter.model,
      adapter.lora,
      folder,
      adapter.model.init_from,
      adapter.sha256,
    )
    _save_tokenizer(encoder, folder, output, adapter.run)


def _save_tokenizer(
  tokenizer: FastTokenizer,
  folder: pathlib.Path,
  output: str,
  run: dict[str, Any],
  config: ModelConfig | None = None,
) -> bool:
  """Writes the tokenizer of a run, and checks that AutoTokenizer reads it back.

  Args:
    tokenizer: of the run.
    folder: to write to.
    output: name of the folder in messages.
    run: config of the run, as a dict.
    config: of the model that comes into the folder; None for adapters.

  Returns:
    `own_tokenizer` of `config_json.to_json`.

  Raises:
    ValueError: AutoTokenizer reads another tokenizer.
  """
  tokenizer_lib.save(tokenizer, folder)
  texts = _texts_of_records(tokenizer, run)

  def differing_text(own_tokenizer: bool) -> str:
    # transformers chooses a class of tokenizers by model_type too.
    if config:
      content = json.dumps(config_json.to_json(config, own_tokenizer))
      files.write_atomically(folder / 'config.json', content)
    return tokenizer_lib.differing_text(tokenizer, folder, texts)

  text = differing_text(False)
  if not text:
    return False
  if config is None or differing_text(True):
    raise ValueError(
      f'{output}: AutoTokenizer would read {files.shorten(text)} otherwise '
      'than the run; export it with another version of transformers'
    )
  logging.warning(
    '%s: transformers would give a qwen2 model the tokenizer of Qwen2, which '
    'reads %s otherwise than the run; config.json says seed_oss, the same '
    'decoder',
    *(output, files.shorten(text)),
  )
  return True


def _texts_of_records(
  tokenizer: FastTokenizer, run: dict[str, Any]
) -> list[str]:
  """Returns the texts of a few records of a run; [] if they are not here."""
  # In a bucket, opening them would take longer than the comparison is worth.
  if '://' in run['records']:
    return []
  try:
    records = Records(run['records'])
    few = range(min(len(records), 8))
    return [tokenizer_lib.decode(tokenizer, records[i].tokens_T) for i in few]
  except (OSError, ValueError, KeyError):
    return []


def _check_is_run(workdir: str) -> None:
  if not checkpoint.checkpoint_folder(workdir).is_dir() and (
    tensor_files.is_folder(workdir) or places.is_gguf(workdir)
  ):
    raise ValueError(
      f'{workdir}: a model already; an export starts from the workdir of a run'
    )


def _check_finite(workdir: str, params: PyTree) -> None:
  """Raises ValueError for the first parameter with NaN or infinite values."""
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    bad = int(jnp.sum(~jnp.isfinite(leaf)))
    if not bad:
      continue
    # A number too large for a narrow type becomes infinite, and never NaN.
    remedy = 'export another checkpoint'
    if leaf.dtype == jnp.float16 and not jnp.any(jnp.isnan(leaf)):
      remedy = (
        'the largest float16 is 65,504, and bfloat16 has the range of float32: '
        'give --dtype=bfloat16 or --dtype=float32'
      )
    raise ValueError(
      f'{workdir}: {bad:,} of {leaf.size:,} values of '
      f'{sharding.path_name(path)} are not finite in {leaf.dtype}; {remedy}'
    )
