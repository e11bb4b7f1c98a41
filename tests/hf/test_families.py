"""Every family trains, packs and generates as in transformers.

The models are random and tiny, and everything is in float32.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy
import transformers
from flax import traverse_util

from isft_jax.config import LoraConfig, ModelConfig, OptimConfig
from isft_jax.hf import adapter_folder, config_json, families, pretrained
from isft_jax.inference.generate import greedy
from isft_jax.models import decoder
from isft_jax.models import lora as lora_lib
from isft_jax.train.optim import make_optimizer
from tests.fixtures import fast_jit, import_or_skip
from tests.hf.adapters import random_adapters
from tests.hf.random_folders import FAMILIES, TOKENS_BL, folder_of

torch = import_or_skip('torch')

STEPS = 10
# One target in three is masked, as an agent's tokens are under L_do.
SCORED_L = np.arange(TOKENS_BL.shape[1]) % 3 != 0
OPTIM = OptimConfig(learning_rate=1e-3, weight_decay=0.1, clip_norm=0.1)


@pytest.fixture(scope='module', params=FAMILIES)
def folder(request, tmp_path_factory):
  """A folder of each family, written by transformers."""
  path = tmp_path_factory.mktemp('model')
  folder_of(request.param, path)
  return path


@pytest.fixture
def theirs(folder):
  """Transformers' model, without what an earlier test did to it."""
  return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.fixture(scope='module')
def ours(folder):
  return pretrained.load(folder)


def logits(model, *arguments):
  """Logits of ours, compiled."""
  run = fast_jit(lambda params: model._replace(params=params)(*arguments))
  return np.asarray(run(model.params))


def test_packed_documents_are_each_alone(ours):
  model, _ = ours
  first, second = TOKENS_BL[:1, :13], TOKENS_BL[1:, :22]
  packed = logits(
    model,
    np.concatenate([first, second], 1),
    jnp.concatenate([jnp.arange(13), jnp.arange(22)])[None],
    jnp.repeat(jnp.array([1, 2]), jnp.array([13, 22]))[None],
  )
  scale = np.abs(packed).max()
  for part, alone in ((packed[:, :13], first), (packed[:, 13:], second)):
    np.testing.assert_allclose(part, logits(model, alone), atol=1e-5 * scale)


def loss_of(graphdef, params):
  """Mean loss of the scored targets."""
  logits_BLV = pretrained.Model(graphdef, params)(TOKENS_BL)[:, :-1]
  nll_BL = optax.softmax_cross_entropy_with_integer_labels(
    logits_BLV, jnp.asarray(TOKENS_BL[:, 1:])
  )
  return jnp.mean(nll_BL[:, SCORED_L[1:]])


def their_loss(theirs):
  labels = torch.asarray(np.where(SCORED_L, TOKENS_BL, -100))
  return theirs(torch.asarray(TOKENS_BL), labels=labels).loss


def as_stored(params, config):
  """Arrays like our parameters, under the names of a folder's tensors."""
  leaves = traverse_util.flatten_dict(params, sep='/')
  return dict(pretrained._stored(leaves, config))


def their_gradients(theirs):
  """Gradients by the names of a folder's tensors."""
  gradients = {}
  for name, parameter in theirs.named_parameters():
    gradient = parameter.grad.numpy()
    # In memory, the experts of a layer are one tensor.
    if 'experts.' not in name:
      gradients[name] = gradient
    elif name.endswith('down_proj'):
      for i, each in enumerate(gradient):
        gradients[name.replace('experts.', f'experts.{i}.') + '.weight'] = each
    else:
      for i, each in enumerate(gradient):
        at = name.replace('experts.gate_up_proj', f'experts.{i}.')
        gate, up = np.split(each, 2)
        gradients[at + 'gate_proj.weight'] = gate
        gradients[at + 'up_proj.weight'] = up
  return gradients


def test_the_masked_loss_and_all_gradients_are_those_of_torch(theirs, ours):
  model, config = ours
  expected = their_loss(theirs)
  expected.backward()
  run = fast_jit(jax.value_and_grad(lambda p: loss_of(model.graphdef, p)))
  value, gradients = run(model.params)
  np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
  found, wanted = as_stored(gradients, config), their_gradients(theirs)
  assert found.keys() == wanted.keys()
  for name, gradient in wanted.items():
    largest = np.abs(gradient).max()
    np.testing.assert_allclose(
      found[name], gradient, atol=2e-5 * largest, err_msg=name
    )


def test_ten_steps_of_adamw_are_those_of_torch(theirs, ours, tmp_path):
  """The same order: clip, moments, decay. Parameters within 1e-3 of the way."""
  model, _ = ours
  optimizer = torch.optim.AdamW(
    theirs.parameters(),
    lr=OPTIM.learning_rate,
    betas=(OPTIM.b1, OPTIM.b2),
    eps=OPTIM.eps,
    weight_decay=OPTIM.weight_decay,
  )
  update = make_optimizer(OPTIM, STEPS)

  @fast_jit
  def step(params, state):
    loss, grads = jax.value_and_grad(lambda p: loss_of(model.graphdef, p))(
      params
    )
    changes, state = update.update(grads, state, params)
    return optax.apply_updates(params, changes), state, loss

  params, state = model.params, update.init(model.params)
  for _ in range(STEPS):
    optimizer.zero_grad()
    expected = their_loss(theirs)
    expected.backward()
    norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), OPTIM.clip_norm)
    assert norm > OPTIM.clip_norm  # the clip is at work
    optimizer.step()
    params, state, loss = step(params, state)
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-4)

  theirs.save_pretrained(tmp_path)
  end, _ = pretrained.load(tmp_path)

  def compare(start, ours, theirs):
    way = np.linalg.norm(np.asarray(theirs) - np.asarray(start))
    apart = np.linalg.norm(np.asarray(ours) - np.asarray(theirs))
    assert apart < 1e-3 * way

  jax.tree.map(compare, model.params, params, end.params)


def test_replies_are_those_of_transformers(theirs, ours):
  """Prompts of two lengths in one batch, far beyond the window."""
  model, _ = ours
  prompts = [TOKENS_BL[0, :9], TOKENS_BL[1, :17]]
  replies = greedy(model.graphdef, model.params, prompts, max_new_tokens=20)
  for prompt, reply in zip(prompts, replies, strict=True):
    tokens = torch.asarray(prompt[None])
    expected = theirs.generate(
      tokens,
      attention_mask=torch.ones_like(tokens),
      max_new_tokens=20,
      do_sample=False,
      eos_token_id=None,
      pad_token_id=0,
    )
    assert reply.tolist() == expected[0, len(prompt) :].tolist()


def test_adapters_are_those_of_peft(theirs, ours, tmp_path):
  """All linear maps that peft finds have one."""
  peft = import_or_skip('peft')
  model, config = ours
  lora = LoraConfig(rank=2)
  adapters = random_adapters(config, lora, scale=0.05)
  adapter_folder.save(adapters, config, lora, tmp_path, 'ORG/NAME', '')
  base = logits(model, TOKENS_BL)
  graphdef, _ = decoder.abstract(config, lora)
  params = lora_lib.join(model.params, jax.tree.map(jnp.asarray, adapters))
  found = logits(pretrained.Model(graphdef, params), TOKENS_BL)
  with torch.no_grad():
    adapted = peft.PeftModel.from_pretrained(theirs, tmp_path).eval()
    expected = adapted(torch.asarray(TOKENS_BL)).logits.numpy()
  scale = np.abs(expected).max()
  np.testing.assert_allclose(found, expected, atol=1e-5 * scale)
  assert np.abs(found - base).max() > 1e-3 * scale


# ------------------------------------------------- no attribute is ignored


def changes_of(content, path=()):
  """Yields (path, value) for each attribute: removed, off, and another."""
  for name, value in content.items():
    at = (*path, name)
    if isinstance(value, dict):
      yield from changes_of(value, at)
      continue
    yield at, ...  # removed
    yield at, None
    if isinstance(value, bool):
      yield at, not value
    elif isinstance(value, int | float):
      yield at, value * 2 if value else 3
    elif isinstance(value, list) and value:
      yield at, value[::-1]
      yield at, value[:1] * len(value)
    elif isinstance(value, str):
      yield at, 'gelu_new'


def changed(content, path, value):
  """A copy of a config.json with one attribute changed."""
  content = json.loads(json.dumps(content))
  holder = content
  for name in path[:-1]:
    holder = holder[name]
  if value is ...:
    del holder[path[-1]]
  else:
    holder[path[-1]] = value
  return content


# Sizes change the shapes of tensors, which is an error of its own. Names of
# data types and classes are not of the decoder.
LEFT_OUT = {
  *('vocab_size', 'hidden_size', 'num_hidden_layers', 'num_attention_heads'),
  *('intermediate_size', 'head_dim', 'num_key_value_heads', 'model_type'),
  *('architectures', 'dtype', 'transformers_version', 'num_experts'),
  *('moe_intermediate_size', 'tie_word_embeddings', 'bos_token_id'),
  *('eos_token_id', 'pad_token_id', 'use_cache', 'attention_dropout'),
}


def test_what_an_attribute_changes_is_refused_or_done(folder, tmp_path):
  """A changed config.json gives transformers' logits, or an error."""
  content = json.loads((folder / 'config.json').read_text())
  tensors = safetensors.numpy.load_file(folder / 'model.safetensors')
  safetensors.numpy.save_file(
    tensors, tmp_path / 'model.safetensors', metadata={'format': 'pt'}
  )
  compared, refused = [], []
  for path, value in changes_of(content):
    if path[-1] in LEFT_OUT:
      continue
    what = ('/'.join(path), value)
    found = changed(content, path, value)
    (tmp_path / 'config.json').write_text(json.dumps(found))
    try:
      model, _ = pretrained.load(tmp_path)
    except ValueError:
      refused.append(what)
      continue
    try:
      theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    except Exception:  # of its checks of types
      continue
    with torch.no_grad():
      expected = theirs(torch.asarray(TOKENS_BL)).logits.numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
      logits(model, TOKENS_BL), expected, atol=1e-5 * scale, err_msg=str(what)
    )
    compared.append(what)
  # Neither way is all that happens.
  assert compared and refused


@pytest.mark.parametrize('name', families.FAMILIES)
def test_what_a_file_leaves_out_is_what_transformers_takes(name):
  """Of the attributes that their config classes fill in."""
  family = families.FAMILIES[name]
  config = transformers.AutoConfig.for_model(name)
  for attribute, value in family.defaults.items():
    assert getattr(config, attribute) == value, attribute
  # Without a default here, they follow from other sizes.
  heads = config.num_attention_heads
  if 'num_key_value_heads' not in family.defaults:
    assert config.num_key_value_heads == heads
  if 'head_dim' not in family.defaults:
    share = config.hidden_size // heads
    assert getattr(config, 'head_dim', None) in (None, share)
  tied = family.defaults.get('tie_word_embeddings', False)
  assert config.tie_word_embeddings == tied
  rope = config.rope_parameters
  full = rope.get('full_attention', rope)
  assert full['rope_theta'] == family.theta
  if family.window_theta is None:
    assert full is rope
  else:
    assert rope['sliding_attention']['rope_theta'] == family.window_theta


# --------------------------------------------------------------- another family


def test_another_row_changes_no_familys_files(monkeypatch):
  """Even if it has the fields of an old one."""
  before = {
    name: config_json.to_json(ModelConfig(**family.fields, head_size=32))
    for name, family in families.FAMILIES.items()
    if name in ('llama', 'qwen2', 'qwen3')
  }
  for old in list(before):
    copy = families.FAMILIES[old]
    monkeypatch.setitem(families.FAMILIES, f'new_{old}', copy)
  for name, content in before.items():
    fields = families.FAMILIES[name].fields
    again = config_json.to_json(ModelConfig(**fields, head_size=32))
    assert again == content
    assert content['model_type'] == name


def test_a_family_is_added_as_one_row(monkeypatch, tmp_path):
  """The recipe of docs/models.md, with Gemma 1, which is not here."""
  gemma = families.Family(
    'GemmaForCausalLM',
    fixed={'norm_plus_one': True, 'activation': 'gelu_tanh'},
    derived=lambda config: {'embedding_scale': config.width**0.5},
    constants={'hidden_act': 'gelu_pytorch_tanh'},
    defaults={
      'num_key_value_heads': 16,
      'head_dim': 256,
      'tie_word_embeddings': True,
    },
  )
  torch.manual_seed(0)
  theirs = transformers.GemmaForCausalLM(
    transformers.GemmaConfig(
      vocab_size=96,
      hidden_size=32,
      intermediate_size=48,
      num_hidden_layers=2,
      num_attention_heads=4,
      num_key_value_heads=1,
      head_dim=16,
    )
  ).eval()
  theirs.save_pretrained(tmp_path / 'theirs')
  with pytest.raises(ValueError, match="model_type='gemma' is not supported"):
    pretrained.load(tmp_path / 'theirs')

  monkeypatch.setitem(families.FAMILIES, 'gemma', gemma)
  model, config = pretrained.load(tmp_path / 'theirs')
  with torch.no_grad():
    expected = theirs(torch.asarray(TOKENS_BL)).logits.numpy()
  np.testing.assert_allclose(logits(model, TOKENS_BL), expected, atol=1e-5)
  pretrained.save(model, config, tmp_path / 'ours')
  assert config_json.to_json(config)['model_type'] == 'gemma'
  assert pretrained.load(tmp_path / 'ours')[1] == config
