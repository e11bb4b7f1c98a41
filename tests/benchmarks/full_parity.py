"""Is the decoder Qwen2.5-0.5B, at its full shape? With random weights.

Compares with transformers on the same folder: every layer, the logits, the
masked loss and its gradients in float32; then what loading takes, and whether
folder -> here -> folder gives the same bytes. About 14 GB and 5 minutes:

  python tests/benchmarks/full_parity.py
"""

import json
import pathlib
import resource
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import transformers

from isft_jax.hf import pretrained
from tests.hf.test_pretrained import hidden_states

QWEN2_5_0_5B = {
  'vocab_size': 151_936,
  'hidden_size': 896,
  'intermediate_size': 4_864,
  'num_hidden_layers': 24,
  'num_attention_heads': 14,
  'num_key_value_heads': 2,
  'rms_norm_eps': 1e-6,
  'tie_word_embeddings': True,
  'rope_parameters': {'rope_type': 'default', 'rope_theta': 1_000_000.0},
}
LENGTH = 128


def save_random(folder: pathlib.Path) -> None:
  """Saves random weights, with biases and norms that are not constants."""
  torch.manual_seed(0)
  config = transformers.Qwen2Config(**QWEN2_5_0_5B)
  model = transformers.Qwen2ForCausalLM(config)
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      if name.endswith(('bias', 'norm.weight', 'layernorm.weight')):
        parameter.add_(torch.randn_like(parameter) * 0.3)
  model.save_pretrained(folder)


class Peak:
  """The most memory of the process while a block runs, in GB above before."""

  def __enter__(self):
    self._before, self.gb, self._done = _resident(), 0.0, threading.Event()
    self._thread = threading.Thread(target=self._watch)
    self._thread.start()
    return self

  def __exit__(self, *error):
    self._done.set()
    self._thread.join()

  def _watch(self):
    while not self._done.wait(0.01):
      self.gb = max(self.gb, _resident() - self._before)


def _resident() -> float:
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  return pages * resource.getpagesize() / 1e9


def main():
  """Prints the greatest differences, layer by layer, and what they are of."""
  folder = pathlib.Path(tempfile.mkdtemp())
  save_random(folder / 'theirs')
  start = time.perf_counter()
  with Peak() as peak:
    model, config = pretrained.load(folder / 'theirs')
    jax.block_until_ready(model.params)
  seconds = time.perf_counter() - start
  leaves = jax.tree.leaves(model.params)
  print(
    f'{sum(x.size for x in leaves):,} parameters, '
    f'{sum(x.nbytes for x in leaves) / 1e9:.2f} GB; loading took '
    f'{seconds:.1f} s and {peak.gb:.2f} GB at its peak'
  )

  start = time.perf_counter()
  pretrained.save(model, config, folder / 'ours', shard_bytes=10**9)
  print(f'saving took {time.perf_counter() - start:.1f} s')
  index = json.loads((folder / 'ours/model.safetensors.index.json').read_text())
  same = True
  with pretrained.tensor_files.safetensors.safe_open(
    folder / 'theirs/model.safetensors', 'np'
  ) as theirs:
    for name, file in index['weight_map'].items():
      path = folder / 'ours' / file
      with pretrained.tensor_files.safetensors.safe_open(path, 'np') as ours:
        mine, yours = ours.get_tensor(name), theirs.get_tensor(name)
        same &= mine.tobytes() == yours.tobytes()
  files = len(set(index['weight_map'].values()))
  print(
    f'folder to folder, {files} files: {"bit for bit" if same else "DIFFERS"}'
  )

  theirs = transformers.AutoModelForCausalLM.from_pretrained(folder / 'theirs')
  tokens_BL = np.random.default_rng(0).integers(
    0, config.vocab_size, (1, LENGTH)
  )
  scored_L = np.arange(LENGTH) % 3 != 0
  labels = torch.asarray(np.where(scored_L, tokens_BL, -100))
  out = theirs(
    torch.asarray(tokens_BL), labels=labels, output_hidden_states=True
  )
  out.loss.backward()
  ours = hidden_states(model, tokens_BL)
  for layer in range(config.layers):
    state = out.hidden_states[layer].detach().numpy()
    _tell(f'layer {layer:2} reads', ours[layer], state)

  def loss(params):
    logits_BLV = pretrained.Model(model.graphdef, params)(tokens_BL)
    nll_BL = optax.softmax_cross_entropy_with_integer_labels(
      logits_BLV[:, :-1], jnp.asarray(tokens_BL[:, 1:])
    )
    return jnp.mean(nll_BL[:, scored_L[1:]]), logits_BLV

  (value, logits_BLV), gradient = jax.jit(
    jax.value_and_grad(loss, has_aux=True)
  )(model.params)
  _tell('logits', logits_BLV, out.logits.detach().numpy())
  print(f'loss  ours {float(value):.6f}  theirs {out.loss.item():.6f}')
  del out, logits_BLV
  # Theirs, in our axes: saved as if they were weights, and loaded.
  for parameter in theirs.parameters():
    parameter.data = parameter.grad
  theirs.save_pretrained(folder / 'gradient')
  expected, _ = pretrained.load(folder / 'gradient')
  jax.tree_util.tree_map_with_path(
    lambda path, mine, yours: _tell(
      'gradient ' + jax.tree_util.keystr(path, simple=True, separator='/'),
      mine,
      yours,
    ),
    gradient,
    expected.params,
  )


def _tell(what, ours, theirs):
  ours, theirs = np.asarray(ours), np.asarray(theirs)
  apart = np.abs(ours - theirs).max()
  print(f'{what:28} differs by {apart:.1e} of {np.abs(theirs).max():.1e}')


if __name__ == '__main__':
  main()
