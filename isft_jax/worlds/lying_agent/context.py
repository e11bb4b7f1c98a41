"""Reads the system prompt that the records of a run share."""

import numpy as np

from isft_jax.data.records.dataset import Records
from isft_jax.data.rendering.rejection import Rejected
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.data.rendering.tokenizer import decode
from isft_jax.types import Example, Provenance, Segment, Trajectory

_RECORDS = 100  # number of records that are read


def shared_context(records: Records, renderer: Renderer) -> str | None:
  """Returns the system prompt of the first 100 records.

  Args:
    records: the training data.
    renderer: the renderer of the training data.

  Returns:
    The text, '' if no record has a system prompt, or None if the records differ
    or the text cannot be recovered. It is recovered if a system turn with this
    text is rendered to the same ids as in the record. This fails if, for
    example, the template adds tool schemas to the system turn.
  """
  contexts = set()
  for number in range(min(len(records), _RECORDS)):
    example = records[number]
    # Later windows of a long trajectory do not begin at its first turn.
    if not example.window:
      contexts.add(_context(example, renderer))
  return contexts.pop() if len(contexts) == 1 else None


def _context(example: Example, renderer: Renderer) -> str | None:
  # The context, if any, is the first span that the template did not write.
  authors_T = example.provenance_T
  is_template_T = authors_T == Provenance.TEMPLATE
  start = int(np.argmin(is_template_T))
  is_other_T = authors_T[start:] != Provenance.CONTEXT
  stop = start + int(np.argmax(is_other_T))
  if stop == start:
    return ''
  # The text, without white space that the template may add.
  text = decode(
    renderer.tokenizer,
    example.tokens_T[start:stop],
    clean_up_tokenization_spaces=False,
  ).strip()
  # Render the text again: equal ids show that it is exactly the system prompt.
  turns = (
    Segment('system', text, Provenance.CONTEXT),
    Segment('user', 'Hello.', Provenance.USER),
  )
  try:
    tokens_T = renderer.example(Trajectory('context', turns)).tokens_T
  except Rejected:
    return None
  is_equal = np.array_equal(tokens_T[:stop], example.tokens_T[:stop])
  return text if is_equal else None
