"""Format of AutoGen's messages, of version 0.4 and of version 0.2 (and AG2).

    {"messages": [
       {"type": "TextMessage", "source": "user", "content": "2 + 2?"},
       {"type": "ToolCallRequestEvent", "source": "solver", "content": [...]},
       {"type": "ToolCallExecutionEvent", "source": "solver", ...}]}

    {"chat_history": [{"role": "assistant", "name": "user_proxy", ...},
                      {"role": "user", "name": "solver", "content": "4"}],
     "summary": "...", "cost": {...}}

In version 0.4 the source 'user', and each source that was asked for input, is
the user; all other sources are agents. Events that repeat a message or steer
the team are left out and counted.

In version 0.2 the roles are those that the first speaker sees: its own messages
have the role assistant. If its name is a user's, the roles are swapped. If no
name is a user's, the row is malformed, because the roles are unknown.

Source: microsoft/autogen, autogen_agentchat/messages.py and
autogen_core/models/_types.py; version 0.2, autogen/agentchat.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping

from isft_jax.data.messages.agent_items import Items, json_text, not_text
from isft_jax.data.messages.conversation import (
  Chat,
  Malformed,
  kind,
  outline,
  quoted,
)
from isft_jax.data.messages.normalize import find, take
from isft_jax.types import Provenance

KEYS = ('messages', 'chat_history', 'chat_messages')  # of a row
WANTS = 'messages: a list of {type, source, content}, or chat_history'
# Keys of a message.
USES = frozenset(
  (
    *('type', 'source', 'content', 'thought', 'result', 'role', 'name'),
    *('tool_calls', 'function_call', 'tool_responses', 'tool_call_id'),
  )
)
# Types of version 0.4 that are left out: they repeat a message, or steer.
_LEFT_OUT = (
  *('ModelClientStreamingChunkEvent', 'ToolCallSummaryMessage'),
  *('UserInputRequestedEvent', 'SelectSpeakerEvent', 'SelectorEvent'),
  'StopMessage',
)
# Keys of a ChatResult of version 0.2.
_RESULT = ('summary', 'cost', 'human_input')
_USER = re.compile(r'user|human|proxy|admin', re.IGNORECASE)  # a user's name
# A proxy runs the agent's code and writes this.
_EXECUTED = re.compile(r'^exitcode: -?\d+ \(')


def matches(value: object) -> bool:
  """Returns whether a row has this format."""
  match = find(value, KEYS, ())
  if match is None:
    return False
  messages = match[1]
  # Version 0.4 has other types.
  if any(_type(message) in _READERS for message in messages):
    return True
  if not all(map(_is_reply, messages)):
    return False
  # Version 0.2 has messages as in OpenAI's API. It is detected by responses of
  # tools, by keys of its result, or by a user with the role assistant.
  has_result = isinstance(value, dict) and sum(k in value for k in _RESULT) > 1
  first = messages[0]
  return (
    any(message.get('tool_responses') for message in messages)
    or (has_result and match[0] == 'chat_history')
    or (first['role'] == 'assistant' and _is_user(first))
  )


def read(value: object) -> Chat:
  """Reads a row of either version.

  Raises:
    Malformed: the row does not follow the format, or an author is unknown.
  """
  if not matches(value):
    raise Malformed(f'expected {WANTS}; the row has {outline(value)}')
  messages, tools, metadata = take(value, KEYS, ())
  left_out = Counter[str]()
  turns = Items(joined=False)
  if any(_type(message) in _READERS for message in messages):
    # Version 0.4. Sources that were asked for input are users.
    users = {'user'} | {
      str(message.get('source'))
      for message in messages
      if message.get('type') == 'UserInputRequestedEvent'
    }
    for i, message in enumerate(messages):
      type_ = _type(message)
      if type_ in _LEFT_OUT:
        left_out[type_] += 1
      elif type_ in _READERS:
        _READERS[type_](message, turns, users, f'message {i}')
      else:
        raise not_text(f'message {i}', message.get('type'))
  else:
    _read_history(messages, turns)
  return Chat(turns.turns(), tools, metadata, left_out)


def _type(message: object) -> str | None:
  """Returns the type of a message of version 0.4, or None."""
  if not isinstance(message, dict):
    return None
  type_ = message.get('type')
  has = 'content' in message or 'result' in message
  if not isinstance(type_, str) or not has:
    return None
  # A structured message has the name of its content: StructuredMessage[Answer].
  return type_.partition('[')[0]


def _text(message: Mapping, turns: Items, users: set[str], where: str) -> None:
  """Adds a message of a user or of an agent."""
  source, content = message.get('source'), message.get('content')
  if not isinstance(source, str):
    raise Malformed(f'{where}: source is {kind(source)}, expected a name')
  if source in users:
    turns.message({'role': 'user', 'content': content}, message)
  else:
    # A structured message has an object.
    content = content if content is None else json_text(content)
    turns.text(content, message)


def _code(message: Mapping, turns: Items, users: set[str], where: str) -> None:
  """Adds words of an agent with code; without code, a TextMessage follows."""
  if message.get('code_blocks'):
    turns.text(message.get('content'), message)


def _user(message: Mapping, turns: Items, users: set[str], where: str) -> None:
  content = message.get('content')
  for part in content if isinstance(content, list) else ():
    if not isinstance(part, str):
      raise not_text(where, 'image')
  turns.message({'role': 'user', 'content': content}, message)


def _system(
  message: Mapping, turns: Items, users: set[str], where: str
) -> None:
  turns.message({'role': 'system', 'content': message.get('content')}, message)


def _handoff(
  message: Mapping, turns: Items, users: set[str], where: str
) -> None:
  """Adds the program's note that another agent continues."""
  content = {'role': 'user', 'content': message.get('content')}
  turns.message(content, message, Provenance.HARNESS)


def _thought(
  message: Mapping, turns: Items, users: set[str], where: str
) -> None:
  turns.thought(message.get('content'), message)


def _assistant(
  message: Mapping, turns: Items, users: set[str], where: str
) -> None:
  """Adds a message of a model's context."""
  turns.end_turn()
  if message.get('thought'):
    turns.thought(message['thought'], message)
  # The content is a text, or a list of calls.
  if isinstance(message.get('content'), list):
    _calls(message, turns, users, where)
  else:
    turns.text(message.get('content'), message)
  turns.end_turn()


def _calls(message: Mapping, turns: Items, users: set[str], where: str) -> None:
  for call in _objects(message, where):
    turns.call(call.get('id'), call.get('name'), call.get('arguments'), message)


def _results(
  message: Mapping, turns: Items, users: set[str], where: str
) -> None:
  for result in _objects(message, where):
    turns.result(
      result.get('call_id'), result.get('name'), result.get('content'), message
    )


def _memories(
  message: Mapping, turns: Items, users: set[str], where: str
) -> None:
  """Adds what the program put into the agent's context."""
  texts = [memory.get('content') for memory in _objects(message, where)]
  if not all(isinstance(text, str) for text in texts):
    raise not_text(where, 'MemoryQueryEvent')
  content = {'role': 'system', 'content': '\n'.join(map(str, texts))}
  turns.message(content, message)


def _execution(
  message: Mapping, turns: Items, users: set[str], where: str
) -> None:
  """Adds the output of the agent's code."""
  result = message.get('result')
  output = result.get('output') if isinstance(result, dict) else None
  if not isinstance(output, str):
    raise Malformed(f'{where}: output of result is {kind(output)}')
  turns.result(None, None, output, message)


# Types of version 0.4, and of the models' contexts.
_READERS: dict[str | None, Callable[[Mapping, Items, set[str], str], None]] = {
  'TextMessage': _text,
  'StructuredMessage': _text,
  'UserMessage': _user,
  'SystemMessage': _system,
  'AssistantMessage': _assistant,
  'FunctionExecutionResultMessage': _results,
  'HandoffMessage': _handoff,
  'ThoughtEvent': _thought,
  'ToolCallRequestEvent': _calls,
  'ToolCallExecutionEvent': _results,
  'MemoryQueryEvent': _memories,
  'CodeGenerationEvent': _code,
  'CodeExecutionEvent': _execution,
}


def _objects(message: Mapping, where: str) -> list[dict]:
  content = message.get('content')
  if not isinstance(content, list) or not all(
    isinstance(item, dict) for item in content
  ):
    raise Malformed(f'{where}: content is {kind(content)}, expected objects')
  return content


def _is_reply(message: object) -> bool:
  """Returns whether a value may be a message of version 0.2."""
  return (
    isinstance(message, dict)
    and isinstance(message.get('role'), str)
    and 'content' in message
  )


def _is_user(message: Mapping) -> bool:
  """Returns whether the name of a message's speaker is a user's."""
  name = message.get('name')
  return isinstance(name, str) and _USER.search(name) is not None


def _read_history(messages: list[dict], turns: Items) -> None:
  """Adds the messages of version 0.2."""
  # The roles are those that the first speaker sees.
  first = messages[0]
  is_swapped = first['role'] == 'assistant' and _is_user(first)
  if first['role'] == 'assistant' and not any(map(_is_user, messages)):
    raise Malformed(
      f'message 0: its speaker, {quoted(first.get("name"))}, may be a user or '
      'an agent, so that the roles are unknown; a name of a user has user, '
      'human, proxy or admin'
    )
  for i, message in enumerate(messages):
    # One message may have the results of several calls.
    responses = message.get('tool_responses')
    if responses is not None:
      for response in _responses(responses, f'message {i}'):
        turns.message({**response, 'role': 'tool'}, message)
      continue
    role, text = message['role'], message.get('content')
    acts = message.get('tool_calls') or message.get('function_call')
    # If the user speaks first, its messages have the agent's role. A message
    # with calls is the agent's in any case.
    if is_swapped and role in ('user', 'assistant'):
      is_first = message.get('name') == first['name']
      role = 'user' if is_first and not acts else 'assistant'
    fields = {'role': role, 'content': text}
    for key in ('tool_calls', 'function_call', 'tool_call_id'):
      if message.get(key):
        fields[key] = message[key]
    # The name of a function, and not of a speaker.
    if role == 'function':
      fields['name'] = message.get('name')
    # AutoGen sends the output of the agent's code as a user.
    author = None
    if role == 'user' and isinstance(text, str) and _EXECUTED.match(text):
      author = Provenance.TOOL
    turns.message(fields, message, author)


def _responses(responses: object, where: str) -> list[dict]:
  if not isinstance(responses, list) or not all(
    isinstance(response, dict) for response in responses
  ):
    raise Malformed(f'{where}: tool_responses is {kind(responses)}')
  keys = ('content', 'tool_call_id', 'name')
  return [{k: r[k] for k in keys if k in r} for r in responses]
