"""Reads and sets the fields of a config by their dotted names."""

import dataclasses
import functools


def changed(config, fields):
  """Sets fields, as the command line does, and returns the config.

  Args:
    config: changed in place.
    fields: dotted name -> value, as in {'optim.learning_rate': 1e-3}.
  """
  for name, value in fields.items():
    *groups, leaf = name.split('.')
    owner = functools.reduce(getattr, groups, config)
    assert hasattr(owner, leaf), name
    setattr(owner, leaf, value)
  return config


def groups(config, prefix=''):
  """Yields (path, settings) of a config and of all in it: ('model.', ...)."""
  yield prefix, config
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if dataclasses.is_dataclass(value):
      yield from groups(value, f'{prefix}{field.name}.')


def leaves(config):
  """Yields (dotted name, value) of every field that is no group of fields."""
  for prefix, settings in groups(config):
    for field in dataclasses.fields(settings):
      value = getattr(settings, field.name)
      if not dataclasses.is_dataclass(value):
        yield prefix + field.name, value
