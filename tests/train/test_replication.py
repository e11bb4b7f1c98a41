"""A batch of one dialogue a step is torch's training loop, step by step.

The loop is that of the notebook of de Freitas and Ortega (2026): one dialogue,
the mean over its scored tokens, clip, AdamW, in the order of the file.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from isft_jax.config import MeshConfig, ModelConfig, OptimConfig, RunConfig
from isft_jax.data.records import dataset as records_lib
from isft_jax.hf import pretrained
from isft_jax.objectives import weight_table
from isft_jax.train import metrics as metrics_lib
from isft_jax.train import optim
from isft_jax.train.loop import train
from tests.dialogues import dialogues, plain_renderer, write_records
from tests.fixtures import import_or_skip

torch = import_or_skip('torch')
transformers = pytest.importorskip('transformers')
torch.set_num_threads(1)

DIALOGUES, STEPS = 24, 120
OBJECTIVE = 'interventional'
OPTIM = OptimConfig(learning_rate=2e-5, weight_decay=0.01, clip_norm=1.0)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A random Llama as transformers saves it, and dialogues as token rows."""
  folder = tmp_path_factory.mktemp('replication')
  renderer = plain_renderer(piecewise=True)
  write_records(folder / 'records', dialogues()[:DIALOGUES], renderer)
  config = transformers.LlamaConfig(
    vocab_size=512,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    tie_word_embeddings=True,
  )
  torch.manual_seed(0)
  model = transformers.LlamaForCausalLM(config)
  model.save_pretrained(folder / 'model')
  return folder


def token_rows(folder):
  """(ids, labels) of each dialogue in the order of the file; -100 is masked."""
  table_PV = weight_table(OBJECTIVE)
  records = records_lib.Records(str(folder / 'records'))
  for example in (records[i] for i in range(len(records))):
    weights_T = table_PV[example.provenance_T, example.verdict_T]
    labels_T = np.where(weights_T != 0, example.tokens_T, -100)
    yield (
      torch.asarray(ids_T[None], dtype=torch.long)
      for ids_T in (example.tokens_T, labels_T)
    )


def torch_adamw(parameters):
  return torch.optim.AdamW(
    parameters,
    lr=OPTIM.learning_rate,
    betas=(OPTIM.b1, OPTIM.b2),
    eps=OPTIM.eps,
    weight_decay=OPTIM.weight_decay,
  )


def reference(folder, dtype):
  """Returns (losses, norms of the gradient, parameters) of torch's loop."""
  model = transformers.LlamaForCausalLM.from_pretrained(
    folder / 'model', dtype=getattr(torch, dtype)
  )
  optimizer = torch_adamw(model.parameters())
  rows, losses, norms = list(map(tuple, token_rows(folder))), [], []
  for step in range(STEPS):
    tokens, labels = rows[step % len(rows)]
    loss = model(tokens, labels=labels).loss
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), OPTIM.clip_norm)
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
    norms.append(norm.item())
  return losses, norms, model


def ours(folder, dtype, workdir):
  """The same by `train`; returns (losses, norms, run)."""
  run = train(
    RunConfig(
      objective=OBJECTIVE,
      records=str(folder / 'records'),
      model=ModelConfig(
        init_from=str(folder / 'model'), dtype=dtype, param_dtype=dtype
      ),
      mesh=MeshConfig(data=1, fsdp=1, tensor=1),
      batch_size=1,
      documents_per_row=1,
      seq_len=0,
      targets_per_row=0,
      shuffle=False,
      epochs=STEPS // DIALOGUES,
      normalize='trajectory',
      optim=OPTIM,
      log_every=60,
    ),
    str(workdir),
  )
  rows = metrics_lib.read(workdir / 'metrics.jsonl')
  return [r['loss'] for r in rows], [r['grad_norm'] for r in rows], run


def test_in_float32_every_loss_is_that_of_torch(folder, tmp_path):
  """120 losses within 1e-6, each after all the steps before it."""
  losses, norms, _ = reference(folder, 'float32')
  our_losses, our_norms, _ = ours(folder, 'float32', tmp_path)
  np.testing.assert_allclose(our_losses, losses, rtol=1e-6)
  # A norm has the rounding of all parts of its gradient; 4e-6 was measured.
  np.testing.assert_allclose(our_norms, norms, rtol=1e-5)
  assert min(norms) > OPTIM.clip_norm  # the clip is at work in every step
  assert losses[-1] < 0.97 * losses[0]


def test_in_bfloat16_alone_losses_and_moving_weights_are_those_of_torch(
  folder, tmp_path
):
  """Parameters, gradients and moments have 8 bits."""
  losses, _, theirs = reference(folder, 'bfloat16')
  our_losses, _, run = ours(folder, 'bfloat16', tmp_path)
  # Sums of bfloat16 in another order; 4.4e-5 was measured.
  np.testing.assert_allclose(our_losses, losses, rtol=2e-4)

  theirs.save_pretrained(tmp_path / 'theirs')
  start, end = (
    pretrained.load(place, dtype='bfloat16')[0].params
    for place in (folder / 'model', tmp_path / 'theirs')
  )
  before, after, expected = (
    np.concatenate(
      [np.asarray(x, np.float32).ravel() for x in jax.tree.leaves(tree)]
    )
    for tree in (start, run.params, end)
  )
  is_small = np.abs(before) < 2**-7
  for found in (after, expected):
    # Half the distance to a neighbour is 3e-5 or more, and a step is 2e-5.
    assert np.mean(found[~is_small] != before[~is_small]) < 0.01
    assert np.mean(found[is_small] != before[is_small]) > 0.8


def test_adamw_in_bfloat16_is_torchs_to_the_bit():
  """120 steps of 2,000 weights: parameters and both moments."""
  rng = np.random.default_rng(0)
  weights = rng.normal(size=2000).astype(np.float32) * 0.02
  scales = np.exp(rng.normal(size=2000)) * 0.01
  gradients = rng.normal(size=(STEPS, 2000)) * scales
  theirs = torch.nn.Parameter(torch.tensor(weights).bfloat16())
  torchs = torch_adamw([theirs])
  optimizer = optim.make_optimizer(
    dataclasses.replace(OPTIM, clip_norm=0.0), STEPS, 'bfloat16'
  )

  @jax.jit
  def step(params, state, gradient):
    updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state

  params = jnp.asarray(weights, jnp.bfloat16)
  state = optimizer.init(params)
  for gradient in gradients:
    theirs.grad = torch.tensor(gradient).bfloat16()
    torchs.step()
    params, state = step(params, state, jnp.asarray(gradient, jnp.bfloat16))
  moments = torchs.state[theirs]
  _, adam = state
  for found, expected in (
    (params, theirs.detach()),
    (adam.mu, moments['exp_avg']),
    (adam.nu, moments['exp_avg_sq']),
  ):
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(
      np.asarray(found, np.float32), expected.float().numpy()
    )
