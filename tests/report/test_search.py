"""Lines of a search, as they are printed."""

from isft_jax.report import search

SUMMARY = {
  **{'config': 'small', 'topology': 'v5e:2x2', 'candidates': 1_468},
  **{'batch': 8, 'length': 4_096, 'targets': 2_048, 'limit_gib': 14.175},
  **{'compiled': 4, 'fit': 2, 'too_large': 1, 'failed': 1, 'stopped': 2},
  **{'hopeless': 3, 'not_tried': 1_459},
}
REPORT = {
  'estimated_step_seconds': 0.1783,
  'hardware_tflops_per_step': 1140.52,
  'model_tflops_per_step': 1101.06,
  'hbm_gib_per_chip': 2.761,
  'collective_gib_per_chip': {'all-gather': 1.5, 'all-reduce': 0.25},
}


def test_the_first_line_and_the_last():
  assert search.header(SUMMARY) == (
    'small on v5e:2x2: 1,468 candidates for 8 rows of 4,096 tokens and 2,048 '
    'targets, at most 14.18 GiB per chip'
  )
  assert search.counts(SUMMARY) == (
    'compiled 4: 2 fit, 1 too large, 1 failed; 2 stopped, 3 skipped as too '
    'large, 1,459 not tried'
  )


def test_the_line_of_a_trial():
  settings = {'model.remat': 'q,k,v', 'mesh.fsdp': 4}
  results = [
    ('fits', 2.761, 10.88e-6, ''),
    ('too large', 23.12, None, ''),
    ('failed', 0, None, 'why'),
  ]
  names = 'verdict', 'gib', 'seconds_per_target', 'failure'
  lines = [
    search.trial(number, dict(zip(names, result, strict=True)), settings)
    for number, result in enumerate(results, 9)
  ]
  flags = '--config.model.remat=q,k,v --config.mesh.fsdp=4'
  assert lines == [
    f'  9  fits         2.76 GiB  10.9 us per scored token  {flags}',
    f' 10  too large   23.12 GiB  {flags}',
    f' 11  failed     {flags}: why',
  ]
  result = {'verdict': 'fits', 'gib': 1, 'seconds_per_target': 1e-3}
  assert search.trial(1, result | {'failure': ''}, {}) == (
    '  1  fits         1.00 GiB  1.00e+03 us per scored token  '
    'the config itself'
  )


def test_the_fastest_is_compared_with_the_config():
  best = REPORT | {'estimated_step_seconds': 0.1433, 'hbm_gib_per_chip': 10.18}
  text = search.verdict(best, REPORT, {'model.head_chunk': 0})
  assert text.splitlines() == [
    'the fastest settings that fit:',
    '                                       found   config',
    '  estimated seconds per step           0.143    0.178',
    '  TFLOP per step with recomputation  1,140.5  1,140.5',
    '  TFLOP per step without             1,101.1  1,101.1',
    '  GiB per chip                         10.18     2.76',
    '  GiB sent per chip and step            1.75     1.75',
    '--config.model.head_chunk=0',
  ]


def test_a_config_that_does_not_fit_is_not_compared():
  text = search.verdict(REPORT, None, {'model.head_chunk': 0})
  assert text.splitlines()[1].split() == ['found']


def test_nothing_faster_than_the_config():
  text = search.verdict(REPORT, REPORT, {})
  assert text.startswith('the config itself is the fastest that fits:')
  assert text.splitlines()[1].split() == ['found']
  assert text.endswith('  1.75')
