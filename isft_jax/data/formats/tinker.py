"""Format of Tinker's training data, whose tokens are taken as they are.

    {"model_input": {"chunks": [{"type": "encoded_text", "tokens": [1, 5, 7]}]},
     "loss_fn_inputs": {"target_tokens": {"data": [5, 7, 9]},
                        "weights":       {"data": [0, 0, 1]}}}

The targets are the inputs, shifted by one. A target with a weight (or in
reinforcement learning, with a `mask`) was written by the agent. Tokens before
the first of these are context, and tokens between two of them are the
environment's. They have the roles assistant, system and environment for author
rules.

Source: tinker.types.Datum, tinker 0.38.
"""

from collections.abc import Mapping

from isft_jax.data.formats.token_ids import (
  TokenChat,
  check_ids,
  pieces_from_mask,
)
from isft_jax.data.messages.conversation import Chat, Malformed, kind, quoted
from isft_jax.data.messages.normalize import json_or_text

WANTS = 'model_input: {chunks} and loss_fn_inputs: {target_tokens, weights}'
USES = frozenset(('role', 'content'))  # of a turn
_KEYS = ('model_input', 'loss_fn_inputs')  # of a row
_MASKS = ('weights', 'mask')  # the first that is there counts


def matches(value: object) -> bool:
  """Returns whether a row has this format."""
  return (
    isinstance(value, dict)
    and _KEYS[0] in value
    and all(isinstance(_object(value.get(key)), dict) for key in _KEYS)
  )


def read(value: object) -> TokenChat:
  """Reads a row.

  Raises:
    Malformed: the row does not follow the format, or its targets are not the
      next tokens.
  """
  if not isinstance(value, dict) or not matches(value):
    raise Malformed(f'expected {WANTS}')
  model_input, inputs = (_object(value[key]) for key in _KEYS)
  assert isinstance(model_input, dict) and isinstance(inputs, dict)
  # Inputs and targets must be one sequence, shifted by one token.
  tokens = _tokens(model_input)
  targets = check_ids(_data(inputs, 'target_tokens'), 'target_tokens')
  if tokens[1:] != targets[:-1] or len(tokens) != len(targets):
    raise Malformed('target_tokens are not the tokens that follow model_input')

  # Authors of the tokens, from the weights.
  key = next((key for key in _MASKS if inputs.get(key) is not None), None)
  if key is None:
    raise Malformed(
      'loss_fn_inputs has neither weights nor mask: the authors are unknown'
    )
  weights = _data(inputs, key)
  if not isinstance(weights, list) or len(weights) != len(targets):
    raise Malformed(f'{key} must be a list with a number per target')
  for i, x in enumerate(weights):
    if type(x) not in (int, float):
      raise Malformed(f'{key} {i} is {kind(x)}, expected a number')
  # The first token is no target.
  sampled = [False, *(x != 0 for x in weights)]
  pieces, turns = pieces_from_mask([*tokens[:1], *targets], sampled)
  metadata = {k: v for k, v in value.items() if k not in _KEYS}
  return TokenChat(Chat(turns, None, metadata), pieces)


def _object(value: object) -> object:
  # Tables of text columns store objects as JSON.
  is_json = isinstance(value, str) and value.lstrip().startswith('{')
  return json_or_text(value) if is_json else value


def _tokens(model_input: Mapping) -> list[int]:
  chunks = model_input.get('chunks')
  if not isinstance(chunks, list):
    raise Malformed(f'chunks is {kind(chunks)}, expected a list')
  tokens: list[int] = []
  for i, chunk in enumerate(chunks):
    if not isinstance(chunk, dict):
      raise Malformed(f'chunk {i} is {kind(chunk)}, expected an object')
    type_ = chunk.get('type', 'encoded_text')
    if type_ != 'encoded_text':
      raise Malformed(f'chunk {i} is of type {quoted(type_)}: it has no tokens')
    tokens += check_ids(chunk.get('tokens'), f'chunk {i}: tokens')
  return tokens


def _data(inputs: Mapping, key: str) -> object:
  """Returns the numbers of a tensor, which may be a plain list."""
  tensor = inputs.get(key)
  if not isinstance(tensor, dict):
    return tensor
  shape = tensor.get('shape')
  if tensor.get('sparse_crow_indices') is not None or (
    isinstance(shape, list) and len(shape) > 1
  ):
    raise Malformed(f'{key} has several numbers per token, expected one')
  return tensor.get('data')
