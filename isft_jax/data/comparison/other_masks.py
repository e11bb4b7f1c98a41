"""Loss masks of other trainers, computed by their own code.

    trainer = other_masks.load('trl', renderer)
    tokens_T, scored_T = trainer.mask(trajectory)

Each trainer gets the messages and tool schemas that our renderer gets, with the
same tokenizer and chat template, and renders them as it would before training:

  trl             TRL's `SFTTrainer` with assistant_only_loss=True: the template
                  that its `get_training_chat_template` returns, unless the
                  template has {% generation %} marks already
  renderers       `build_training_sample` of Prime Intellect's `renderers`: the
                  tokens of assistant messages in `sampled_mask`
  assistant_mask  transformers' `return_assistant_tokens_mask` with the {%
                  generation %} marks of the chat template itself
"""

import copy
import importlib.metadata
import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from isft_jax.data.rendering import chat_template
from isft_jax.data.rendering.call_forms import (
  with_call_ids,
  with_text_arguments,
)
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.data.rendering.tokenizer import FastTokenizer
from isft_jax.types import Trajectory

NAMES = ('trl', 'renderers', 'assistant_mask')

# With the white space control that Jinja allows, as TRL tests it.
_GENERATION = re.compile(r'\{%-?\s*generation\s*-?%\}')


class CannotRender(ValueError):
  """Raised for a conversation that the other trainer cannot render."""


class Masked(NamedTuple):
  """A conversation as another trainer's tokens and loss mask."""

  tokens_T: np.ndarray  # int32
  scored_T: np.ndarray  # bool, whether the token is a target of the loss


class Trainer(NamedTuple):
  """Another trainer."""

  name: str  # with its version, as in 'TRL 1.16.0'
  # Raises CannotRender.
  mask: Callable[[Trajectory], Masked]


def load(against: str, renderer: Renderer, model: str = 'auto') -> Trainer:
  """Returns another trainer that uses the tokenizer of a renderer.

  Args:
    against: one of `NAMES`.
    renderer: our renderer. The trainer gets its tokenizer, its chat template
      and its values for the template.
    model: name of a class of `renderers`, as in 'qwen3'; 'auto' chooses it by
      the hub id of the tokenizer.

  Raises:
    ValueError: the package is not installed, or the trainer does not support
      the chat template.
  """
  # Missing packages and unfit templates are errors here, before any row.
  if against == 'trl':
    name, mask = _trl(renderer)
  elif against == 'renderers':
    name, mask = _renderers(renderer, model)
  elif against == 'assistant_mask':
    name, mask = _assistant_mask(renderer)
  else:
    raise ValueError(
      f'--against must be one of {", ".join(NAMES)} (got {against!r})'
    )

  def checked(trajectory: Trajectory) -> Masked:
    tools = [dict(tool) for tool in trajectory.tools or ()]
    messages = chat_template.messages_of(trajectory)
    values = {**renderer.rendering['values'], **trajectory.template_values}
    # The forms of messages that our renderer tries.
    digits = renderer.rendering.get('call_id_digits', 0)
    if digits:
      messages = with_call_ids(messages, digits)
    forms = [messages, with_text_arguments(messages)]
    failed: Exception | None = None
    for form in filter(None, forms):
      # Their code may change what it is given, and can raise any error.
      try:
        tokens, scored = mask(*copy.deepcopy((form, tools or None, values)))
      except Exception as error:
        failed = failed or error
        continue
      scored_T = np.array(scored, bool)
      # Labels are shifted by one: no trainer predicts the first token.
      scored_T[:1] = False
      return Masked(np.array(tokens, np.int32), scored_T)
    # No form could be rendered. The error of the first one names the cause.
    line = ' '.join(str(failed).split())[:200]
    raise CannotRender(f'{type(failed).__name__}: {line}') from failed

  return Trainer(name, checked)


# (messages, tools, values for the template) -> ids and mask.
_Mask = Callable[[list[dict], list[dict] | None, dict], tuple[list, list]]


def _template(renderer: Renderer, has_tools: bool = False) -> str:
  """Returns the chat template, by the same choice as transformers."""
  template = renderer.rendering['template']
  if isinstance(template, str):
    return template
  name = 'tool_use' if has_tools and 'tool_use' in template else 'default'
  return template.get(name) or next(iter(template.values()))


def _assistant_mask(renderer: Renderer) -> tuple[str, _Mask]:
  templates = [_template(renderer, has_tools) for has_tools in (False, True)]
  if not all(map(_GENERATION.search, templates)):
    raise ValueError(
      'the chat template has no {% generation %} marks, so that '
      'return_assistant_tokens_mask would select no token; name a template '
      'that has them with --chat_template, or use --against=trl'
    )
  version = importlib.metadata.version('transformers')
  return f'transformers {version}', _marks(renderer)


def _trl(renderer: Renderer) -> tuple[str, _Mask]:
  try:
    from trl import chat_template_utils
  except ImportError as error:
    raise ValueError(
      f"--against=trl needs pip install -e '.[diff]' ({error})"
    ) from error
  # Where a tokenizer has several templates, TRL takes the default.
  template = _template(renderer)
  if not _GENERATION.search(template):
    # TRL knows a template by its text, with the call that prints the date.
    # Ours has a fixed date in its place.
    known = [
      text
      for name, text in vars(chat_template_utils).items()
      if name.endswith('_chat_template') and isinstance(text, str)
    ]
    same = (text for text in known if _frozen(text) == template)
    tokenizer = copy.deepcopy(renderer.tokenizer)
    tokenizer.chat_template = next(same, template)
    try:
      patched = chat_template_utils.get_training_chat_template(tokenizer)
    except Exception as error:
      # TRL renders test conversations, and templates can raise any error.
      raise ValueError(
        f'TRL has no training template for this chat template ({error}); name '
        'one with {% generation %} marks with --chat_template'
      ) from error
    template = chat_template.freeze(patched or tokenizer.chat_template)
  return f'TRL {importlib.metadata.version("trl")}', _marks(renderer, template)


def _frozen(template: str) -> str:
  """Returns `freeze(template)`, or '' if the date cannot be fixed."""
  try:
    return chat_template.freeze(template)
  except ValueError:
    return ''


def _marks(renderer: Renderer, template: str = '') -> _Mask:
  """Returns a function that reads the {% generation %} marks of a template.

  Args:
    renderer: our renderer.
    template: the template; by default that of the renderer.
  """
  tokenizer: FastTokenizer = renderer.tokenizer

  def mask(
    messages: list, tools: list | None, values: dict
  ) -> tuple[list, list]:
    # return_dict=True returns a mapping, which the annotation does not say.
    encoded: Any = tokenizer.apply_chat_template(
      messages,
      tools=tools,
      chat_template=template or _template(renderer, tools is not None),
      return_dict=True,
      return_assistant_tokens_mask=True,
      **values,
    )
    return encoded['input_ids'], encoded['assistant_masks']

  return mask


def _renderers(renderer: Renderer, model: str) -> tuple[str, _Mask]:
  # The package is optional, and imported only for this comparison.
  try:
    import renderers
  except ImportError as error:
    raise ValueError(
      f"--against=renderers needs pip install -e '.[renderers]' ({error})"
    ) from error
  # 'auto', or the name of one of the package's classes.
  try:
    config = renderers.config_from_name(model)
  except Exception as error:
    raise ValueError(f'--renderer={model}: {error}') from error
  # `DefaultRenderer` applies the tokenizer's own template.
  tokenizer = copy.deepcopy(renderer.tokenizer)
  tokenizer.chat_template = _template(renderer)

  def create(values: dict) -> Any:
    return renderers.create_renderer(
      tokenizer, config, chat_template_kwargs=values or None
    )

  # Rows may have values of their own, which need another renderer.
  created = {}
  values = renderer.rendering['values']
  # Create the first one now, so that an unsupported tokenizer fails early.
  try:
    theirs = created[json.dumps(values)] = create(values)
  except Exception as error:
    line = ' '.join(str(error).split())[:200]
    raise ValueError(
      f'--renderer={model}: renderers does not support this tokenizer ({line})'
    ) from error

  def mask(
    messages: list, tools: list | None, values: dict
  ) -> tuple[list, list]:
    key = json.dumps(values)
    if key not in created:
      created[key] = create(values)
    # All tokens of assistant messages are targets, and no others.
    sample = renderers.build_training_sample(
      created[key],
      messages,
      role_to_mask=lambda message: message['role'] == 'assistant',
      tools=tools,
    )
    return sample.token_ids, sample.loss_mask

  version = importlib.metadata.version('renderers')
  return f'renderers {version} ({type(theirs).__name__})', mask
