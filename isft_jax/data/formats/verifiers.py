"""Format of verifiers' traces: a tree of messages with the tokens of each.

    {"nodes": [
       {"parent": null, "message": {"role": "user", "content": "2 + 2?"},
        "sampled": false, "token_ids": [1, 5, 6], "mask": [false, ...]},
       {"parent": 0, "message": {"role": "assistant", "content": "4"},
        "sampled": true, "token_ids": [7, 9, 2], "mask": [false, true, true]}]}

The ids are taken as they are. Tokens with a mask are the agent's. Others have
the author of their message's role; if the trace says that they are no content
(`is_content`), or in a message of the agent, they are the template's. A message
of the assistant that no model sampled is context. A trace without ids is read
as a conversation.

A tree with several branches is malformed: each branch is a run of its own.

Source: verifiers 0.4, v1/graph.py and v1/trace.py.
"""

import itertools
from collections.abc import Mapping

from isft_jax.data.formats.token_ids import Piece, TokenChat, check_ids
from isft_jax.data.messages import model_messages, normalize
from isft_jax.data.messages.conversation import Chat, Malformed, Turn, kind
from isft_jax.data.messages.normalize import find, normalised
from isft_jax.types import Provenance

_KEYS = ('nodes',)  # of a row
_HAS = ('parent', 'message')  # keys of a node
WANTS = 'nodes: a list of {parent, message, sampled, token_ids, mask}'
USES = normalize.USES | {
  *('parent', 'message', 'sampled', 'token_ids', 'mask', 'is_content', 'tools'),
}


def matches(value: object) -> bool:
  """Returns whether a row has this format."""
  match = find(value, _KEYS, _HAS)
  return match is not None and any(
    isinstance(node, dict) and isinstance(node.get('message'), dict)
    for node in match[1]
  )


def read(value: object) -> TokenChat | Chat:
  """Reads a row.

  Raises:
    Malformed: the row does not follow the format, or has several branches.
  """
  match = find(value, _KEYS, _HAS)
  if match is None or not isinstance(value, dict) or not matches(value):
    raise Malformed(f'expected {WANTS}')
  path = _path(match[1])
  turns = [_turn(node, i) for i, node in enumerate(path)]
  metadata = {k: v for k, v in value.items() if k not in ('nodes', 'tools')}
  # The tools that the prompt had; else all that any request had.
  tools = model_messages.schemas(path[0].get('tools') or value.get('tools'))
  chat = Chat(turns, tools, metadata)
  if not any(node.get('token_ids') for node in path):
    return chat
  pieces = [piece for i, node in enumerate(path) for piece in _pieces(node, i)]
  return TokenChat(chat, pieces)


def _path(nodes: list) -> list[Mapping]:
  """Returns the nodes from the root to the only leaf."""
  for i, node in enumerate(nodes):
    if not isinstance(node, dict) or not isinstance(node.get('message'), dict):
      raise Malformed(f'node {i}: expected an object with a message')
    parent = node.get('parent')
    # A parent comes before its children, so that there is no cycle.
    if parent is not None and (type(parent) is not int or not 0 <= parent < i):
      raise Malformed(f'node {i}: parent must be an earlier node')
  parents = {node.get('parent') for node in nodes}
  leaves = [i for i in range(len(nodes)) if i not in parents]
  if len(leaves) != 1:
    raise Malformed(
      f'the trace has {len(leaves)} branches, which end at nodes '
      f'{", ".join(map(str, leaves[:8]))}; make each branch a row of its own'
    )
  # Walk from the leaf to the root.
  path: list[Mapping] = []
  at = leaves[0]
  while at is not None:
    path.append(nodes[at])
    at = nodes[at].get('parent')
  return path[::-1]


def _turn(node: Mapping, i: int) -> Turn:
  message = node['message']
  author = None
  if message.get('role') == 'assistant' and node.get('sampled') is not True:
    author = Provenance.CONTEXT
  known = model_messages.known(message, f'turn {i}')
  return Turn(normalised(known, i), author, {**node, **message})


def _pieces(node: Mapping, i: int) -> list[Piece]:
  """Returns the tokens of a node, by author."""
  ids = check_ids(node.get('token_ids'), f'node {i}: token_ids')
  if not ids:
    raise Malformed(f'node {i}: no token_ids, but other nodes have some')
  role = node['message'].get('role')
  # Sampled tokens and tokens of content; all others are the template's.
  mask = _flags(node, 'mask', len(ids), i) or [False] * len(ids)
  # The system prompt has the schemas of tools too, which are no template.
  content = None
  if role != 'system':
    content = _flags(node, 'is_content', len(ids), i)
  # By default the mask decides in sampled messages, and all tokens of other
  # messages are content.
  if content is None:
    content = [role != 'assistant' or node.get('sampled') is not True] * len(
      ids
    )
  # Runs of the turn's own tokens alternate with runs of the template's.
  is_turns = [m or c for m, c in zip(mask, content, strict=True)]
  pieces, start = [], 0
  for is_turn, group in itertools.groupby(is_turns):
    end = start + len([*group])
    author = None if is_turn else Provenance.TEMPLATE
    pieces.append(Piece(ids[start:end], (i,), author))
    start = end
  return pieces


def _flags(node: Mapping, key: str, n: int, i: int) -> list[bool] | None:
  """Returns a flag per token, or None if the node has none."""
  flags = node.get(key)
  if not flags:
    return None
  if not isinstance(flags, list) or len(flags) != n:
    raise Malformed(
      f'node {i}: {key} is {kind(flags)}, expected a list of {n}, the number '
      'of its tokens'
    )
  if not all(type(flag) in (bool, int) for flag in flags):
    raise Malformed(f'node {i}: {key} must have true and false')
  return [bool(flag) for flag in flags]
