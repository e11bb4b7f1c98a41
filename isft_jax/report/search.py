"""Progress and result of a search for the fastest step, as text."""

from collections.abc import Mapping
from typing import Any

from isft_jax.report import tables


def header(summary: Mapping[str, Any]) -> str:
  """Returns the first line of a search.

  Args:
    summary: see `tpu.search.Search.summary`.
  """
  return (
    f'{summary["config"]} on {summary["topology"]}: '
    f'{summary["candidates"]:,} candidates for {summary["batch"]} rows of '
    f'{summary["length"]:,} tokens and {summary["targets"]:,} targets, at most '
    f'{summary["limit_gib"]:.2f} GiB per chip'
  )


def trial(
  number: int, result: Mapping[str, Any], settings: Mapping[str, Any]
) -> str:
  """Returns the line of a trial.

  Args:
    number: place of the trial, from 1.
    result: 'verdict', 'gib', 'seconds_per_target' and 'failure'; see
      `tpu.search.Search.result`.
    settings: fields that differ from the config, and their values.
  """
  line = f'{number:3}  {result["verdict"]:9}'
  if result['gib']:
    line += f'  {result["gib"]:6.2f} GiB'
  if result['seconds_per_target']:
    line += f'  {_time(result["seconds_per_target"])} per scored token'
  line += f'  {flags(settings) or "the config itself"}'
  return line + (f': {result["failure"]}' if result['failure'] else '')


def flags(settings: Mapping[str, Any]) -> str:
  """Returns settings as flags, to paste into a command line."""
  return ' '.join(f'--config.{name}={v}' for name, v in settings.items())


def counts(summary: Mapping[str, Any]) -> str:
  """Returns the line with the number of candidates by verdict.

  Args:
    summary: see `tpu.search.Search.summary`.
  """
  return (
    f'compiled {summary["compiled"]}: {summary["fit"]} fit, '
    f'{summary["too_large"]} too large, {summary["failed"]} failed; '
    f'{summary["stopped"]} stopped, {summary["hopeless"]:,} skipped as too '
    f'large, {summary["not_tried"]:,} not tried'
  )


def verdict(
  best: Mapping[str, Any],
  own: Mapping[str, Any] | None,
  settings: Mapping[str, Any],
) -> str:
  """Returns the fastest settings that fit, compared with those of the config.

  Args:
    best: report of the fastest trial; see `tpu.compile.compile_run`.
    own: report of the config; None if it does not fit.
    settings: fields in which they differ, and their values.
  """
  first = 'the fastest settings that fit'
  if not settings:
    first, own = 'the config itself is the fastest that fits', None
  rows = [['', 'found', 'config']] if own else [['', 'found']]
  for words, name, form in (
    ('estimated seconds per step', 'estimated_step_seconds', '.3g'),
    ('TFLOP per step with recomputation', 'hardware_tflops_per_step', ',.1f'),
    ('TFLOP per step without', 'model_tflops_per_step', ',.1f'),
    ('GiB per chip', 'hbm_gib_per_chip', '.2f'),
    ('GiB sent per chip and step', 'collective_gib_per_chip', '.2f'),
  ):
    values = [
      sum(value.values()) if isinstance(value, dict) else value
      for value in (report[name] for report in (best, own) if report)
    ]
    rows.append([words, *(f'{value:{form}}' for value in values)])
  table = tables.text(tables.Table('', rows[0], rows[1:]))
  lines = [f'{first}:', *(f'  {line}' for line in table.splitlines())]
  return '\n'.join([*lines, *filter(None, [flags(settings)])])


def _time(seconds: float) -> str:
  """Returns a time with three digits, in microseconds."""
  return f'{1e6 * seconds:#.3g} us'
