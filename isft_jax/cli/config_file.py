"""Config files in Python, written from a config."""

import dataclasses
from typing import Any


def source(config: Any, doc: str) -> str:
  """Returns a config file whose get_config() returns a config.

  Args:
    config: dataclass of settings, which may contain others.
    doc: docstring of the file.

  Returns:
    Python. Fields with their default values are left out.
  """
  classes: dict[str, set[str]] = {}
  value = _expression(config, '  ', classes)
  imports = [
    f'from {module} import {", ".join(sorted(names))}'
    for module, names in sorted(classes.items())
  ]
  return '\n'.join(
    [
      f'"""{doc}"""',
      '',
      *imports,
      '',
      '',
      f'def get_config() -> {type(config).__name__}:',
      '  """Returns the settings."""',
      f'  return {value}',
      '',
    ]
  )


def _expression(config: Any, indent: str, classes: dict[str, set[str]]) -> str:
  """Returns the call that makes a config; adds its classes to `classes`."""
  cls = type(config)
  classes.setdefault(cls.__module__, set()).add(cls.__name__)
  default, lines = cls(), []
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if value == getattr(default, field.name):
      continue
    is_group = dataclasses.is_dataclass(value)
    text = (
      _expression(value, indent + '  ', classes) if is_group else repr(value)
    )
    lines.append(f'{indent}  {field.name}={text},\n')
  return f'{cls.__name__}(\n{"".join(lines)}{indent})'
