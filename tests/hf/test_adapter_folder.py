"""Adapters in peft's folders: names, exact round trips, refusals.

tests/hf/test_peft.py compares them with peft itself.
"""

import json
import os
import shutil
import struct

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict

from isft_jax.config import ALL_LINEAR, LORA_TARGETS, LoraConfig, ModelConfig
from isft_jax.hf import adapter_folder
from isft_jax.models import decoder
from tests.damaged_files import DEEP, ODD, POINTER, TEXTS
from tests.hf.adapters import random_adapters
from tests.hf.damaged_folders import damaged_weights, flaw_of

# No two of width, heads x head size, key heads x head size and MLP are equal.
MODEL = ModelConfig(
  vocab_size=64,
  width=12,
  layers=2,
  heads=2,
  kv_heads=1,
  head_size=8,
  mlp_width=24,
)
LORA = LoraConfig(rank=3, alpha=6.0)
SHA256 = '4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393'
CONFIG, WEIGHTS = adapter_folder.CONFIG, adapter_folder.WEIGHTS


def save(folder, lora=LORA, seed=0):
  """Writes random adapters into a new folder, and returns them."""
  folder.mkdir()
  adapters = random_adapters(MODEL, lora, seed)
  adapter_folder.save(adapters, MODEL, lora, folder, 'ORG/NAME', SHA256)
  return adapters


def read(folder, model=MODEL, sha256=SHA256):
  """Returns what isft-train starts from: the settings, then the arrays."""
  lora = adapter_folder.read_config(folder)
  return lora, adapter_folder.load(folder, model, lora, sha256)


def as_lines(folder):
  """Returns an adapter in a form that == compares, without its folder."""
  lora, adapters = read(folder)
  leaves = flatten_dict(adapters, sep='/')
  return [
    repr(lora).replace(str(folder), ''),
    *(f'{path} {leaves[path].tobytes().hex()}' for path in sorted(leaves)),
  ]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('adapter') / 'a'
  save(path)
  return path


@pytest.fixture
def copy(folder, tmp_path):
  return shutil.copytree(folder, tmp_path / 'copy')


@pytest.fixture(scope='module', autouse=True)
def quick_shapes():
  """Tracing the decoder takes most of the time, and its shapes repeat."""
  known: dict = {}
  trace = decoder.abstract

  def abstract(config, lora):
    if repr((config, lora.rank, lora.maps)) not in known:
      known[repr((config, lora.rank, lora.maps))] = trace(config, lora)
    return known[repr((config, lora.rank, lora.maps))]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(decoder, 'abstract', abstract)
    yield


# -------------------------------------------------------------- what is written

LAYER = 'base_model.model.model.layers.{}.'
SHAPES = [
  # map                lora_A [rank, in]  lora_B [out, rank]
  ('self_attn.q_proj', (3, 12), (16, 3)),
  ('self_attn.k_proj', (3, 12), (8, 3)),
  ('self_attn.v_proj', (3, 12), (8, 3)),
  ('self_attn.o_proj', (3, 16), (12, 3)),
  ('mlp.gate_proj', (3, 12), (24, 3)),
  ('mlp.up_proj', (3, 12), (24, 3)),
  ('mlp.down_proj', (3, 24), (12, 3)),
]


def test_tensors_have_the_names_and_shapes_of_peft(folder):
  stored = safetensors.numpy.load_file(folder / WEIGHTS)
  assert {name: tensor.shape for name, tensor in stored.items()} == {
    f'{LAYER.format(layer)}{name}.{matrix}.weight': shape
    for name, *shapes in SHAPES
    for matrix, shape in zip(('lora_A', 'lora_B'), shapes, strict=True)
    for layer in range(2)
  }
  assert {tensor.dtype for tensor in stored.values()} == {np.dtype('float32')}


def test_rows_and_columns_are_those_of_peft(folder):
  """Heads are outside and their size is inside, and peft stores [out, in]."""
  stored = safetensors.numpy.load_file(folder / WEIGHTS)
  blocks = random_adapters(MODEL, LORA)['blocks']

  def tensor(layer, name):
    return stored[f'{LAYER.format(layer)}{name}.weight']

  H, A, r = range(2), range(8), range(3)
  for layer in range(2):
    q_a, q_b, o_a, o_b = (
      blocks['attention'][f'{name}_lora_{end}'][layer]
      for name in 'qo'
      for end in 'ab'
    )
    for j in r:
      for h in H:
        for a in A:
          row = h * 8 + a
          assert (
            tensor(layer, 'self_attn.q_proj.lora_B')[row, j] == q_b[j, h, a]
          )
          assert (
            tensor(layer, 'self_attn.o_proj.lora_A')[j, row] == o_a[h, a, j]
          )
    for name, array in (('q_proj.lora_A', q_a), ('o_proj.lora_B', o_b)):
      np.testing.assert_array_equal(tensor(layer, f'self_attn.{name}'), array.T)


def test_the_metadata_has_the_digest_of_the_base(folder):
  with safetensors.safe_open(folder / WEIGHTS, 'np') as stored:
    assert stored.metadata() == {
      'format': 'pt',
      'isft_jax.base_sha256': SHA256,
    }


@pytest.mark.parametrize(
  ('settings', 'written'),
  [
    ({'rank': 3}, {'r': 3, 'lora_alpha': 6}),
    ({'rank': 4, 'alpha': 16.0}, {'r': 4, 'lora_alpha': 16}),
    ({'rank': 2, 'alpha': 0.5}, {'r': 2, 'lora_alpha': 0.5}),
    ({'rank': 4, 'rslora': True}, {'r': 4, 'use_rslora': True}),
    (
      {'rank': 1, 'targets': ('v_proj', 'q_proj')},
      {'r': 1, 'lora_alpha': 2, 'target_modules': ['q_proj', 'v_proj']},
    ),
  ],
)
def test_the_config_has_exactly_these_keys(settings, written, tmp_path):
  save(tmp_path / 'a', LoraConfig(**settings))
  assert json.loads((tmp_path / 'a' / CONFIG).read_text()) == {
    'peft_type': 'LORA',
    'task_type': 'CAUSAL_LM',
    'base_model_name_or_path': 'ORG/NAME',
    'lora_alpha': 8,
    'target_modules': list(LORA_TARGETS),
    'use_rslora': False,
    'lora_dropout': 0.0,
    'bias': 'none',
    'fan_in_fan_out': False,
    'inference_mode': True,
    **written,
  }


def test_files_follow_the_umask(tmp_path):
  before = os.umask(0o027)
  try:
    save(tmp_path / 'a')
  finally:
    os.umask(before)
  modes = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / 'a').iterdir()}
  assert modes == {CONFIG: 0o640, WEIGHTS: 0o640}


# ------------------------------------------------------------- and what is read


@pytest.mark.parametrize(
  'targets',
  [
    (ALL_LINEAR,),
    *((name,) for name in LORA_TARGETS),
    ('q_proj', 'v_proj'),
    ('k_proj', 'o_proj', 'down_proj'),
    ('gate_proj', 'up_proj', 'down_proj'),
    LORA_TARGETS[:-1],
  ],
  ids=','.join,
)
@pytest.mark.parametrize('rslora', [False, True])
def test_what_is_written_is_read_bit_for_bit(targets, rslora, tmp_path):
  path = tmp_path / 'a'
  lora = LoraConfig(rank=3, alpha=5.5, targets=targets, rslora=rslora)
  adapters = save(path, lora)
  read_lora, read_adapters = read(path)
  assert read_lora == LoraConfig(
    rank=3, alpha=5.5, targets=targets, rslora=rslora, init_from=str(path)
  )
  assert (read_lora.maps, read_lora.scale) == (lora.maps, lora.scale)
  jax.tree.map(np.testing.assert_array_equal, read_adapters, adapters)
  assert {x.dtype for x in jax.tree.leaves(read_adapters)} == {np.dtype('f4')}


def test_all_names_together_are_all_linear(tmp_path):
  adapters = save(tmp_path / 'a', LoraConfig(rank=3, targets=LORA_TARGETS))
  lora, read_adapters = read(tmp_path / 'a')
  # An alpha of 0 stands for twice the rank, and peft has no such 0.
  assert (lora.targets, lora.alpha) == ((ALL_LINEAR,), 6.0)
  jax.tree.map(np.testing.assert_array_equal, read_adapters, adapters)


def rewrite(folder, change=lambda tensors: tensors, metadata=None):
  """Changes the tensors of a folder, and its metadata."""
  with safetensors.safe_open(folder / WEIGHTS, 'np') as stored:
    metadata = stored.metadata() if metadata is None else metadata
  tensors = change(safetensors.numpy.load_file(folder / WEIGHTS))
  safetensors.numpy.save_file(tensors, folder / WEIGHTS, metadata)


@pytest.mark.parametrize('dtype', ['float64', 'float16', ml_dtypes.bfloat16])
def test_other_float_types_are_read_as_float32(dtype, copy):
  rewrite(copy, lambda t: {name: x.astype(dtype) for name, x in t.items()})
  jax.tree.map(
    lambda read, x: np.testing.assert_array_equal(
      read, x.astype(dtype).astype(np.float32), strict=True
    ),
    read(copy)[1],
    random_adapters(MODEL, LORA),
  )


def config_with(**changes):
  def change(folder):
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))

  return change


Q = LAYER.format(0) + 'self_attn.q_proj'
# Settings of peft that are read as the same adapter.
SAME = [
  {'target_modules': [f'self_attn.{name}' for name in LORA_TARGETS]},
  {'target_modules': [*reversed(LORA_TARGETS)]},
  {'target_modules': 'all-linear'},
  {
    'target_modules': [
      f'model.layers.{layer}.{name}'
      for layer in range(2)
      for name, *_ in SHAPES
    ]
  },
  {'lora_alpha': 6.0},
  {'lora_dropout': 0.05},  # of its training until here
  {'init_lora_weights': True, 'loftq_config': {}, 'use_rslora': None},
  {'init_lora_weights': 'gaussian', 'rank_pattern': {}, 'alpha_pattern': {}},
  {'init_lora_weights': 'eva', 'eva_config': {'rho': 2.0, 'tau': 0.99}},
  {'peft_version': '0.21.2', 'revision': 'main', 'auto_mapping': {'a': 'b'}},
  {'a_setting_of_the_next_version': None, 'another': False},
]


@pytest.mark.parametrize('changes', SAME, ids=str)
def test_settings_that_change_nothing_are_accepted(changes, folder, copy):
  config_with(**changes)(copy)
  assert as_lines(copy) == as_lines(folder)


@pytest.mark.parametrize('sha256', [SHA256, ''])
@pytest.mark.parametrize('metadata', [{}, {'isft_jax.base_sha256': SHA256}])
def test_an_adapter_of_peft_has_no_digest_to_compare(sha256, metadata, copy):
  rewrite(copy, metadata={'format': 'pt', **metadata})
  read(copy, sha256=sha256)


# -------------------------------------------------------------- what is refused


def config_without(*names):
  def change(folder):
    content = json.loads((folder / CONFIG).read_text())
    for name in names:
      del content[name]
    (folder / CONFIG).write_text(json.dumps(content))

  return change


def content_of(name, data):
  return lambda folder: (folder / name).write_bytes(data)


def without(name):
  return lambda folder: (folder / name).unlink()


def tensors_with(**changes):
  """Replaces tensors of layer 0's q_proj, or removes those that are None."""

  def change(folder):
    def changed(tensors):
      tensors |= {f'{Q}.{name}.weight': x for name, x in changes.items()}
      return {name: x for name, x in tensors.items() if x is not None}

    rewrite(folder, changed)

  return change


def renamed(old, new):
  return lambda folder: rewrite(
    folder, lambda t: {name.replace(old, new): x for name, x in t.items()}
  )


def cut(folder):
  data = (folder / WEIGHTS).read_bytes()
  (folder / WEIGHTS).write_bytes(data[: len(data) // 2])


def typed(name):
  """Gives float32 tensors another type of 4 bytes."""

  def change(folder):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data.replace(b'"F32"', f'"{name}"'.encode()))

  return change


def as_bin(folder):
  (folder / WEIGHTS).rename(folder / 'adapter_model.bin')


def filled(value, shape=(3, 12), dtype='float32'):
  x = np.ones(shape, dtype)
  x[-1, -1] = value
  return x


def digest(text):
  return lambda folder: rewrite(folder, metadata={'isft_jax.base_sha256': text})


# What was done to the folder -> file and message of the refusal.
REFUSED = [
  # the rank and alpha
  (config_with(r=0), rf'{CONFIG}: r must be a number above 0, .*\(got 0\)'),
  (config_with(r=-4), r'r must be a number above 0, .*\(got -4\)'),
  (config_with(r=2.5), r'r must be a whole number \(got 2.5\)'),
  (config_with(r=True), r'r must be a number above 0, .*\(got True\)'),
  (config_with(r='3'), r"r must be a number above 0, .*\(got '3'\)"),
  (config_with(r=None), r'r must be a number above 0, .*\(got None\)'),
  (config_with(r=[3]), r'r must be a number above 0, .*\(got \[3\]\)'),
  (config_with(r=10**400), r'r must be a number .*\(got 1000'),
  (config_with(r=float('nan')), r'r must be a number above 0, .*\(got nan\)'),
  (config_with(r=float('inf')), r'r must be a number .*\(got inf\)'),
  (config_with(r=999_999), r'lora_A.* has shape \[3, 12\], but .*999999'),
  (config_with(r=4), r'has shape \[3, 12\], but .* give \[4, 12\]'),
  (config_without('r'), r'r must be a number above 0, .*\(got None\)'),
  (
    config_with(lora_alpha=0),
    r'lora_alpha must be a number above 0, .*\(got 0\)',
  ),
  (config_with(lora_alpha=-1.0), r'lora_alpha must be a number above 0'),
  (config_with(lora_alpha='16'), r"lora_alpha must be .*\(got '16'\)"),
  (config_with(lora_alpha=True), r'lora_alpha must be .*\(got True\)'),
  (config_with(lora_alpha=-(10**400)), r'lora_alpha must be .*\(got -1000'),
  (config_without('lora_alpha'), r'lora_alpha must be .*\(got None\)'),
  (config_with(use_rslora='no'), r"use_rslora must be true or .*got 'no'"),
  (config_with(use_rslora=1), r'use_rslora must be true or false \(got 1\)'),
  # targets
  (config_with(target_modules=['lm_head']), 'has lm_head, and must be of q_'),
  (config_with(target_modules=['q_proj', 'embed_tokens']), 'has embed_tokens'),
  (config_with(target_modules=['q_proj', 'c_attn']), 'has c_attn, and must be'),
  (config_with(target_modules=['q_proj', None]), 'has None, and must be of'),
  (
    config_with(target_modules=['q_proj', ['v_proj']]),
    r"has \['v_proj'\], and",
  ),
  (config_with(target_modules=['a\nb']), r"has 'a\\nb', and must be of q_proj"),
  (config_with(target_modules='.*q_proj'), r"a list of .*got '\.\*q_proj'\)"),
  (config_with(target_modules='q_proj'), r"must be a list of .*got 'q_proj'\)"),
  (config_with(target_modules=[]), r'must be a list of names .*got \[\]\)'),
  (config_with(target_modules=None), r'must be a list of names .*got None\)'),
  (
    config_with(target_modules={'q_proj': 1}),
    'must be a list of names .*got {',
  ),
  (config_without('target_modules'), 'target_modules must be a list of names'),
  (
    config_with(target_modules=['model.layers.0.self_attn.q_proj']),
    f'{WEIGHTS}: 24 tensors are unknown .* 2 layers; the first is base_model',
  ),
  (config_with(exclude_modules=['q_proj']), r'exclude_modules is \['),
  # settings that our adapters lack
  (config_with(peft_type='IA3'), r"peft_type must be 'LORA' \(got 'IA3'\)"),
  (config_with(peft_type=['LORA']), r"must be 'LORA' \(got \['LORA'\]\)"),
  (config_without('peft_type'), r"peft_type must be 'LORA' \(got None\)"),
  (config_with(bias='all'), r"bias must be 'none' \(got 'all'\)"),
  (config_with(bias='lora_only'), r"bias must be 'none' \(got 'lora_only'\)"),
  (config_with(bias=None), r"bias must be 'none' \(got None\)"),
  (config_with(lora_bias=True), 'lora_bias is True, which is not supported'),
  (config_with(use_dora=True), 'use_dora is True, which is not supported'),
  (config_with(use_qalora=True), 'use_qalora is True, which is not supported'),
  (config_with(fan_in_fan_out=True), 'fan_in_fan_out is True, which is not'),
  (config_with(modules_to_save=['lm_head']), r"modules_to_save is \['lm_head'"),
  (config_with(rank_pattern={'q_proj': 8}), "rank_pattern is {'q_proj': 8}"),
  (config_with(alpha_pattern={'q_proj': 8}), "alpha_pattern is {'q_proj': 8}"),
  (
    config_with(layers_to_transform=[0]),
    r'layers_to_transform is \[0\], which',
  ),
  (
    config_with(layers_to_transform=0),
    'layers_to_transform is 0, which is not',
  ),
  (config_with(layer_replication=[[0, 2]]), r'layer_replication is \[\[0, 2'),
  (config_with(target_parameters=['x']), r"target_parameters is \['x'\]"),
  (config_with(trainable_token_indices=[1]), r'token_indices is \[1\], which'),
  (config_with(alora_invocation_tokens=[1]), r'invocation_tokens is \[1\]'),
  (
    config_with(init_lora_weights='pissa'),
    "weights='pissa' changes the weight",
  ),
  (
    config_with(init_lora_weights='pissa_niter_16'),
    "='pissa_niter_16' changes",
  ),
  (config_with(init_lora_weights='olora'), "='olora' changes the weights"),
  (config_with(init_lora_weights='loftq'), "='loftq' changes the weights"),
  (config_with(init_lora_weights='corda'), "='corda' changes the weights"),
  (config_with(**{'a\x1b[31m': 1}), r"'a\\x1b\[31m' is 1, which is not"),
  # the file of settings
  (without(CONFIG), f'no {CONFIG} there; name an adapter of peft'),
  (content_of(CONFIG, b'{"r": 3'), f'{CONFIG}: not JSON'),
  (content_of(CONFIG, b'[1]'), rf'{CONFIG}: must be a JSON object.*\[1\]'),
  (content_of(CONFIG, b''), f'{CONFIG}: the file is empty'),
  (content_of(CONFIG, POINTER), f'{CONFIG}: a git-lfs pointer'),
  (content_of(CONFIG, TEXTS['deep']), f'{CONFIG}: nested too deeply'),
  (content_of(CONFIG, TEXTS['digits']), f'{CONFIG}: a number in it has too'),
  # the names of tensors
  (
    tensors_with(lora_A=None),
    f'{WEIGHTS}: 1 tensors are missing .*_proj.lora_A',
  ),
  (tensors_with(lora_B=None), f'1 tensors are missing .* is {Q}.lora_B.weight'),
  (
    tensors_with(lora_C=filled(1)),
    f'1 tensors are unknown .* {Q}.lora_C.weigh',
  ),
  (tensors_with(**{'a\nb': filled(1)}), r"unknown .* 'base_model.*a\\nb"),
  (renamed('lora_A.', 'lora_A.default.'), 'unknown .*lora_A.default.weight'),
  (
    renamed('base_model.model.', ''),
    '28 tensors are unknown .* is model.layer',
  ),
  (renamed('layers.1', 'layers.7'), '14 tensors are unknown .*layers.7'),
  # and their values
  (tensors_with(lora_A=filled(1, (12, 3))), r'shape \[12, 3\], .* \[3, 12\]'),
  (
    tensors_with(lora_B=filled(1, (8, 3))),
    r'shape \[8, 3\], .* give \[16, 3\]',
  ),
  (
    tensors_with(lora_A=np.ones((36,), 'f4')),
    r'lora_A.weight has shape \[36\]',
  ),
  (tensors_with(lora_A=np.ones((), 'f4')), r'lora_A.weight has shape \[\]'),
  (tensors_with(lora_A=filled(np.nan)), f'{Q}.lora_A.weight is not finite'),
  (tensors_with(lora_A=filled(-np.inf)), f'{Q}.lora_A.weight is not finite'),
  (tensors_with(lora_A=filled(np.nan, dtype='f2')), 'lora_A.weight is not fin'),
  (tensors_with(lora_A=filled(1e300, dtype='f8')), 'lora_A.weight is not fini'),
  (
    tensors_with(lora_A=filled(1, dtype='i4')),
    'the type of .*lora_A.*got I32',
  ),
  (
    tensors_with(lora_A=filled(1, dtype='?')),
    'the type of .*lora_A.*got BOOL',
  ),
  (typed('U32'), f'{WEIGHTS}: the type of .* must be one of F64, .*got U32'),
  # the file of weights
  (without(WEIGHTS), f'no {WEIGHTS} there .other formats run code'),
  (as_bin, f'no {WEIGHTS} there .other formats run code as they load'),
  (content_of(WEIGHTS, POINTER), f'{WEIGHTS}: a git-lfs pointer'),
  (content_of(WEIGHTS, b''), f'{WEIGHTS}: the file is empty'),
  (content_of(WEIGHTS, bytes(100)), f'{WEIGHTS}: cut off or damaged'),
  (cut, f'{WEIGHTS}: cut off or damaged .*; download it again'),
  # the base
  (digest('0' * 64), 'the checksum 000000000000, .* has 4d7a214614ab; name'),
  (digest('a\nb\x1b'), r"the checksum 'a\\nb\\x1b', and this base"),
]


@pytest.mark.parametrize(
  ('change', 'message'), REFUSED, ids=[message for _, message in REFUSED]
)
def test_what_is_wrong_is_named(change, message, copy):
  change(copy)
  with pytest.raises(ValueError, match=message) as failure:
    read(copy)
  assert flaw_of(failure.value, str(copy)) == ''


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      {'layers': 1},
      '14 tensors are unknown for this base of 1 layers; the fir',
    ),
    (
      {'layers': 3},
      '14 tensors are missing for this base of 3 layers; the fir',
    ),
    ({'width': 16}, r'lora_A.weight has shape \[3, 12\], .* give \[3, 16\]'),
    ({'mlp_width': 32}, r'down_proj.lora_A.* \[3, 24\], .* give \[3, 32\]'),
    ({'kv_heads': 2}, r'k_proj.lora_B.weight has shape \[8, 3\], .* \[16, 3\]'),
  ],
)
def test_a_base_of_another_shape_is_refused(changes, message, folder):
  model = ModelConfig(**{**vars(MODEL), **changes})
  with pytest.raises(ValueError, match=f'{WEIGHTS}: .*{message}') as failure:
    read(folder, model)
  assert flaw_of(failure.value, str(folder)) == ''


# What peft 0.21 writes, with the values of an adapter of this file.
FULL = {
  **dict.fromkeys(
    ('alora_invocation_tokens', 'arrow_config', 'auto_mapping', 'corda_config')
  ),
  **dict.fromkeys(('eva_config', 'exclude_modules', 'kasa_config', 'revision')),
  **dict.fromkeys(('layer_replication', 'layers_pattern', 'lora_ga_config')),
  **dict.fromkeys(('layers_to_transform', 'megatron_config', 'use_bdlora')),
  **dict.fromkeys(('modules_to_save', 'monteclora_config', 'velora_config')),
  **dict.fromkeys(('target_parameters', 'trainable_token_indices')),
  **dict.fromkeys(
    ('ensure_weight_tying', 'fan_in_fan_out', 'lora_bias'), False
  ),
  **dict.fromkeys(('use_dora', 'use_qalora', 'use_rslora'), False),
  'alpha_pattern': {},
  'base_model_name_or_path': 'ORG/NAME',
  'bias': 'none',
  'inference_mode': True,
  'init_lora_weights': True,
  'loftq_config': {},
  'lora_alpha': 6,
  'lora_dropout': 0.0,
  'megatron_core': 'megatron.core',
  'peft_type': 'LORA',
  'peft_version': '0.21.2',
  'qalora_group_size': 16,
  'r': 3,
  'rank_pattern': {},
  'target_modules': ['v_proj', 'k_proj', 'q_proj', 'down_proj', 'gate_proj']
  + ['up_proj', 'o_proj'],
  'task_type': 'CAUSAL_LM',
}


@pytest.mark.parametrize('key', [*FULL, 'a_new_setting'])
def test_an_odd_setting_is_refused_or_changes_nothing(key, folder, copy):
  expected = as_lines(folder)
  flaws, outcomes = [], []
  odd = (*ODD, DEEP, 'missing', FULL.get(key))
  for value in odd:
    content = FULL | {key: value}
    if value == 'missing':
      del content[key]
    text = json.dumps(content)
    text = text.replace(f'"{DEEP}"', '[' * 3000 + ']' * 3000)
    (copy / CONFIG).write_text(text)
    try:
      lines = as_lines(copy)
      # The two settings that describe another adapter of the same shapes.
      is_number = type(value) in (int, float) and key == 'lora_alpha'
      if is_number or (type(value) is bool and key == 'use_rslora'):
        lines[0] = expected[0]
      flaw = '' if lines == expected else 'is read as another adapter'
      outcomes.append('read')
    except BaseException as error:  # panics of Rust are no Exceptions
      flaw = flaw_of(error, str(copy))
      outcomes.append('refused')
    if flaw:
      flaws.append(f'{value!r:.40}: {flaw}')
  assert not flaws, '\n'.join(flaws)
  assert outcomes[-1] == 'read'
  # Any text may be a name, a version or a note of a feature that is off.
  notes = ('auto_mapping', 'base_model_name_or_path', 'inference_mode')
  notes += ('lora_dropout', 'megatron_core', 'peft_version', 'revision')
  notes += ('qalora_group_size', 'task_type', 'eva_config')
  least = 1 if key in notes else len(odd) // 2
  assert outcomes.count('refused') >= least, outcomes


@pytest.mark.parametrize('block', range(4))
def test_damaged_weights_are_read_as_before_or_refused(block, folder, copy):
  expected = as_lines(folder)
  whole = (folder / WEIGHTS).read_bytes()
  flaws, refusals = [], 0
  for seed in range(50 * block, 50 * block + 50):
    what, data = damaged_weights(whole, np.random.default_rng(seed))
    (copy / WEIGHTS).write_bytes(data)
    flaw = ''
    try:
      if as_lines(copy) != expected:
        flaw = 'is read as another adapter'
    except BaseException as error:
      refusals += 1
      flaw = flaw_of(error, str(copy))
    if flaw:
      flaws.append(f'seed {seed}: {what!a:.80}: {flaw}')
  assert not flaws, '\n'.join(flaws)
  assert refusals > 25


def test_a_large_rank_allocates_nothing(copy):
  """A rank that no tensor has is refused before there is memory for it."""
  config_with(r=999_999)(copy)
  lora = adapter_folder.read_config(copy)
  model = ModelConfig(**{**vars(MODEL), 'width': 10**6})  # 4 TB for each layer
  with pytest.raises(ValueError, match='has shape'):
    adapter_folder.load(copy, model, lora, SHA256)


def test_a_name_that_is_stored_twice_is_refused(copy):
  data = (copy / WEIGHTS).read_bytes()
  (length,) = struct.unpack('<Q', data[:8])
  header = data[8 : 8 + length].rstrip()
  first = f'{LAYER.format(0)}mlp.up_proj.lora_A.weight'.encode()
  second = first.replace(b'layers.0', b'layers.1')
  assert header.count(first) == header.count(second) == 1
  header = header.replace(second, first)
  new = struct.pack('<Q', len(header)) + header + data[8 + length :]
  (copy / WEIGHTS).write_bytes(new)
  with pytest.raises(ValueError, match=WEIGHTS) as failure:
    read(copy)
  assert flaw_of(failure.value, str(copy)) == ''
