"""The real compiler for TPUs, on small runs: what it says, and how it refuses.

Large models are in tests/benchmarks/tpu_compile.py.
"""

import dataclasses
import math
import re

import jax
import pytest

from isft_jax import chips
from isft_jax.config import LoraConfig, MeshConfig, ModelConfig, RunConfig
from isft_jax.models import flops
from isft_jax.report import compile as report_lib
from isft_jax.tpu import compile as compile_lib
from isft_jax.tpu.compile import compile_run, lower_step
from isft_jax.train.trainer import make_trainer
from tests.fixtures import needs

pytestmark = needs('libtpu')

MODEL = ModelConfig(
  vocab_size=8_192,
  width=512,
  layers=3,
  heads=4,
  kv_heads=4,
  head_size=128,
  mlp_width=1_024,
  head_chunk=2_048,
  dtype='bfloat16',
  remat='full',
  attention='xla',  # quicker to compile; the kernel has tests of its own
)
RUN = RunConfig(
  name='small',
  batch_size=8,
  seq_len=256,
  model=MODEL,
  mesh=MeshConfig(data=2, fsdp=2, tensor=2),
)
KEYS = {
  *('config', 'topology', 'chips', 'batch', 'length', 'targets', 'fits'),
  *('hbm_gib_per_chip', 'hbm_capacity_gib', 'decode_hbm_gib_per_chip'),
  *('model_tflops_per_step', 'head_tflops_per_step', 'bound_by'),
  *('collective_gib_per_chip', 'compile_seconds'),
}


@pytest.fixture(scope='module')
def report():
  return compile_run(RUN, 'v5e:2x2', slices=2)


def test_what_is_said_of_a_run_on_two_slices(report):
  assert report.keys() >= KEYS
  assert report['topology'] == '2 x v5e:2x2' and report['chips'] == 8
  assert report['mesh'] == {
    'data': 2,
    'fsdp': 2,
    'expert': 1,
    'context': 1,
    'tensor': 2,
  }
  # There are no records to count: half of the row.
  assert (report['batch'], report['length'], report['targets']) == (8, 256, 128)
  assert report['targets_assumed']
  needed = flops.model(MODEL, 8, 256, 128)
  assert report['model_tflops_per_step'] == needed.total / 1e12
  assert report['head_tflops_per_step'] == needed.head / 1e12


def test_parameters_and_moments_are_replaced_in_place(report):
  """A quarter of them a chip, in float32, and a little padding."""
  matrices = 3 * (4 * 512 * 512 + 3 * 512 * 1_024) + 8_192 * 512
  least = 3 * 4 * matrices / 4 / 2**30
  found = report['hbm_by_kind_gib']
  assert least <= found['state'] <= 1.05 * least
  assert found['outputs'] < 0.001
  assert math.isclose(
    sum(found.values()), report['hbm_gib_per_chip'], abs_tol=0.003
  )
  assert report['fits'] and report['hbm_capacity_gib'] == 15.75
  assert 0 < report['decode_hbm_gib_per_chip'] < report['hbm_gib_per_chip']


def test_between_slices_gradients_alone_are_sent(report):
  """Once a step: of two slices, a chip sends what it has summed, I bytes.

  Layers in bfloat16, as their products are. The table in float32, and twice:
  for its use as a head, and as an embedding.
  """
  layers, table = 3 * (4 * 512 * 512 + 3 * 512 * 1_024) / 4, 8_192 * 512 / 4
  sent = report['collective_dcn_gib_per_chip'] * 2**30
  gradients = 2 * layers + 2 * 4 * table
  # The figure is in thousandths of a GiB; scales and biases are small.
  assert abs(sent - gradients) <= 0.0005 * 2**30 + 0.01 * gradients
  total = sum(report['collective_gib_per_chip'].values())
  assert report['collective_dcn_gib_per_chip'] < total


def test_a_report_reads(report):
  text = report_lib.text(report)
  assert text.startswith('small on 2 x v5e:2x2: 8 chips, data 2 x fsdp 2 x exp')
  assert '128 targets (assumed half: config.targets_per_row=0)' in text
  assert 'fits: 0.' in text and 'of 15.75 GiB' in text
  assert 'an estimate at peak rates, not a measurement' in text
  header, rule, row, *rest = report_lib.table([report]).splitlines()
  assert not rest
  assert header.count('|') == rule.count('|') == row.count('|')
  assert row.startswith('| `small` | 2 x v5e:2x2 | 8 x 256, 128 | 0.')


def test_an_int8_base_stays_int8_and_has_no_moments(monkeypatch):
  """One layer at a time may be copied to floats, and never all three."""
  run = dataclasses.replace(
    RUN,
    model=dataclasses.replace(MODEL, param_dtype='int8'),
    lora=LoraConfig(rank=4),
    mesh=MeshConfig(data=1, fsdp=4),
  )
  compiled, compile_step = [], compile_lib._compiled

  def keep(lowered):
    compiled.append(compile_step(lowered))
    return compiled[-1]

  monkeypatch.setattr(compile_lib, '_compiled', keep)
  report = compile_run(run, 'v5e:2x2', has_probes=False)
  kernels = 3 * (4 * 512 * 512 + 3 * 512 * 1_024)
  found = report['hbm_by_kind_gib']
  frozen = (kernels + 2 * 8_192 * 512) / 4 / 2**30
  assert math.isclose(found['frozen'], frozen, rel_tol=0.05, abs_tol=0.001)
  assert found['state'] < 0.002
  assert report['model_tflops_per_step'] == (
    flops.model(MODEL, 8, 256, 128, run.lora).total / 1e12
  )
  # The program of the step itself: no array has a whole stack in floats.
  ((step, _),) = compiled
  text = step.as_text()
  shapes = {
    (dtype, tuple(map(int, sizes.split(','))))
    for dtype, sizes in re.findall(r'\b(s8|bf16|f32)\[(\d+(?:,\d+)+)\]', text)
  }
  stacks = {
    (d, s) for d, s in shapes if s[0] == 3 and math.prod(s) >= 3 * 2**16
  }
  # Only the activations that are saved for the backward pass are in floats.
  saved = {('bf16', (3, 2, 256, 512))}
  assert {dtype for dtype, _ in stacks - saved} == {'s8'}


def test_the_tables_of_the_vocabulary_are_neither_gathered_nor_copied():
  """An embedding of 151,936 x 896 on four chips: shares of whole lanes.

  At rest it is 37,984 rows of a chip; in use 224 columns. Parameters and
  moments are not turned around, and no chip has the table whole.
  """
  run = ModelConfig(
    vocab_size=151_936,
    width=896,
    layers=1,
    heads=1,
    kv_heads=1,
    mlp_width=128,
    dtype='bfloat16',
    remat='full',
    attention='xla',
  )
  devices = chips.describe('v5e:2x2')
  trainer = make_trainer(run, RUN.optim, MeshConfig(1, 4, 1), 10, devices)
  compiled = lower_step(trainer, 4, 256, 128).compile()
  text = compiled.as_text()
  assert 'f32[37984,896]' in text
  assert '[151936,896]' not in text
  memory = compiled.memory_analysis()
  share = 151_936 * 896 * 4 / 4
  # Beside table and moments: what is used by width, and its gradient, twice.
  assert memory.peak_memory_in_bytes < 3 * share + 5 * share


TOO_LARGE = RunConfig(
  name='too_large',
  batch_size=64,
  seq_len=8_192,
  targets_per_row=8_192,
  model=ModelConfig(vocab_size=32_768, layers=1, head_chunk=0),
  mesh=MeshConfig(data=1, fsdp=1, tensor=1),
)


def test_a_run_that_is_too_large_is_told_what_to_change():
  report = compile_run(TOO_LARGE, 'v5e:1x1')
  assert not report['fits']
  # All logits at once: 64 GiB, in float32.
  assert report['hbm_gib_per_chip'] >= 64 > report['hbm_capacity_gib']
  text = report_lib.text(report)
  assert 'does NOT fit' in text
  assert 'config.batch_size' in text and 'config.model.remat=full' in text
  assert 'does not fit' in report_lib.table([report])


@pytest.mark.parametrize(
  ('topology', 'slices', 'message'),
  [
    ('v5e', 1, '--topology=v5e --num_slices=1 is not a slice'),
    ('v5e:4', 1, 'is not a slice'),
    ('v5e:4x4', 0, 'is not a slice'),
    ('v9:2x2', 1, 'Invalid TPU external name: TPU v9'),
    ('v4:2x2x1', 1, 'kind of chip must be one of TPU v2, '),
  ],
)
def test_a_slice_that_does_not_exist_is_named(topology, slices, message):
  with pytest.raises(ValueError, match=message):
    chips.describe(topology, slices)


@pytest.mark.parametrize(
  ('batch_size', 'mesh', 'message'),
  [
    (
      *(6, MeshConfig(1, 4, 1)),
      'a batch of 6 rows does not divide over config.mesh.fsdp=4',
    ),
    (8, MeshConfig(1, 3, 1), 'config.mesh.fsdp=3 does not cover 4 devices'),
  ],
)
def test_what_does_not_divide_is_refused_before_compiling(
  batch_size, mesh, message
):
  run = RunConfig(batch_size=batch_size, seq_len=256, model=MODEL, mesh=mesh)
  with pytest.raises(ValueError, match=message):
    compile_run(run, 'v5e:2x2')


@pytest.mark.parametrize(
  'topology',
  ['v2:2x2', 'v3:2x2', 'v5e:2x2', 'v5p:2x2x1', 'v6e:2x2', 'tpu7x:2x2x1'],
)
def test_capacities_are_those_that_the_compiler_names(topology):
  device = chips.describe(topology)[0]
  where = jax.sharding.SingleDeviceSharding(device)
  terabyte = jax.ShapeDtypeStruct((2**19, 2**19), 'float32', sharding=where)
  copy = jax.jit(lambda x: x + 1, out_shardings=where)
  with pytest.raises(jax.errors.JaxRuntimeError) as refused:
    copy.lower(terabyte).compile()
  chip = chips.CHIPS[device.device_kind]
  gib = chip.hbm / chip.devices / 2**30
  (named,) = re.findall(r'available HBM \((.*?)G\)', str(refused.value))
  # libtpu 0.0.50 keeps 0.01 GiB more for itself than 0.0.40 on three of these.
  assert 0 <= round(gib - float(named), 2) <= 0.01
