"""Format of OpenHands' events (version 0): a list of actions and observations.

    [{"id": 0, "source": "user", "action": "message",
      "args": {"content": "List the files."}},
     {"id": 1, "source": "agent", "action": "run",
      "args": {"command": "ls", "thought": "Let me see."},
      "tool_call_metadata": {"tool_call_id": "a", "model_response": {...}}},
     {"id": 2, "source": "agent", "cause": 1, "observation": "run",
      "content": "a.py", "extras": {...},
      "tool_call_metadata": {"tool_call_id": "a", ...}}]

Exported trajectories are such lists, and `history` of an evaluation's
output.jsonl. An observation is the tool's, whatever its `source`.

The agent's words are those of `model_response`, if it is there. Without it, the
agent spoke in CodeAct's markup, which is known for a command, a cell and a
page: <execute_bash>, <execute_ipython>, <execute_browse>. Another action, or a
text that OpenHands makes from a template, makes the row malformed: export the
completions instead, which have the very messages.

Source: OpenHands 0.9 to 0.62, events/serialization/event.py,
memory/conversation_memory.py and agenthub/codeact_agent.
"""

from collections import Counter
from collections.abc import Mapping

from isft_jax.data.messages import model_messages, normalize
from isft_jax.data.messages.conversation import (
  Chat,
  Malformed,
  Turn,
  kind,
  quoted,
)
from isft_jax.data.messages.normalize import find, normalised
from isft_jax.types import Provenance

KEYS = ('history', 'events', 'trajectory')  # of a row
_HAS = (('source', 'action'), ('source', 'observation'))  # keys of an event
WANTS = 'history: a list of {source, action, args} and {source, observation}'
USES = normalize.USES | {
  *('source', 'action', 'args', 'observation', 'extras'),
  *('tool_call_metadata', 'cause', 'id'),
}
# Events that no prompt has.
_SILENT = (
  *('null', 'change_agent_state', 'agent_state_changed', 'pause', 'resume'),
  *('stop', 'start', 'push', 'send_pr', 'success', 'condensation_request'),
)
# Actions in CodeAct's markup: the argument, and the tag around it.
_MARKUP = {
  'run': ('command', 'execute_bash'),
  'run_ipython': ('code', 'execute_ipython'),
  'browse_interactive': ('browser_actions', 'execute_browse'),
}
# Texts that OpenHands adds to what an observation says.
_AROUND = {
  'error': ('', '\n[Error occurred in processing last action]'),
  'user_rejected': (
    'OBSERVATION:\n',
    '\n[Last action has been rejected by the user]',
  ),
}
# Knowledge that a recalled event has, and which a template words.
_RECALLED = (
  *('repo_name', 'repo_directory', 'repo_instructions', 'runtime_hosts'),
  *('additional_agent_instructions', 'microagent_knowledge', 'date'),
  *('custom_secrets_descriptions', 'conversation_instructions'),
)
# Advice in errors about text that events do not have.
_EXPORT = (
  'export the completions (log_completions of OpenHands), which have the '
  'messages'
)


def matches(value: object) -> bool:
  """Returns whether a row has this format."""
  return _find(value) is not None


def read(value: object) -> Chat:
  """Reads a row.

  Raises:
    Malformed: the row does not follow the format, or an event has no text.
  """
  match = _find(value)
  if match is None:
    raise Malformed(f'expected {WANTS}')
  key, events = match
  reader = _Reader()
  for i, event in enumerate(events):
    reader.add(event, f'event {i}')
  if not reader.turns:
    raise Malformed('no turns: no event is a message, an action or its result')
  row = value if isinstance(value, dict) else {}
  metadata = {k: v for k, v in row.items() if k not in (key, 'tools')}
  # Schemas are in the event of the system prompt, or in the row.
  tools = model_messages.schemas(reader.tools or row.get('tools'))
  return Chat(reader.turns, tools, metadata, reader.left_out)


def _find(value: object) -> tuple[str, list] | None:
  """Returns the key and the events of a row, or None."""
  # The first versions wrote a list of pairs: an action and its observation.
  history = value.get('history') if isinstance(value, dict) else None
  if isinstance(history, list) and any(isinstance(x, list) for x in history):
    flat = [
      event
      for item in history
      for event in (item if isinstance(item, list) else [item])
    ]
    value = {'history': flat}
  for has in _HAS:
    match = find(value, KEYS, has)
    if match is not None and any(map(_is_event, match[1])):
      return match
  return None


def _is_event(event: object) -> bool:
  # In version 1, these keys hold objects.
  return (
    isinstance(event, dict)
    and isinstance(event.get('source'), (str, type(None)))
    and any(isinstance(event.get(k), str) for k in ('action', 'observation'))
  )


class _Reader:
  """Turns of the events so far."""

  def __init__(self) -> None:
    self.turns: list[Turn] = []
    self.tools: object = None
    self.left_out: Counter[str] = Counter()
    self._responses: set[str] = set()  # whose turns are there
    self._calls: dict[int, tuple[str, object]] = {}  # of an event: id, name

  def add(self, event: object, where: str) -> None:
    """Adds the turn of an event, if it has one."""
    if not isinstance(event, dict):
      raise Malformed(f'{where} is {kind(event)}, expected an object')
    name = event.get('action')
    if isinstance(name, str):
      self._act(name, event, where)
      return
    name = event.get('observation')
    if not isinstance(name, str):
      raise Malformed(f'{where} has neither action nor observation')
    self._observe(name, event, where)

  def _say(
    self, message: dict, author: Provenance | None, event: Mapping
  ) -> None:
    turn = normalised(message, len(self.turns))
    raw = {**event, 'role': turn['role']}
    self.turns.append(Turn(turn, author, raw))

  def _act(self, name: str, event: Mapping, where: str) -> None:
    args = event.get('args')
    args = {} if args is None else args
    if not isinstance(args, dict):
      raise Malformed(f'{where}: args is {kind(args)}, expected an object')
    source = event.get('source')
    # Events of the scaffold, such as pauses, are no turns.
    if name in _SILENT or name == 'recall':
      self.left_out[name] += 1
      return
    if name == 'condensation':
      raise Malformed(
        f'{where}: condensation: the agent did not see the earlier events '
        f'again; {_EXPORT}'
      )
    # The system prompt comes with the schemas of the tools.
    if name == 'system':
      self.tools = args.get('tools')
      system = {'role': 'system', 'content': args.get('content')}
      self._say(system, None, event)
      return
    if name == 'message' and source in ('user', 'agent'):
      _check_images(args, where)
      role = 'user' if source == 'user' else 'assistant'
      self._say({'role': role, 'content': args.get('content')}, None, event)
      return
    # The user ends the run.
    if name == 'finish' and source == 'user':
      self.left_out[name] += 1
      return
    if source != 'agent':
      raise Malformed(
        f'{where}: action {quoted(name)} of {quoted(source)} has no text form; '
        f'{_EXPORT}'
      )
    self._act_as_agent(name, args, event, where)

  def _act_as_agent(
    self, name: str, args: Mapping, event: Mapping, where: str
  ) -> None:
    metadata = event.get('tool_call_metadata')
    # Without function calling, the agent's words are in the arguments.
    if metadata is None:
      message = _spoken(name, args, where)
      if message is None:
        self.left_out[name] += 1
      else:
        self._say(message, None, event)
      return
    # The model's own response.
    if not isinstance(metadata, dict):
      raise Malformed(f'{where}: tool_call_metadata is {kind(metadata)}')
    response = metadata.get('model_response')
    if not isinstance(response, dict):
      raise Malformed(
        f'{where}: no model_response: the words of the agent are not in the '
        f'row; {_EXPORT}'
      )
    # An observation names the event of its call, from which it gets the id.
    id = metadata.get('tool_call_id')
    if isinstance(id, str) and type(event.get('id')) is int:
      function = metadata.get('function_name')
      self._calls[event['id']] = (id, function)
    # A response with several calls is one turn, but several events.
    key = response.get('id')
    if isinstance(key, str) and key in self._responses:
      return
    if isinstance(key, str):
      self._responses.add(key)
    answer = model_messages.answer(response, f'{where}: model_response')
    message = model_messages.known(answer, where)
    self._say({**message, 'role': 'assistant'}, None, event)

  def _observe(self, name: str, event: Mapping, where: str) -> None:
    extras = event.get('extras')
    extras = {} if extras is None else extras
    if not isinstance(extras, dict):
      raise Malformed(f'{where}: extras is {kind(extras)}, expected an object')
    # Texts that OpenHands words from templates are not in the row.
    if name == 'recall' and any(extras.get(key) for key in _RECALLED):
      raise Malformed(
        f'{where}: recall: OpenHands worded it from a template; {_EXPORT}'
      )
    if name in _SILENT or name == 'recall':
      self.left_out[name] += 1
      return
    if name == 'edit' and extras.get('impl_source') == 'llm_based_edit':
      raise Malformed(
        f'{where}: edit: OpenHands worded it from a template; {_EXPORT}'
      )
    _check_images(extras, where)
    message: dict = {'content': _observed(name, event, extras, where)}

    # The call that it answers. Without one, the scaffold sends it as a user.
    metadata = event.get('tool_call_metadata')
    metadata = metadata if isinstance(metadata, dict) else {}
    id, function = metadata.get('tool_call_id'), metadata.get('function_name')
    cause = event.get('cause')
    if id is None and type(cause) is int and cause in self._calls:
      id, function = self._calls[cause]
    if id is not None:
      message |= {'role': 'tool', 'tool_call_id': id, 'name': function}
    else:
      message['role'] = 'user'
    # The scaffold words the user's rejection of an action.
    is_harness = name == 'user_rejected'
    author = Provenance.HARNESS if is_harness else Provenance.TOOL
    self._say(message, author, event)


def _check_images(fields: Mapping, where: str) -> None:
  for key in ('image_urls', 'images_urls'):
    if fields.get(key):
      raise Malformed(f'{where}: {key}: an image has no text')


def _spoken(name: str, args: Mapping, where: str) -> dict | None:
  """Returns an action of the agent as CodeAct wrote it; None without words."""
  thought = args.get('thought')
  reasoning = None
  # Later versions: {"text": "...", "reasoning_content": "..."}.
  if isinstance(thought, dict):
    reasoning = thought.get('reasoning_content')
    thought = thought.get('text')
  if not isinstance(thought, (str, type(None))):
    raise Malformed(f'{where}: thought is {kind(thought)}, expected text')
  # The last words may be in two fields.
  if name == 'finish':
    last = args.get('final_thought')
    if last is not None and not isinstance(last, str):
      raise Malformed(f'{where}: final_thought is {kind(last)}, expected text')
    words = '\n'.join(filter(None, (thought, last)))
    if not words:
      return None
  # Without function calling, the agent writes actions as markup.
  elif name in _MARKUP:
    key, tag = _MARKUP[name]
    if not isinstance(args.get(key), str):
      raise Malformed(f'{where}: {key} is {kind(args.get(key))}, expected text')
    action = f'<{tag}>\n{args[key]}\n</{tag}>'
    words = '\n'.join(filter(None, (thought, action)))
  else:
    raise Malformed(
      f'{where}: action {quoted(name)} has no text form without the '
      f"model's response; {_EXPORT}"
    )
  message = {'role': 'assistant', 'content': words}
  return message | ({'reasoning_content': reasoning} if reasoning else {})


def _observed(name: str, event: Mapping, extras: Mapping, where: str) -> str:
  """Returns the text of an observation, as the agent saw it."""
  text = event.get('content')
  if not isinstance(text, str):
    raise Malformed(f'{where}: content is {kind(text)}, expected text')
  # The state of the shell follows its output.
  metadata = extras.get('metadata')
  if name == 'run' and isinstance(metadata, dict):
    return with_shell_state(text, metadata)
  before, after = _AROUND.get(name, ('', ''))
  return f'{before}{text}{after}'


def with_shell_state(text: str, metadata: Mapping) -> str:
  """Returns the output of a command with the state of the shell after it."""
  text = f'{metadata.get("prefix") or ""}{text}{metadata.get("suffix") or ""}'
  if metadata.get('working_dir'):
    text += f'\n[Current working directory: {metadata["working_dir"]}]'
  if metadata.get('py_interpreter_path'):
    text += f'\n[Python interpreter: {metadata["py_interpreter_path"]}]'
  # A code of -1 means that none is known.
  code = metadata.get('exit_code', -1)
  if type(code) is int and code != -1:
    text += f'\n[Command finished with exit code {code}]'
  return text
