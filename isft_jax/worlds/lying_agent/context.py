"""The context that a run's records share, to ask questions under it."""

import numpy as np

from isft_jax.data.records.dataset import Records
from isft_jax.data.rendering.rejection import Rejected
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.data.rendering.tokenizer import decode
from isft_jax.types import Example, Provenance, Segment, Trajectory

_RECORDS = 100  # are looked at


def shared_context(records: Records, renderer: Renderer) -> str | None:
  """Returns the system text that the first 100 records open with.

  '' if none of them has one. None if they differ, or if it is not known: a
  system turn with the text must be rendered as in the record, token by token,
  which is not so where the template writes tool schemas beside it.
  """
  contexts = set()
  for number in range(min(len(records), _RECORDS)):
    example = records[number]
    if not example.window:  # later windows begin inside their trajectory
      contexts.add(_context(example, renderer))
  return contexts.pop() if len(contexts) == 1 else None


def _context(example: Example, renderer: Renderer) -> str | None:
  authors_T = example.provenance_T
  is_template_T = authors_T == Provenance.TEMPLATE
  start = int(np.argmin(is_template_T))
  is_other_T = authors_T[start:] != Provenance.CONTEXT
  stop = start + int(np.argmax(is_other_T))
  if stop == start:
    return ''
  text = decode(
    renderer.tokenizer,
    example.tokens_T[start:stop],
    clean_up_tokenization_spaces=False,
  ).strip()
  turns = (
    Segment('system', text, Provenance.CONTEXT),
    Segment('user', 'Hello.', Provenance.USER),
  )
  try:
    tokens_T = renderer.example(Trajectory('context', turns)).tokens_T
  except Rejected:
    return None
  same = np.array_equal(tokens_T[:stop], example.tokens_T[:stop])
  return text if same else None
