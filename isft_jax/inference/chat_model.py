"""A model to chat with: weights, tokenizer, chat template and stop rules."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Unpack

import jax
import numpy as np

from isft_jax import files
from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.data.rendering.chat_template import ChatTemplate
from isft_jax.data.rendering.limits import OverLimitError
from isft_jax.data.rendering.tokenizer import FastTokenizer
from isft_jax.hf import adapter_folder, pretrained, tensor_files
from isft_jax.inference.generate import DrawRows
from isft_jax.inference.replies import Reply, reply

# Text of an example reply, unlikely to occur in a chat template.
_WORD = 'zqj'
# Settings that are read from generation_config.json, apart from the stop ids.
SETTINGS = ('temperature', 'top_k', 'top_p', 'max_new_tokens')
# Values of settings that a model does not have.
DEFAULTS = {
  'temperature': 0.0,
  'top_k': 0,
  'top_p': 1.0,
  'max_new_tokens': 256,
}


class Prompt(NamedTuple):
  """Token ids before a reply.

  Attributes:
    ids_T: int32, ids of the prompt.
    space: spaces that end the prompt's text, but belong to the first token of
      the reply. They are removed from the reply's text.
  """

  ids_T: np.ndarray
  space: str = ''


class ChatModel:
  """A model with its tokenizer and chat template.

  Attributes:
    model: decoder with its parameters.
    tokenizer: the transformers tokenizer.
    template: chat template; '' for a model that only continues text.
    values: arguments of the template other than messages.
    stop_ids: ids that end the agent's turn.
    stop_texts: texts that end it, if no id does.
    settings: default values of `SETTINGS`.
    records: folder of the records of its training; '' if unknown.
    place: where the parameters are, for people; '' if unknown.
  """

  def __init__(
    self,
    model: pretrained.Model,
    tokenizer: FastTokenizer,
    template: str,
    values: Mapping[str, Any],
    generation_config: Mapping[str, Any],
    records: str = '',
    place: str = '',
  ) -> None:
    """Finds the stop rules of a model.

    Args:
      model: decoder with its parameters.
      tokenizer: the transformers tokenizer.
      template: chat template, or ''.
      values: arguments of the template other than messages.
      generation_config: content of generation_config.json, or {}.
      records: folder of the records of its training; '' if unknown.
      place: where the parameters are, for people; '' if unknown.

    Raises:
      ValueError: the template does not compile, exceeds a limit, or leaves out
        the words of messages.
    """
    self.model = model
    self.tokenizer = tokenizer
    self.records, self.place = records, place
    self.template, self.values = template, values
    # Special tokens are variables of a template, such as bos_token.
    variables = {**tokenizer.special_tokens_map, **values}
    self._chat = ChatTemplate(template, variables) if template else None
    self.settings = settings_from_generation_config(generation_config)
    # Stop ids of the generation config and of the tokenizer.
    # Not `or []`: 0 is an id too.
    ids = generation_config.get('eos_token_id', [])
    ids = {*(ids if isinstance(ids, list) else [ids]), tokenizer.eos_token_id}
    # A model without an end-of-text token has None here.
    self.stop_ids, self.stop_texts = sorted(ids - {None}), []
    # transformers gives a token that is not in the vocabulary a new id. No
    # reply would ever end with it.
    self._check_ids(self.stop_ids, 'stops at')
    # The template closes the agent's turn with a special token, which becomes a
    # stop id, or with plain text, which becomes a stop text.
    closer = self._closer() if template else ''
    special = tokenizer_lib.special_ids(tokenizer)
    for id, text in special.items():
      if closer.lstrip().startswith(text):
        self.stop_ids = sorted({id, *self.stop_ids})
        break
    else:
      self.stop_texts = [closer.strip() or closer] if closer else []

  def logits(self, tokens_BL: np.ndarray) -> jax.Array:
    """Computes the logits of all tokens.

    Args:
      tokens_BL: ids of rows without padding.

    Returns:
      float32 [B, L, V], for the token after each token.
    """
    return self.model(tokens_BL)

  def merge_settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
    """Fills in the settings that are not given.

    Args:
      given: settings by name. None means that it is not given.

    Returns:
      All of `SETTINGS`. Values not given come from the model, else from
      `DEFAULTS`.
    """
    # None means that a setting is not given.
    given = {name: value for name, value in given.items() if value is not None}
    # Later dicts win: given, then the model's, then the defaults.
    return DEFAULTS | self.settings | given

  def prompt(self, conversation: str | Sequence[dict]) -> Prompt:
    """Encodes a text, or messages followed by the agent's generation header.

    Args:
      conversation: text to continue, or messages.

    Returns:
      The ids before the reply.

    Raises:
      ValueError: the template refuses the messages, or the model has none.
    """
    if isinstance(conversation, str):
      # With the special tokens that the tokenizer adds to plain text.
      encoded = self.tokenizer(conversation)['input_ids']
      return Prompt(self._check_ids(encoded, 'gives'))
    if not self.template:
      raise ValueError('the tokenizer has no chat template for messages')
    try:
      text = self._render(conversation, add_generation_prompt=True)
    except Exception as error:  # a template is a program: it raises anything
      words = files.one_line(error) or type(error).__name__
      if not isinstance(error, OverLimitError):
        words = f'refuses the messages: {words}'
      name = self.tokenizer.name_or_path
      raise ValueError(
        f'{name}{": " if name else ""}the chat template {words}'
      ) from error
    # In training, a space at the end of the header was part of the token of the
    # first word. So it is not encoded here as a token of its own.
    kept = text.rstrip(' ')
    fast = tokenizer_lib.rust_tokenizer(self.tokenizer)
    ids = fast.encode(kept, add_special_tokens=False).ids
    return Prompt(self._check_ids(ids, 'gives'), text[len(kept) :])

  def _check_ids(self, ids: Sequence[int], verb: str) -> np.ndarray:
    """Returns ids as an array; ValueError if the model has no such token."""
    ids_T = np.asarray(ids, np.int64)
    table = self.model.params.get('embedding')
    # jax would read the last row of the table instead.
    if table is not None and (ids_T >= (rows := table.shape[0])).any():
      raise ValueError(
        f'the tokenizer {verb} the id {ids_T.max()}, but the model has only '
        f'{rows} tokens; load the tokenizer that belongs to the model'
      )
    return ids_T.astype(np.int32)

  def reply(
    self,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    stop_texts: Sequence[str],
    show: Callable[[int, str], bool] | None = None,
    **settings: Unpack[DrawRows],
  ) -> list[Reply]:
    """Generates a reply to each prompt.

    Args:
      prompts: results of `prompt`.
      max_new_tokens: maximum tokens per reply.
      stop_texts: texts that end a reply, as well as the model's stop ids.
      show: see `inference.replies.reply`.
      **settings: sampling, seed, rows and block; see
        `inference.generate.generate`.

    Returns:
      One reply per prompt.
    """
    return reply(
      *self.model,
      [prompt.ids_T for prompt in prompts],
      max_new_tokens,
      lambda index, ids: self.decode_reply(prompts[index], ids),
      stop_ids=self.stop_ids,
      stop_texts=stop_texts,
      show=show,
      **settings,
    )

  def decode_reply(self, prompt: Prompt, ids_T: np.ndarray) -> str:
    """Returns the text of a reply, without special tokens.

    Args:
      prompt: the prompt that it answers.
      ids_T: int32, ids of the reply.
    """
    # Some tokenizers drop a space at the start of a text. So decode the ids
    # after the last one of the prompt, and remove its text.
    last = prompt.ids_T[-1:]
    before, text = map(self._decode, (last, np.append(last, ids_T)))
    return text.removeprefix(before).removeprefix(prompt.space)

  def _decode(self, ids: np.ndarray) -> str:
    # Special tokens, such as the stop token, are not part of a reply's text.
    return tokenizer_lib.decode(
      self.tokenizer,
      ids,
      skip_special_tokens=True,
      clean_up_tokenization_spaces=False,
    )

  def _render(self, messages: Sequence[dict], **more: bool) -> str:
    """Returns the text of apply_chat_template, which has no limits itself."""
    assert self._chat  # only models with a template render messages
    return self._chat.render_messages(list(messages), more=more)

  def _closer(self) -> str:
    """Returns the text that the template writes after the agent's words."""
    # Render one exchange, and take the text after the last occurrence of the
    # word.
    turns = [{'role': r, 'content': _WORD} for r in ('user', 'assistant')]
    try:
      text = self._render(turns)
    except OverLimitError as error:
      raise ValueError(
        f'the chat template {error} for a short exchange; use the template '
        'that belongs to the model'
      ) from error
    except Exception:  # a template is a program, and may raise anything
      return ''
    # The model would reply to nothing.
    if _WORD not in text.lower():
      raise ValueError(
        'the chat template leaves out the words of messages; use the template '
        'that belongs to the model'
      )
    return text.rpartition(_WORD)[2]


def chat_model_from_place(
  place: str, tokenizer_place: str = '', adapter: str = ''
) -> ChatModel:
  """Loads a model to chat with.

  Args:
    place: a folder, a hub id, a GGUF file or a preset.
    tokenizer_place: the same, for its tokenizer; '' means the same place.
    adapter: folder of an adapter that is merged into it, or ''.

  Returns:
    The model, with the tokenizer's own chat template.

  Raises:
    ValueError: the model or its tokenizer does not exist, is damaged or is not
      supported. The message names the file.
  """
  # Small files first: their errors need no weights. transformers reads the
  # config too, with less helpful messages.
  if tensor_files.is_folder(place):
    pretrained.read_config(place)
  tokenizer = tokenizer_lib.load(tokenizer_place or place)
  # Stop ids and sampling settings that come with the model.
  generation_config = pretrained.read_generation_config(place)
  model, config = pretrained.load(place)
  if adapter:
    params = adapter_folder.merged(adapter, place, model.params, config)
    model = model._replace(params=params)
  try:
    template = template_from_tokenizer(tokenizer)
    return ChatModel(
      model, tokenizer, template, {}, generation_config, place=place
    )
  except ValueError as error:
    raise ValueError(f'{place}: {error}') from error


def chat_model_from_rendering(
  model: pretrained.Model,
  tokenizer: FastTokenizer,
  rendering: Mapping[str, Any],
  records: str = '',
  place: str = '',
) -> ChatModel:
  """Returns a model that is asked in the format of its training records.

  Args:
    model: decoder with its parameters.
    tokenizer: the tokenizer of the records.
    rendering: how their text was made; see `Renderer.rendering`. Without a
      template, the template is that of the tokenizer.
    records: folder of the records; '' if unknown.
    place: where the parameters are, for people; '' if unknown.
  """
  template = rendering.get('template') or template_from_tokenizer(tokenizer)
  # The default template is for conversations without tools.
  if isinstance(template, Mapping):
    template = template.get('default') or next(iter(template.values()))
  # Values are arguments of the template. Old records have none.
  values = rendering.get('values', {})
  return ChatModel(model, tokenizer, template, values, {}, records, place)


def template_from_tokenizer(tokenizer: FastTokenizer) -> str:
  """Returns a tokenizer's own chat template, or '' if it has none."""
  template = tokenizer.chat_template
  # A tokenizer may have several templates by name.
  if isinstance(template, dict):
    template = template.get('default')
  return ChatTemplate(template).source if template else ''


def settings_from_generation_config(
  generation_config: Mapping[str, Any],
) -> dict[str, Any]:
  """Returns the default sampling settings of a model.

  Args:
    generation_config: content of generation_config.json.

  Returns:
    Values of `SETTINGS`. Temperature 0 (greedy) if `do_sample` is not set.
  """
  settings = {
    name: generation_config[name]
    for name in SETTINGS
    if generation_config.get(name) is not None
  }
  # transformers ignores the sampling settings if do_sample is false.
  if not generation_config.get('do_sample'):
    length = settings.get('max_new_tokens')
    return {'temperature': 0.0} | ({'max_new_tokens': length} if length else {})
  # No probability is left to sample from: only the most likely token.
  if settings.get('top_p') == 0:
    settings |= {'temperature': 0.0, 'top_p': 1.0}
  # The default of transformers is temperature 1.
  return {'temperature': 1.0} | settings
