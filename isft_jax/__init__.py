"""Interventional supervised fine-tuning of LLM agents, in JAX.

The names in `__all__` are the Python API; docs/python_api.md shows them. They
are loaded when they are first used: `import isft_jax` imports no library.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from isft_jax.api import (
    export,
    finetune,
    generate,
    labels,
    load,
    loss,
    prepare,
    probe,
    records,
    weights,
    write_labels,
  )

__version__ = '0.1.0'
__all__ = [
  'export',
  'finetune',
  'generate',
  'labels',
  'load',
  'loss',
  'prepare',
  'probe',
  'records',
  'weights',
  'write_labels',
]

if not TYPE_CHECKING:  # type checkers then see which names there are

  def __getattr__(name: str) -> Any:
    if name not in __all__:
      raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(importlib.import_module('isft_jax.api'), name)
    globals()[name] = value  # found at once from now on
    return value

  def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
