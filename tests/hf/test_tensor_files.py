"""What is read of a folder of weights, how much at a time, and from where."""

import dataclasses
import json
import tracemalloc

import huggingface_hub
import jax
import numpy as np
import pytest
import safetensors.numpy
from flax.traverse_util import flatten_dict

from isft_jax.config import MeshConfig, ModelConfig
from isft_jax.hf import pretrained, tensor_files, tensor_names
from isft_jax.models import decoder, experts
from isft_jax.sharding import make_mesh, shardings

CONFIG = ModelConfig(
  vocab_size=96,
  width=32,
  layers=3,
  heads=4,
  kv_heads=2,
  head_size=8,
  mlp_width=48,
  tie_embeddings=False,
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A random model whose biases and norms are random too."""
  path = tmp_path_factory.mktemp('model')
  graphdef, shapes = decoder.abstract(CONFIG)
  leaves, tree = jax.tree.flatten(shapes)
  draw = np.random.default_rng(0).standard_normal
  params = tree.unflatten(
    [jax.numpy.asarray(draw(leaf.shape), leaf.dtype) for leaf in leaves]
  )
  pretrained.save(
    pretrained.Model(graphdef, params), CONFIG, path, shard_bytes=40_000
  )
  return path


def places(mesh: MeshConfig):
  """The shardings of CONFIG's parameters on a mesh, by path."""
  _, shapes = decoder.abstract(CONFIG)
  tree = shardings(shapes, decoder.PARTITION_RULES, make_mesh(mesh))
  return lambda path, shape: flatten_dict(tree, sep='/')[path]


@pytest.fixture
def read(monkeypatch):
  """Counts the values that are asked of each tensor."""
  counts = {}
  plain = tensor_files.Tensors.part

  def part(self, name, path, shape, index, dtype):
    found = plain(self, name, path, shape, index, dtype)
    counts.setdefault(name, []).append(found.size)
    return found

  monkeypatch.setattr(tensor_files.Tensors, 'part', part)
  return counts


def test_the_index_tells_every_tensor_and_all_bytes(folder):
  index = json.loads((folder / tensor_files.INDEX).read_text())
  files = sorted(set(index['weight_map'].values()))
  last = len(files)
  assert last > 2
  assert files == [
    f'model-{n:05}-of-{last:05}.safetensors' for n in range(1, last + 1)
  ]
  stored = {
    name: (file, tensor.nbytes)
    for file in files
    for name, tensor in safetensors.numpy.load_file(folder / file).items()
  }
  assert index['weight_map'] == {n: file for n, (file, _) in stored.items()}
  assert index['metadata']['total_size'] == sum(b for _, b in stored.values())


@pytest.mark.parametrize(
  'mesh', [(1, 8, 1), (2, 2, 2), (1, 4, 2), (8, 1, 1)], ids=str
)
def test_shards_hold_what_one_device_would(folder, mesh, read):
  whole, _ = pretrained.load(folder)
  read.clear()
  place = places(MeshConfig(*mesh))
  model, _ = pretrained.load(folder, place=place)
  for path, leaf in flatten_dict(model.params, sep='/').items():
    assert leaf.sharding.is_equivalent_to(place(path, leaf.shape), leaf.ndim)
  jax.tree.map(np.testing.assert_array_equal, model.params, whole.params)
  # Replicas share what is read: nothing is read twice.
  sizes = {name: sum(parts) for name, parts in read.items()}
  assert sum(sizes.values()) == sum(x.size for x in jax.tree.leaves(whole[1]))


def test_a_part_is_what_slicing_the_whole_gives(folder):
  tensors = tensor_files.FolderTensors(folder)
  random = np.random.default_rng(1)
  _, shapes = decoder.abstract(CONFIG)
  for path, leaf in flatten_dict(shapes, sep='/').items():
    shape = leaf.shape[1:] if path.startswith('blocks/') else leaf.shape
    name = tensor_names.name(path, CONFIG)
    everything = tuple(slice(0, n) for n in shape)
    whole = tensors.part(name, path, shape, everything, np.float32)
    for _ in range(8):
      cuts = [sorted(random.choice(n + 1, 2, replace=False)) for n in shape]
      index = tuple(slice(*map(int, cut)) for cut in cuts)
      part = tensors.part(name, path, shape, index, np.float32)
      np.testing.assert_array_equal(part, whole[index], err_msg=path)


def test_the_host_holds_one_tensor_at_a_time(tmp_path, monkeypatch):
  """The largest is 4 MB of 21; of what is being read, a chunk is held twice."""
  config = ModelConfig(
    vocab_size=4096, width=256, layers=16, mlp_width=512, qkv_bias=False
  )
  graphdef, _ = decoder.abstract(config)
  params = decoder.init(config, jax.random.key(0))
  pretrained.save(pretrained.Model(graphdef, params), config, tmp_path)
  largest = max(
    leaf.nbytes // (config.layers if path.startswith('blocks/') else 1)
    for path, leaf in flatten_dict(params, sep='/').items()
  )
  total = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
  del params
  chunk = 2**16
  monkeypatch.setattr(tensor_files, 'CHUNK', chunk)
  pretrained.load(tmp_path)  # what is compiled and cached is not counted
  tracemalloc.start()
  pretrained.load(tmp_path)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert 4 * largest < total
  assert peak < largest + 3 * chunk + 2**20


# ------------------------------------------------------------ what is refused


def rewritten(folder, target, change):
  """A copy of a folder as one file, with its tensors changed."""
  stored = {}
  for path in sorted(folder.glob('*.safetensors')):
    stored |= safetensors.numpy.load_file(path)
  safetensors.numpy.save_file(change(stored), target / 'model.safetensors')
  found = json.loads((folder / 'config.json').read_text())
  (target / 'config.json').write_text(
    json.dumps({**found, 'tie_word_embeddings': True})
  )
  return target


def test_a_head_stored_beside_its_twin_must_be_equal(folder, tmp_path):
  twin = {'lm_head.weight', 'model.embed_tokens.weight'}

  def with_twin(tensors):
    return {**tensors, **dict.fromkeys(twin, tensors[min(twin)])}

  model, config = pretrained.load(rewritten(folder, tmp_path, with_twin))
  assert config.tie_embeddings
  assert 'head' not in model.params
  rewritten(folder, tmp_path, lambda tensors: tensors)
  with pytest.raises(ValueError, match='and the config ties them'):
    pretrained.load(tmp_path)


def test_a_file_that_the_index_misses_or_misplaces_is_named(folder, tmp_path):
  for path in folder.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  # Another set of weights beside it is no part of the model.
  (tmp_path / 'consolidated.safetensors').write_bytes(
    min(folder.glob('*.safetensors')).read_bytes()
  )
  pretrained.load(tmp_path)
  index = json.loads((tmp_path / tensor_files.INDEX).read_text())
  name = 'model.norm.weight'
  other = next(f for f in index['weight_map'].values())
  index['weight_map'][name] = other
  (tmp_path / tensor_files.INDEX).write_text(json.dumps(index))
  with pytest.raises(ValueError, match=f'{name} is not where'):
    pretrained.load(tmp_path)
  (tmp_path / other).unlink()
  with pytest.raises(ValueError, match=f'{other}: missing'):
    pretrained.load(tmp_path)


def test_types_are_given_by_name_or_by_jax(folder, tmp_path):
  model, config = pretrained.load(folder, dtype=jax.numpy.bfloat16)
  assert (config.dtype, config.param_dtype) == ('bfloat16', 'bfloat16')
  pretrained.save(model, config, tmp_path)
  found = json.loads((tmp_path / 'config.json').read_text())
  assert found['dtype'] == 'bfloat16'
  assert pretrained.load(tmp_path, dtype='bfloat16')[1] == config


# ------------------------------------------------------------------- the hub


def test_a_hub_id_brings_config_and_safetensors_alone(folder, monkeypatch):
  asked = {}

  def snapshot_download(place, **kwargs):
    asked.update(place=place, **kwargs)
    return str(folder)

  monkeypatch.setattr(huggingface_hub, 'snapshot_download', snapshot_download)
  _, config = pretrained.load('Qwen/Qwen2.5-0.5B')
  assert config.width == CONFIG.width
  assert asked['place'] == 'Qwen/Qwen2.5-0.5B'
  files = [
    'config.json',
    'generation_config.json',
    'model-00001-of-00002.safetensors',
    tensor_files.INDEX,
  ]
  others = ['modeling.py', 'pytorch_model.bin', 'original/model.safetensors']
  kept = huggingface_hub.utils.filter_repo_objects(
    files + others,
    allow_patterns=asked['allow_patterns'],
    ignore_patterns=asked['ignore_patterns'],
  )
  assert list(kept) == files


def test_a_hub_that_does_not_answer_is_one_line(monkeypatch):
  def snapshot_download(place, **kwargs):
    raise OSError('no network\nand a long story')

  monkeypatch.setattr(huggingface_hub, 'snapshot_download', snapshot_download)
  with pytest.raises(ValueError, match=r'nor/there: .* \(no network\)$'):
    pretrained.load('nor/there')


def test_a_mistaken_path_is_not_looked_for_on_the_hub(folder):
  with pytest.raises(ValueError, match=r'no \*.safetensors there'):
    pretrained.load(str(folder / 'nothing'))
  with pytest.raises(ValueError, match=r'no \*.safetensors there'):
    pretrained.load('tests/nothing')


EXPERTS = dataclasses.replace(
  CONFIG,
  layers=2,
  width=64,
  mlp_width=32,
  experts=4,
  experts_per_token=2,
  qkv_bias=False,
  qk_norm=True,
)


@pytest.fixture(scope='module')
def folder_of_experts(tmp_path_factory):
  path = tmp_path_factory.mktemp('experts')
  graphdef, _ = decoder.abstract(EXPERTS)
  params = decoder.init(EXPERTS, jax.random.key(0))
  pretrained.save(pretrained.Model(graphdef, params), EXPERTS, path)
  return path


def test_each_expert_is_a_tensor_and_comes_to_its_devices(folder_of_experts):
  names = tensor_files.FolderTensors(folder_of_experts).names()
  assert 'model.layers.1.mlp.experts.3.down_proj.weight' in names
  assert 'model.layers.1.mlp.gate.weight' in names
  mesh = make_mesh(MeshConfig(data=1, fsdp=2, expert=2, tensor=2))
  _, shapes = decoder.abstract(EXPERTS)
  tree = shardings(shapes, decoder.PARTITION_RULES, mesh)
  placed = flatten_dict(tree, sep='/')
  whole, _ = pretrained.load(folder_of_experts)
  split, _ = pretrained.load(
    folder_of_experts, place=lambda path, shape: placed[path]
  )
  jax.tree.map(np.testing.assert_array_equal, split.params, whole.params)
  gate = split.params['blocks']['experts']['gate']
  assert gate.addressable_shards[0].data.shape == (2, 2, 32, 16)


def test_experts_are_rounded_to_int8_one_by_one(folder_of_experts):
  whole, _ = pretrained.load(folder_of_experts)
  rounded, _ = pretrained.load(folder_of_experts, int8=True)
  for name in ('gate', 'up', 'down'):
    kernels = whole.params['blocks']['experts'][name]
    integers, scales = jax.vmap(experts.quantize_experts)(kernels)
    found = rounded.params['blocks']['experts']
    np.testing.assert_array_equal(found[name], integers)
    np.testing.assert_allclose(found[name + '_scale'], scales, rtol=1e-6)
