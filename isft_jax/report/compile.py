"""Memory, collectives and bottleneck of a compiled step, as text and table."""

from collections.abc import Mapping, Sequence

from isft_jax.report import tables

# Ways to make a step fit, in the order in which to try them.
REMEDIES = (
  'fewer rows per step (config.batch_size, or config.optim.accumulate for '
  'smaller microbatches), shorter rows (config.seq_len), fewer targets '
  '(config.targets_per_row), config.model.remat=full, a smaller '
  'config.model.head_chunk, or a larger slice with more config.mesh.fsdp'
)
# Resource in a report -> its words in text.
_WORDS = {
  'compute': 'arithmetic',
  'hbm': 'memory bandwidth',
  'ici': 'links between chips',
  'dcn': 'network between slices',
}


def text(report: dict) -> str:
  """Returns a report of `tpu.compile.compile_run` as text for a terminal."""
  # The slice, the batch and the memory.
  mesh = ' x '.join(f'{axis} {size}' for axis, size in report['mesh'].items())
  assumed = report['targets_assumed']
  lines = [
    f'{report["config"]} on {report["topology"]}: {report["chips"]} chips, '
    f'{mesh}',
    f'  {report["batch"]} rows of {report["length"]:,} tokens and '
    f'{report["targets"]:,} targets'
    + (' (assumed half: config.targets_per_row=0)' if assumed else ''),
    f'  remat {report["remat"]}, attention {report["attention"]}',
    '',
    _memory(report),
  ]
  # A step that does not fit has no program to describe.
  if not report['fits']:
    return '\n'.join([*lines, *_largest(report), f'  try {REMEDIES}'])
  # Memory by kind, arithmetic, collectives and the estimated time.
  lines += [
    *_rows(report['hbm_by_kind_gib'], '.3f', 'GiB'),
    f'  probes: {_or_not(report["decode_hbm_gib_per_chip"])} to decode replies',
    '',
    f'  {report["model_tflops_per_step"]:,.1f} TFLOP per step, '
    f'{report["head_tflops_per_step"]:,.1f} of them in the head; '
    f'{report["hardware_tflops_per_step"]:,.1f} with recomputation',
    '  sent in collectives, per chip and step:',
    *(
      _rows(report['collective_gib_per_chip'], '.3f', 'GiB') or ['    nothing']
    ),
    '',
    f'  at least {report["estimated_step_seconds"]:.3g} s per step, bound by '
    f'{_WORDS[report["bound_by"]]} (an estimate at peak rates, not a '
    'measurement):',
    *_rows(
      {
        _WORDS[name]: seconds
        for name, seconds in report['seconds_by_resource'].items()
      },
      '.3g',
      's',
    ),
    f'  compiled in {report["compile_seconds"]:.0f} s',
  ]
  return '\n'.join(lines)


def table(reports: Sequence[dict]) -> str:
  """Returns a Markdown table with one row per report."""
  rows = [
    '| config | slice | rows x length, targets | HBM per chip, GiB | to decode '
    '| TFLOP per step (head) | collectives per chip, GiB '
    '| estimate, bound by |',
    '|:--|:--|:--|--:|--:|--:|--:|:--|',
  ]
  for report in reports:
    cells = [
      f'`{report["config"]}`',
      report['topology'],
      f'{report["batch"]} x {report["length"]:,}, {report["targets"]:,}',
      f'{report["hbm_gib_per_chip"]:.2f} of {report["hbm_capacity_gib"]:.2f}',
    ]
    flops = (
      f'{report["model_tflops_per_step"]:,.1f} '
      f'({report["head_tflops_per_step"]:,.1f})'
    )
    # A step that does not fit has no program to measure.
    if report['fits']:
      cells += [
        _or_not(report['decode_hbm_gib_per_chip'], ''),
        flops,
        f'{sum(report["collective_gib_per_chip"].values()):.2f}',
        f'{report["estimated_step_seconds"]:.2g} s, {report["bound_by"]}',
      ]
    else:
      cells += ['', flops, '', 'does not fit']
    rows.append(f'| {" | ".join(cells)} |')
  return '\n'.join(rows) + '\n'


def _memory(report: dict) -> str:
  need, capacity = report['hbm_gib_per_chip'], report['hbm_capacity_gib']
  verdict = 'fits' if report['fits'] else 'does NOT fit'
  return f'  {verdict}: {need:.2f} GiB per chip, of {capacity:.2f} GiB'


def _or_not(gib: float | None, unit: str = ' GiB') -> str:
  return 'does not fit' if gib is None else f'{gib:.2f}{unit}'


def _rows(values: Mapping[str, float], form: str, unit: str) -> list[str]:
  rows = [(name, f'{value:{form}} {unit}') for name, value in values.items()]
  return _aligned(rows, '<>')


def _largest(report: dict) -> list[str]:
  # Some messages of the compiler list no buffers.
  if not report['largest_buffers']:
    return ['  ' + report['out_of_memory'].splitlines()[0]]
  rows = [
    (f'{gib:.3f} GiB', shape, made_by)
    for gib, shape, made_by in report['largest_buffers']
  ]
  return ['  the largest buffers:', *_aligned(rows, '><<')]


def _aligned(rows: Sequence[tuple[str, ...]], justify: str) -> list[str]:
  table = tables.Table('', [''] * len(justify), rows)
  return [f'    {line}' for line in tables.text(table, justify).splitlines()]
