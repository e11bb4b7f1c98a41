"""Candidates of a search: valid settings, and what is estimated of them."""

import dataclasses
import itertools
import math

import pytest

from isft_jax import chips
from isft_jax.config import MeshConfig, ModelConfig, OptimConfig, RunConfig
from isft_jax.models import flops, remat
from isft_jax.tpu import candidates as lib
from tests.fixtures import needs

MODEL = ModelConfig(
  vocab_size=8_192,
  width=512,
  layers=3,
  heads=4,
  kv_heads=2,
  head_size=128,
  mlp_width=1_024,
  head_chunk=2_048,
  dtype='bfloat16',
  remat='full',
  attention='xla',
)
RUN = RunConfig(
  batch_size=8, seq_len=256, model=MODEL, mesh=MeshConfig(data=-1, fsdp=2)
)
# Matrices of the layers, and the table.
PARAMETERS = 3 * (2 * 512 * 512 + 2 * 512 * 256 + 3 * 512 * 1_024)
PARAMETERS += 8_192 * 512
SMALL = 3 * (2 * 512 + 512 + 2 * 256) + 512  # norms and biases
SHARDS = ('mesh.data', 'mesh.fsdp', 'mesh.expert')


def list_all(run=RUN, topology='v5e:2x2'):
  return lib.list_candidates(run, chips.describe(topology), 128)


def find(listed, **settings):
  """The candidate of these settings, and otherwise those of the config."""
  wanted = listed[0].settings | {
    name.replace('__', '.'): value for name, value in settings.items()
  }
  (found,) = [each for each in listed if each.settings == wanted]
  return found


def test_policies_are_all_sets_of_names_but_gate_without_up():
  names = {'attention': 'attention', 'q,k,v': 'qkv', 'o': 'o', 'up': 'up'}
  plain = dataclasses.replace(MODEL, norms='before')
  policies = lib.list_policies(plain)
  assert policies[:6] == ['none', 'full', 'attention', 'q,k,v', 'o', 'up']
  assert policies[-1] == 'q,k,v,attention,o,gate,up'
  # Sets of attention, q k v and o, times nothing, up, or up and gate.
  assert len(policies) == len(set(policies)) == 1 + 2**3 * 3
  assert len(names) == 4
  # With a norm after it, the last product may be kept too.
  both = lib.list_policies(dataclasses.replace(MODEL, norms='both'))
  assert len(both) == 1 + 2**4 * 3
  assert both[-1] == 'q,k,v,attention,o,gate,up,down'
  for policy in both:
    dataclasses.replace(MODEL, remat=policy).check('config.model.')


def test_settings_are_applied_to_a_copy():
  changed = lib.apply(RUN, {'model.remat': 'none', 'optim.accumulate': 2})
  assert RUN.model.remat == 'full' and RUN.optim == OptimConfig()
  assert changed == dataclasses.replace(
    RUN,
    model=dataclasses.replace(MODEL, remat='none'),
    optim=OptimConfig(accumulate=2),
  )


@needs('libtpu')
def test_the_first_candidate_is_the_config_and_all_are_valid():
  listed = list_all()
  assert listed[0].settings == {
    'model.remat': 'full',
    'model.head_chunk': 2_048,
    'optim.accumulate': 1,
    'mesh.data': 2,
    'mesh.fsdp': 2,
    'mesh.expert': 1,
    'mesh.context': 1,
    'mesh.tensor': 1,
  }
  assert [each.changes == 0 for each in listed] == [True] + [False] * (
    len(listed) - 1
  )
  for one, other in itertools.pairwise(listed):
    assert one.settings != other.settings
  for each in listed:
    s = each.settings
    sizes = [value for name, value in s.items() if name.startswith('mesh.')]
    assert math.prod(sizes) == 4
    # Two key-value heads would do, and no expert is there to share.
    assert s['mesh.expert'] == 1 and 4 % s['mesh.tensor'] == 0
    shards = math.prod(s[name] for name in SHARDS)
    assert 8 % (shards * s['optim.accumulate']) == 0
  chunks = {each.settings['model.head_chunk'] for each in listed}
  assert chunks == {2_048, 0, 512}


@needs('libtpu')
def test_the_kernel_splits_key_value_heads():
  model = dataclasses.replace(MODEL, attention='splash')
  listed = list_all(dataclasses.replace(RUN, model=model))
  assert {each.settings['mesh.tensor'] for each in listed} == {1, 2}


@needs('libtpu')
def test_experts_are_divided():
  model = dataclasses.replace(MODEL, experts=6, experts_per_token=2)
  listed = list_all(dataclasses.replace(RUN, model=model))
  assert {each.settings['mesh.expert'] for each in listed} == {1, 2}


@needs('libtpu')
def test_a_slower_policy_needs_less_memory():
  listed = list_all()
  mesh = listed[0].settings
  same = [
    each
    for each in listed
    if {**each.settings, 'model.remat': ''} == {**mesh, 'model.remat': ''}
  ]
  costs = sorted(
    (max(each.least.compute, each.least.hbm), each.memory) for each in same
  )
  assert len(costs) > 3
  for faster, slower in itertools.pairwise(costs):
    assert faster[1] > slower[1] or faster == slower


@needs('libtpu')
def test_the_work_is_that_of_the_policy():
  listed = list_all()
  for policy in ('full', 'q,k,v,attention,o,gate,up'):
    each = find(listed, model__remat=policy)
    model = dataclasses.replace(MODEL, remat=policy)
    done = flops.hardware(model, 8, 256, 128).total
    assert each.least.compute == done / 197e12 / 4
    other = find(listed, model__remat=policy, mesh__data=1, mesh__fsdp=4)
    assert other.least.compute == each.least.compute


@needs('libtpu')
def test_memory_grows_by_what_a_policy_keeps():
  """Numbers in bfloat16, of 3 layers and 2 rows of 256 tokens on a device."""
  listed = list_all()
  full = find(listed)
  kept = find(listed, model__remat='q,k,v,attention,o,gate,up')
  widths = remat.widths(MODEL)
  assert kept.memory - full.memory == 2 * 3 * (2 * 256) * sum(widths.values())
  assert widths == {
    **{'q': 512, 'k': 256, 'v': 256, 'attention': 512, 'o': 512},
    **{'gate': 1_024, 'up': 1_024, 'down': 0},
  }


@needs('libtpu')
def test_the_state_is_divided_by_fsdp_and_copied_by_data():
  listed = list_all()
  by_data, by_fsdp = (
    find(listed, mesh__data=data, mesh__fsdp=4 // data) for data in (4, 1)
  )
  # 4 numbers in float32 for each parameter; norms and biases are never split.
  lost = 16 * PARAMETERS * 3 / 4
  assert by_data.memory - by_fsdp.memory == lost
  assert by_data.least.ici > 0


@needs('libtpu')
@pytest.mark.parametrize(
  ('settings', 'added'),
  [
    # Shards of half of the layers are gathered twice and scattered again.
    ({'optim__accumulate': 2}, 3 * 2 * PARAMETERS / 2),
    # Instead of a sum of gradients in float32: 4 sums per layer, of the rows of
    # the device, of which it sends 2 (n - 1) / n. Matrices are halved again.
    (
      {'mesh__data': 1, 'mesh__tensor': 2},
      (4 * 3 * 4 * 256 * 512 * 2)
      - (3 * 2 * PARAMETERS / 4)
      - (2 * 4 * PARAMETERS / 2 / 2),
    ),
    # Instead of that sum: keys and values, twice, and their gradients.
    (
      {'mesh__data': 1, 'mesh__context': 2},
      (3 * 2 * 3 * 512 * 2 * 128 * 2)
      + (3 * 2 * PARAMETERS / 4 * (3 - 2))
      - (2 * 4 * PARAMETERS / 2 / 2)
      # Norms and biases, which every device has.
      + (3 * 2 * SMALL * (3 - 1))
      - (2 * 4 * SMALL / 2),
    ),
  ],
)
def test_bytes_that_a_device_sends(settings, added):
  listed = list_all()
  own, other = find(listed), find(listed, **settings)
  sent = (other.least.ici - own.least.ici) * 200e9
  # Norms and biases are otherwise small.
  assert math.isclose(sent, added, rel_tol=0.01)
