"""Names of roles in logs, and their names in chat templates.

Chat templates know few roles, and many print the name of the role. A name that
can only mean one of their roles is renamed: 'Human' is 'user'. Author rules
still see the name that the row has, and can rename roles differently.
"""

# Roles that some chat template knows by this name.
KNOWN = frozenset(
  (
    *('system', 'developer', 'user', 'assistant', 'tool'),
    *('ipython', 'environment'),
  )
)
# Roles of messages that hold a call of a tool: the agent wrote them.
CALLS = ('tool_call', 'tool_calls', 'function_call')
# Other names, in lower case and with underscores.
_ALIASES = {
  **dict.fromkeys(('human', 'prompter'), 'user'),
  **dict.fromkeys(('ai', 'gpt', 'chatgpt', 'bot', 'chatbot'), 'assistant'),
  **dict.fromkeys(('model', 'agent', *CALLS), 'assistant'),
  **dict.fromkeys(('function', 'observation', 'tool_output'), 'tool'),
  **dict.fromkeys(('tool_response', 'tool_result'), 'tool'),
  **dict.fromkeys(('function_response', 'function_result'), 'tool'),
}


def for_template(role: str) -> str:
  """Returns a role's name in chat templates: 'user' for 'Human' and 'human'.

  Args:
    role: its name in the row. A name with no clear meaning is unchanged.
  """
  if role in KNOWN:
    return role
  plain = _plain(role)
  return plain if plain in KNOWN else _ALIASES.get(plain, role)


def is_call(role: object) -> bool:
  """Returns whether messages of this role hold a call of a tool."""
  return isinstance(role, str) and _plain(role) in CALLS


def _plain(role: str) -> str:
  return role.strip().lower().replace('-', '_').replace(' ', '_')
