"""Messages as clients of model APIs log them.

The messages of LiteLLM, OpenRouter and others are in OpenAI's form, but have
more keys: reasoning under several names, and the provider's bookkeeping.
"""

from collections.abc import Mapping

from isft_jax.data.messages.conversation import Malformed, kind, quoted
from isft_jax.data.messages.normalize import json_or_text

# Keys of a message that no chat template shows.
_BOOKKEEPING = (
  *('provider_specific_fields', 'annotations', 'extra', 'timestamp'),
  *('provider_state', 'cache_control', 'id', 'index', 'object', 'model'),
  *('vision_enabled', 'cache_enabled', 'function_calling_enabled'),
  *('force_string_serializer', 'send_reasoning_content'),
)
# Keys of reasoning: text, or a list of blocks with text.
_REASONING = ('reasoning_content', 'reasoning')
_BLOCKS = ('thinking_blocks', 'reasoning_details')
# Names of a block's text.
_TEXTS = ('thinking', 'text', 'summary', 'reasoning')


def known(raw: Mapping, where: str) -> dict:
  """Returns a message without bookkeeping, its reasoning under one name.

  Args:
    raw: the message.
    where: its name, for messages.

  Raises:
    Malformed: the message has audio or images, or reasoning without a text.
  """
  for key in ('audio', 'images'):
    if raw.get(key):
      raise Malformed(f'{where}: {key} has no text')
  drop = (*_BOOKKEEPING, *_REASONING, *_BLOCKS)
  message = {k: v for k, v in raw.items() if k not in drop}
  # Null in most logs; `normalised` reads the name of an old call.
  if not message.get('function_call'):
    message.pop('function_call', None)
  text = reasoning(raw, where)
  return message | ({'reasoning_content': text} if text else {})


def reasoning(raw: Mapping, where: str) -> str:
  """Returns the text of a message's reasoning, or an empty text.

  Raises:
    Malformed: it is hidden: only the provider can read it.
  """
  # Reasoning as one text, under either name.
  for key in _REASONING:
    value = raw.get(key)
    if value and not isinstance(value, str):
      raise Malformed(f'{where}: {key} is {kind(value)}, expected text')
  texts = [raw[key] for key in _REASONING if raw.get(key)]
  parts: list[str] = []
  is_hidden = ''
  # Reasoning in blocks, some of which only the provider can read.
  for key in _BLOCKS:
    blocks = raw.get(key) or []
    if not isinstance(blocks, list):
      raise Malformed(f'{where}: {key} is {kind(blocks)}, expected a list')
    for block in blocks:
      found = [
        block[name]
        for name in _TEXTS
        if isinstance(block, dict) and isinstance(block.get(name), str)
      ]
      parts += found[:1]
      if not any(found):
        type_ = block.get('type') if isinstance(block, dict) else block
        is_hidden = f'{key} has a block of type {quoted(type_)}'
    # An Anthropic model wrote every block, so that none may be missing.
    if is_hidden and key == 'thinking_blocks':
      break
  else:
    # Other providers encrypt what they also give as text.
    is_hidden = '' if texts or any(parts) else is_hidden
  if is_hidden:
    raise Malformed(
      f'{where}: {is_hidden}: the words of the agent are not in the row'
    )
  # The same reasoning under several names.
  return texts[0] if texts else ''.join(parts)


def schemas(tools: object) -> list[dict] | None:
  """Returns schemas in OpenAI's form, with an envelope; None without tools.

  Args:
    tools: a list of schemas with or without the envelope, or its JSON text.

  Raises:
    Malformed: a schema is not an object.
  """
  tools = json_or_text(tools)
  if not tools:
    return None
  if not isinstance(tools, list) or not all(isinstance(t, dict) for t in tools):
    raise Malformed(f'tools is {kind(tools)}, expected a list of schemas')
  # Some logs have schemas without the object `function`.
  return [
    tool
    if isinstance(tool.get('function'), dict)
    else {
      'type': 'function',
      'function': {k: v for k, v in tool.items() if k != 'type'},
    }
    for tool in tools
  ]


def answer(response: object, where: str) -> dict:
  """Returns the message of a response of the Chat Completions API.

  Args:
    response: the response.
    where: its name, for messages.

  Raises:
    Malformed: the response has no message, or several.
  """
  choices = response.get('choices') if isinstance(response, dict) else None
  if not isinstance(choices, list):
    raise Malformed(f'{where} has no choices')
  # Several choices are alternative answers, and no conversation.
  if len(choices) != 1:
    raise Malformed(
      f'{where} has {len(choices)} choices, expected one; make each a row of '
      'its own'
    )
  message = choices[0].get('message') if isinstance(choices[0], dict) else None
  if not isinstance(message, dict):
    raise Malformed(f'{where}: message is {kind(message)}, expected an object')
  return message
