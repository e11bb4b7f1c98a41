"""Adapters against peft's own: logits, gradients, ten steps, merging.

The models are random and tiny, and everything is in float32.
"""

import copy
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from isft_jax import losses
from isft_jax.config import (
  LORA_TARGETS,
  LoraConfig,
  ModelConfig,
  OptimConfig,
)
from isft_jax.hf import adapter_folder, pretrained, tensor_files
from isft_jax.models import decoder, likelihood
from isft_jax.models import lora as lora_lib
from isft_jax.objectives import weight_table
from isft_jax.train.optim import make_optimizer
from isft_jax.train.step import TrainState, make_step
from isft_jax.types import Batch, Provenance, Verdict
from tests.fixtures import fast_jit, import_or_skip
from tests.hf.adapters import random_adapters
from tests.hf.random_folders import TOKENS_BL, folder_of

torch = import_or_skip('torch')
peft = import_or_skip('peft')

KINDS = ['qwen2, untied', 'qwen3, heads wider than their share', 'llama']
ATTENTION, MLP = LORA_TARGETS[:4], LORA_TARGETS[4:]
LORAS = [
  LoraConfig(rank=4, alpha=6.0),
  LoraConfig(rank=3, alpha=2.5, targets=('q_proj', 'v_proj'), rslora=True),
  LoraConfig(rank=1, targets=MLP),
]
STEPS = 10


def make_base(kind, folder):
  """Returns transformers' model, ours, and our config, of one folder."""
  theirs = folder_of(kind, folder)
  ours, config = pretrained.load(folder)
  return theirs, ours, config


@pytest.fixture(scope='module', params=KINDS)
def base(request, tmp_path_factory):
  return make_base(request.param, tmp_path_factory.mktemp('base'))


@pytest.fixture(scope='module')
def qwen2(tmp_path_factory):
  return make_base(KINDS[0], tmp_path_factory.mktemp('base'))


def adapted(base, lora, adapters):
  """Returns our model with adapters."""
  _, ours, config = base
  graphdef, _ = decoder.abstract(config, lora)
  adapters = jax.tree.map(jnp.asarray, adapters)
  return pretrained.Model(graphdef, lora_lib.join(ours.params, adapters))


def logits(model):
  """Returns the logits of either model, as NumPy."""
  if isinstance(model, pretrained.Model):
    run = fast_jit(lambda params: model._replace(params=params)(TOKENS_BL))
    return np.asarray(run(model.params))
  with torch.no_grad():
    return model(torch.asarray(TOKENS_BL)).logits.numpy()


def save(base, lora, adapters, folder):
  folder.mkdir()
  adapter_folder.save(adapters, base[2], lora, folder, 'ORG/NAME', '')


def load_with_peft(base, folder, **settings):
  """Loads an adapter on a copy of the base, which peft changes in place."""
  theirs = copy.deepcopy(base[0])
  return peft.PeftModel.from_pretrained(theirs, folder, **settings).eval()


def assert_close(ours, theirs, relative=1e-5):
  """Compares with the largest number of an array."""
  atol = relative * np.abs(theirs).max()
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)


# ------------------------------------------------------------------- out and in


@pytest.mark.parametrize('lora', LORAS, ids=str)
def test_peft_loads_what_we_write(base, lora, tmp_path, capfd):
  adapters = random_adapters(base[2], lora, scale=0.2)
  save(base, lora, adapters, tmp_path / 'a')
  # It neither warns nor prints, as it does of a setting that it lacks.
  capfd.readouterr()
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    # Between the libraries, of names that they will change.
    warnings.simplefilter('ignore', FutureWarning)
    theirs = load_with_peft(base, tmp_path / 'a')
  assert capfd.readouterr() == ('', '')
  config = theirs.peft_config['default']
  assert config.target_modules == set(lora.maps)
  assert (config.r, config.use_rslora) == (lora.rank, lora.rslora)
  expected = logits(theirs)
  assert_close(logits(adapted(base, lora, adapters)), expected)
  # The adapter is at work, a thousand times more than the tolerance.
  assert np.abs(expected - logits(base[0])).max() > 0.01


PEFT_SETTINGS = [
  {'r': 4, 'lora_alpha': 16, 'target_modules': 'all-linear'},
  {'r': 2, 'target_modules': ['q_proj', 'down_proj'], 'use_rslora': True},
  {'r': 3, 'target_modules': list(MLP), 'init_lora_weights': 'gaussian'},
  {
    'r': 2,
    'lora_alpha': 5,
    'target_modules': ['self_attn.o_proj', 'mlp.up_proj'],
    'lora_dropout': 0.1,
  },
  {
    'r': 2,
    'target_modules': list(ATTENTION),
    'init_lora_weights': 'orthogonal',
  },
]


def of_peft(base, **settings):
  """Returns peft's model with a new adapter, whose B is not 0."""
  config = peft.LoraConfig(task_type='CAUSAL_LM', **settings)
  torch.manual_seed(0)
  model = peft.get_peft_model(copy.deepcopy(base[0]), config).eval()
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      if 'lora_B' in name:
        parameter.add_(torch.randn_like(parameter) * 0.2)
  return model


@pytest.mark.parametrize('settings', PEFT_SETTINGS, ids=str)
def test_we_load_what_peft_writes(base, settings, tmp_path):
  theirs = of_peft(base, **settings)
  theirs.save_pretrained(tmp_path)
  lora = adapter_folder.read_config(tmp_path)
  adapters = adapter_folder.load(tmp_path, base[2], lora, '0' * 64)
  expected = logits(theirs)
  assert_close(logits(adapted(base, lora, adapters)), expected)
  assert np.abs(expected - logits(base[0])).max() > 0.01


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'target_modules': '.*q_proj'}, 'must be a list of names'),
    ({'target_modules': ['q_proj', 'lm_head']}, 'has lm_head, and must be of'),
    ({'target_modules': ['q_proj'], 'use_dora': True}, 'use_dora is True'),
    ({'target_modules': ['q_proj'], 'bias': 'all'}, "bias must be 'none'"),
    (
      {'target_modules': ['q_proj'], 'modules_to_save': ['lm_head']},
      'modules_to_save is',
    ),
    (
      {'target_modules': ['q_proj'], 'layers_to_transform': 0},
      'layers_to_transform is 0',
    ),
    (
      {'target_modules': ['q_proj', 'v_proj'], 'rank_pattern': {'q_proj': 2}},
      'rank_pattern is',
    ),
    (
      {'target_modules': ['q_proj'], 'init_lora_weights': 'pissa'},
      "init_lora_weights='pissa' changes",
    ),
    (
      {'target_modules': ['q_proj', 'v_proj'], 'exclude_modules': ['v_proj']},
      'exclude_modules is',
    ),
    ({'target_modules': ['q_proj'], 'lora_bias': True}, 'lora_bias is True'),
  ],
)
def test_adapters_of_peft_that_ours_are_not_are_refused(
  qwen2, settings, message, tmp_path
):
  of_peft(qwen2, r=4, **settings).save_pretrained(tmp_path)
  with pytest.raises(ValueError, match=message):
    adapter_folder.read_config(tmp_path)


# ------------------------------------------------------ gradients and ten steps

OPTIM = OptimConfig(learning_rate=1e-3, weight_decay=0.1, clip_norm=0.1)


def make_batch(rng):
  """Returns a batch with the weights of an agent among others.

  The agent's tokens have the weight 0, as under L_do, and a harness's 0.5.
  """
  B, L = TOKENS_BL.shape
  tokens_BL = rng.integers(0, 96, (B, L)).astype(np.int32)
  authors = [Provenance.USER, Provenance.AGENT, Provenance.TOOL]
  authors_BK = rng.choice([*authors, Provenance.HARNESS], (B, L - 1))
  table_PV = weight_table('interventional')
  table_PV[Provenance.HARNESS] = 0.5
  weights_BK = table_PV[authors_BK, Verdict.UNKNOWN]
  assert (weights_BK[authors_BK == Provenance.AGENT] == 0).all()
  row = np.arange(L, dtype=np.int32)
  return Batch(
    tokens_BL=tokens_BL,
    positions_BL=np.broadcast_to(row, (B, L)),
    segment_ids_BL=np.ones((B, L), np.int32),
    columns_BK=np.broadcast_to(row[:-1], (B, L - 1)),
    targets_BK=tokens_BL[:, 1:],
    weights_BK=weights_BK,
    authors_BK=authors_BK.astype(np.int32),
  )


def loss_of(theirs, batch):
  """Returns sum_i w_i nll_i / sum_i w_i, by torch."""
  logits_BLV = theirs(torch.asarray(batch.tokens_BL).long()).logits[:, :-1]
  targets_BK = torch.asarray(batch.targets_BK).long()
  nll_BK = torch.nn.functional.cross_entropy(
    logits_BLV.swapaxes(1, 2), targets_BK, reduction='none'
  )
  weights_BK = torch.asarray(batch.weights_BK)
  return (nll_BK * weights_BK).sum() / weights_BK.sum()


def as_ours(theirs, shapes, attribute=None):
  """Returns peft's A and B, or their gradients, by the paths of ours."""
  parameters = dict(theirs.named_parameters())
  arrays = {}
  for path, shape in flatten_dict(shapes, sep='/').items():
    layers = []
    for layer in range(shape.shape[0]):
      name = adapter_folder._name(path, ModelConfig(), layer).replace(
        '.weight', '.default.weight'
      )
      parameter = parameters[name]
      tensor = getattr(parameter, attribute) if attribute else parameter
      layers.append(tensor.detach().numpy().T.reshape(shape.shape[1:]))
    arrays[path] = np.stack(layers)
  return arrays


@pytest.fixture
def pair(base, tmp_path):
  """Returns peft's model that learns, our graph, and our adapters."""
  lora = LoraConfig(rank=4, alpha=3.0, rslora=True)
  adapters = random_adapters(base[2], lora, scale=0.1)
  save(base, lora, adapters, tmp_path / 'a')
  theirs = load_with_peft(base, tmp_path / 'a', is_trainable=True)
  graphdef, _ = decoder.abstract(base[2], lora)
  return theirs, graphdef, jax.tree.map(jnp.asarray, adapters)


def test_the_loss_and_its_gradients_are_those_of_peft(base, pair):
  theirs, graphdef, adapters = pair
  batch = make_batch(np.random.default_rng(1))

  @fast_jit
  def value_and_grad(adapters, frozen):
    def loss(adapters):
      params = lora_lib.join(frozen, adapters)
      nll_BK = likelihood.target_nll(graphdef, params, batch)
      return losses.normalize(*losses.weighted_sum(nll_BK, batch.weights_BK))

    return jax.value_and_grad(loss)(adapters)

  value, gradients = value_and_grad(adapters, base[1].params)
  expected = loss_of(theirs, batch)
  expected.backward()
  assert value == pytest.approx(expected.item(), rel=1e-5)
  ours = flatten_dict(gradients, sep='/')
  for path, gradient in as_ours(theirs, adapters, 'grad').items():
    assert np.abs(gradient).max() > 1e-4
    assert_close(ours.pop(path), gradient)
  assert not ours
  # The base gets no gradient, there as here.
  for name, parameter in theirs.named_parameters():
    assert parameter.requires_grad == ('lora_' in name)
    assert (parameter.grad is None) == ('lora_' not in name)


def test_ten_steps_of_adamw_are_those_of_torch(base, pair):
  theirs, graphdef, adapters = pair
  learning = [p for p in theirs.parameters() if p.requires_grad]
  optimizer = torch.optim.AdamW(
    learning,
    lr=OPTIM.learning_rate,
    betas=(OPTIM.b1, OPTIM.b2),
    eps=OPTIM.eps,
    weight_decay=OPTIM.weight_decay,
  )
  update = make_optimizer(OPTIM, STEPS)
  step = fast_jit(make_step(graphdef, update, microbatches=1))
  frozen = base[1].params
  state = TrainState(jnp.int32(0), adapters, update.init(adapters), frozen)
  # The optimizer's moments are those of the adapters, and no others.
  sizes = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state))
  assert sizes == 2 * sum(x.size for x in jax.tree.leaves(adapters)) + 2
  rng = np.random.default_rng(2)
  for number in range(STEPS):
    batch = make_batch(rng)
    optimizer.zero_grad()
    expected = loss_of(theirs, batch)
    expected.backward()
    norm = torch.nn.utils.clip_grad_norm_(learning, OPTIM.clip_norm)
    assert norm > OPTIM.clip_norm  # the clip is at work
    optimizer.step()
    state, metrics = step(state, batch)
    assert metrics['loss'] == pytest.approx(expected.item(), rel=1e-5)
    ours = flatten_dict(state.params, sep='/')
    for path, array in as_ours(theirs, adapters).items():
      atol = 1e-5 * np.abs(array).max()
      np.testing.assert_allclose(
        ours[path], array, rtol=0, atol=atol, err_msg=f'step {number}, {path}'
      )
  # The base is what it was, bit for bit, and the adapters have moved.
  jax.tree.map(np.testing.assert_array_equal, state.frozen, frozen)
  for before, after in zip(
    jax.tree.leaves(adapters), jax.tree.leaves(state.params), strict=True
  ):
    assert np.abs(after - before).max() > 3 * OPTIM.learning_rate


# ---------------------------------------------------------------------- merging


@pytest.mark.parametrize('lora', LORAS, ids=str)
def test_merging_is_that_of_peft(base, lora, tmp_path):
  """W + scale A B, in float32 here as there: the same but for rounding.

  torch and XLA add the r products in an order of their own, and XLA may fuse a
  product with a sum. With u = 2^-24, each computes scale A B within
  (r + 1) u scale |A| |B|, and rounds the sum with W once more. A map without an
  adapter stays as it is, bit for bit.
  """
  adapters = random_adapters(base[2], lora, scale=0.1)
  save(base, lora, adapters, tmp_path / 'a')
  theirs = load_with_peft(base, tmp_path / 'a')
  expected = logits(theirs)
  # |A| |B|, as peft stores them.
  products = {
    name: (
      layer.lora_B['default'].weight.abs()
      @ layer.lora_A['default'].weight.abs()
    )
    for name, layer in theirs.base_model.model.named_modules()
    if hasattr(layer, 'lora_A')
  }
  assert len(products) == len(lora.maps) * base[2].layers
  merged = theirs.merge_and_unload()
  params = lora_lib.merge(adapted(base, lora, adapters).params, lora, 'float32')
  ours = pretrained.Model(base[1].graphdef, params)
  pretrained.save(ours, base[2], tmp_path / 'merged')
  stored = tensor_files.FolderTensors(tmp_path / 'merged')
  theirs = {name: p.detach().numpy() for name, p in merged.named_parameters()}
  # Tied models have one of the two.
  assert stored.names() == theirs.keys()
  for name in sorted(stored.names()):
    with stored.open(name) as tensor:
      mine, other = tensor[:], theirs[name]
    error = np.abs(np.float64(mine) - np.float64(other))
    atol = np.zeros(())
    if (module := name.removesuffix('.weight')) in products:
      sums = lora.scale * products[module].detach().numpy().astype(np.float64)
      atol = 2 * (lora.rank + 2) * 2.0**-24 * sums + np.spacing(np.abs(other))
    assert (error <= atol).all(), name
  assert_close(logits(ours), expected)
  assert_close(logits(merged), expected)
