"""Exports a checkpoint to a model folder, or its adapters to one for peft."""

import json

import jax
import jax.numpy as jnp

from isft_jax import files, places, sharding
from isft_jax.hf import adapter_folder, pretrained, tensor_files
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

  A killed export leaves no model in `output`, and can be repeated.

  Args:
    workdir: folder of a run.
    output: folder to create; it must be empty or not exist.
    dtype: data type of the written weights; '' keeps that of the run.
    step: number of the checkpoint, or 'best'; None means the newest.
    tokenizer: place of the tokenizer; '' means the run's own.
    base: place of the base of adapters; '' means where the run had it.

  Raises:
    ValueError: the run has no such checkpoint, `output` is not empty, or a
      weight is not finite in this data type.
  """
  # Never mix an export with files of another model.
  files.check_free(output)
  _check_is_run(workdir)
  model, config, encoder, _ = saved.load(workdir, dtype, step, tokenizer, base)
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
    pretrained.save(model, config, folder)
    encoder.save_pretrained(folder)
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
    ValueError: the run has no such checkpoint or no adapters, or `output` is
      not empty.
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
    encoder.save_pretrained(folder)


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
