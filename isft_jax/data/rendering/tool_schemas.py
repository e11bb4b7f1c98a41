"""Schemas of tools in the form that a chat template can show.

OpenAI's form has an envelope, {"type": "function", "function": SCHEMA}. Many
data sets have bare schemas. Some templates print any of them, and others raise
an error or print nothing without the envelope.
"""

from collections.abc import Callable, Mapping

_NAME, _KEY, _WORDS = 'zwanzig', 'dreissig', 'vierzig'
# A schema whose words no template has.
_PROBE: dict = {
  'name': _NAME,
  'description': _WORDS,
  'parameters': {
    'type': 'object',
    'properties': {_KEY: {'type': 'string', 'description': _WORDS}},
    'required': [_KEY],
  },
}
# Short conversations. Some templates demand a system message.
_USER = {'role': 'user', 'content': 'u'}
_BEGINNINGS = ([_USER], [{'role': 'system', 'content': 's'}, _USER])


def is_bare(schema: Mapping) -> bool:
  """Returns whether a schema has a name, and no envelope."""
  return isinstance(schema.get('name'), str) and 'function' not in schema


def with_envelope(schema: dict) -> dict:
  """Returns a schema in OpenAI's envelope, which is added if it is bare."""
  if not is_bare(schema):
    return schema
  inner = {k: v for k, v in schema.items() if (k, v) != ('type', 'function')}
  return {'type': 'function', 'function': inner}


def needs_envelope(apply: Callable[[list[dict], list[dict]], str]) -> bool:
  """Returns whether a template shows less of a schema without the envelope.

  Args:
    apply: renders messages and tools with the template.
  """

  def shown(schema: dict) -> int:
    return max(_shown(apply, messages, schema) for messages in _BEGINNINGS)

  return shown(_PROBE) < shown(with_envelope(_PROBE))


def _shown(
  apply: Callable[[list[dict], list[dict]], str],
  messages: list[dict],
  schema: dict,
) -> int:
  """Returns how many words of the probe a template shows."""
  try:
    text = apply(messages, [schema])
  except Exception:  # templates are programs that anyone wrote
    return 0
  return sum(word in text for word in (_NAME, _KEY, _WORDS))
