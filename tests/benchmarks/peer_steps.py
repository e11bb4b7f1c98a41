"""Compiles the fine-tuning steps of tunix and MaxText, beside ours, for a TPU.

  pip install google-tunix==0.1.7 -e . libtpu==0.0.50.1
  python tests/benchmarks/peer_steps.py --only=tunix [--rows=8] [--tokens=4096]

  pip install 'maxtext[tpu]==0.2.5' -e . libtpu==0.0.50.1
  python tests/benchmarks/peer_steps.py --only=maxtext

Each peer needs another environment. --only=isft was run in the first.

All are full fine-tuning of Qwen3-0.6B with AdamW on v5e:2x2: parameters and
moments in float32, products in bfloat16, parameters and rows sharded over four
chips. The same compiler says how much memory each step needs. Nothing runs.

  isft_jax  the packaged config, with half of the tokens scored, and all
  tunix     the step of `PeftTrainer` with its default loss, and the shardings
            of its model: with its defaults, then with flash attention and
            layers that are computed again in the backward pass
  maxtext   its own `train_compile`, with its defaults, then with logits in 16
            tiles

tunix leaves out its shardings of activations if the first device of the
machine is a CPU, which it is here. They are put back.
"""

import argparse
import dataclasses
import json
import os
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from isft_jax import chips
from isft_jax.configs import qwen3_0_6b
from isft_jax.tpu import compile as tpu_compile
from isft_jax.tpu import memory

SLICE, CHIPS = 'v5e:2x2', 4


def gib(program: jax.stages.Compiled) -> dict:
  """Returns the memory per chip that a program needs."""
  size = tpu_compile._usage(program).peak_memory_in_bytes
  return {'fits': True, 'gib_per_chip': round(size / chips.GIB, 2)}


def refused(message: str) -> dict:
  """Returns the memory per chip that a refused program would need."""
  size = memory.needed(message)
  return {'fits': False, 'gib_per_chip': round(size / chips.GIB, 2)}


# ------------------------------------------------------------------------ ours


def compile_ours(rows: int, tokens: int, scores_all: bool) -> dict:
  config = qwen3_0_6b.get_config(f'batch_size={rows},seq_len={tokens}')
  config.targets_per_row = tokens if scores_all else 0
  report = tpu_compile.compile_run(config, SLICE, has_probes=False)
  return {
    'fits': report['fits'],
    'gib_per_chip': round(report['hbm_gib_per_chip'], 2),
  }


# ----------------------------------------------------------------------- tunix


def compile_tunix(rows: int, tokens: int, is_frugal: bool) -> dict:
  from tunix.models.qwen3 import model as qwen3
  from tunix.sft import peft_trainer, utils

  mesh = Mesh(
    np.asarray(chips.describe(SLICE)).reshape(CHIPS, 1), ('fsdp', 'tp')
  )
  config = dataclasses.replace(
    qwen3.ModelConfig.qwen3_0p6b(), dtype=jnp.bfloat16
  )
  if is_frugal:
    config = dataclasses.replace(
      config, use_flash_attention=True, remat_config=qwen3.RematConfig.DECODER
    )

  def shard(x: jax.Array, names: tuple) -> jax.Array:
    return jax.lax.with_sharding_constraint(
      x, NamedSharding(mesh, PartitionSpec(*names))
    )

  qwen3.shard = shard

  def make() -> tuple:
    model = qwen3.Qwen3(config, rngs=nnx.Rngs(0))
    return model, nnx.Optimizer(model, optax.adamw(1e-5), wrt=nnx.Param)

  # As `PeftTrainer._train_step`, with the masks of tunix's examples.
  def step(state, tokens_BL, mask_BL):
    model, optimizer = nnx.merge(graphdef, state)
    loss, gradient = nnx.value_and_grad(peft_trainer._default_loss_fn)(
      model,
      input_tokens=tokens_BL,
      input_mask=mask_BL,
      positions=utils.build_positions_from_mask(mask_BL),
      attention_mask=utils.make_causal_attn_mask(mask_BL),
    )
    norm = optax.global_norm(gradient)
    optimizer.update(model, gradient)
    return loss, norm, nnx.state((model, optimizer))

  with mesh:
    graphdef, state = nnx.split(nnx.eval_shape(make))
    placed = jax.tree.map(
      lambda leaf, spec: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec)
      ),
      state,
      nnx.get_partition_spec(state),
    )
    by_rows = NamedSharding(mesh, PartitionSpec('fsdp'))
    batch = [
      jax.ShapeDtypeStruct((rows, tokens), dtype, sharding=by_rows)
      for dtype in (jnp.int32, jnp.bool_)
    ]
    lowered = jax.jit(step, donate_argnums=0).lower(placed, *batch)
  program, message = tpu_compile._compiled(lowered)
  return gib(program) if program else refused(message)


# --------------------------------------------------------------------- MaxText


def compile_maxtext(rows: int, tokens: int, is_frugal: bool) -> dict:
  from maxtext.trainers.pre_train import train_compile

  found = {}
  compile_step = train_compile.jit_and_compile

  def compile_and_note(*args, **kwargs):
    program = compile_step(*args, **kwargs)
    found.update(gib(program))
    return program

  train_compile.jit_and_compile = compile_and_note
  package = os.path.dirname(
    os.path.dirname(os.path.dirname(os.path.dirname(train_compile.__file__)))
  )
  argv = [
    'train_compile',
    f'{package}/maxtext/configs/base.yml',
    'model_name=qwen3-0.6b',
    'compile_topology=v5e-4',
    'compile_topology_num_slices=1',
    f'per_device_batch_size={rows / CHIPS}',
    f'max_target_length={tokens}',
    'run_name=step',
    'base_output_directory=/tmp/maxtext',
    'skip_jax_distributed_system=true',
    *(['num_vocab_tiling=16'] if is_frugal else []),
  ]
  chips.describe(SLICE)  # sets what libtpu reads from the environment
  try:
    train_compile.main(argv)
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    return refused(str(error))
  finally:
    train_compile.jit_and_compile = compile_step
  return found


STEPS = {
  'isft_jax': (compile_ours, False),
  'isft_jax, every token scored': (compile_ours, True),
  'tunix': (compile_tunix, False),
  'tunix, flash attention and remat': (compile_tunix, True),
  'maxtext': (compile_maxtext, False),
  'maxtext, tiled logits': (compile_maxtext, True),
}


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--rows', type=int, default=8, help='per step')
  parser.add_argument('--tokens', type=int, default=4096, help='per row')
  parser.add_argument('--only', default='', help='how the names of steps begin')
  args = parser.parse_args()
  for name, (compile_step, *settings) in STEPS.items():
    if name.startswith(args.only):
      since = time.perf_counter()
      found = compile_step(args.rows, args.tokens, *settings)
      seconds = round(time.perf_counter() - since)
      line = {'step': name} | found | {'compile_seconds': seconds}
      print(json.dumps(line), flush=True)


if __name__ == '__main__':
  main()
