"""A model to chat with: weights, tokenizer, chat template and stop rules."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Unpack

import jax
import jinja2
import numpy as np

from isft_jax.data.rendering import tokenizer
from isft_jax.data.rendering.chat_template import ChatTemplate
from isft_jax.data.rendering.tokenizer import FastTokenizer
from isft_jax.hf import pretrained
from isft_jax.inference.generate import DrawRows
from isft_jax.inference.replies import Reply, reply

_WORD = 'zqj'
# Of generation_config.json, beside the ids that end a reply.
SETTINGS = ('temperature', 'top_k', 'top_p', 'max_new_tokens')
# Those of a model that comes with none.
DEFAULTS = {
  'temperature': 0.0,
  'top_k': 0,
  'top_p': 1.0,
  'max_new_tokens': 256,
}


class Prompt(NamedTuple):
  """The ids before a reply. space: what the reply begins with, unsaid."""

  ids_T: np.ndarray
  space: str = ''


class ChatModel:
  """A model, and the template that its turns are written in.

  template, values: '' for a model that only continues text; what the template
    is given beside messages.
  stop_ids, stop_texts: what ends its turn.
  settings: those of `SETTINGS` that come with the model.
  records: the folder of the records that it was trained on; '' if unknown.
  """

  def __init__(
    self,
    model: pretrained.Model,
    encoder: FastTokenizer,
    template: str,
    values: Mapping[str, Any],
    found: Mapping[str, Any],
    records: str = '',
  ) -> None:
    self.model = model
    self.encoder = encoder
    self.records = records
    self.template, self.values = template, values
    self.settings = settings_of(found)
    ids = found.get('eos_token_id') or []
    ids = {*(ids if isinstance(ids, list) else [ids]), encoder.eos_token_id}
    self.stop_ids, self.stop_texts = sorted(ids - {None}), []
    closer = self._closer() if template else ''
    special = tokenizer.special_ids(encoder)
    for id, text in special.items():
      if closer.lstrip().startswith(text):
        self.stop_ids = sorted({id, *self.stop_ids})
        break
    else:
      self.stop_texts = [closer.strip() or closer] if closer else []

  def logits(self, tokens_BL: np.ndarray) -> jax.Array:
    """Returns float32 logits [B, L, V] of the token after each token."""
    return self.model(tokens_BL)

  def merge_settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all of `SETTINGS`: given, else the model's own, else defaults.

    Args:
      given: settings by name; None stands for one that is not given.
    """
    given = {name: value for name, value in given.items() if value is not None}
    return DEFAULTS | self.settings | given

  def prompt(self, said: str | Sequence[dict]) -> Prompt:
    """Returns the ids of a text, or of messages up to where the agent writes.

    A space that ends the generation header is not a token of its own, where
    the words after it take it up, as they did in training.

    Raises ValueError if the template refuses the messages.
    """
    if isinstance(said, str):
      return Prompt(np.asarray(self.encoder(said)['input_ids'], np.int32))
    if not self.template:
      raise ValueError('the tokenizer has no chat template for messages')
    try:
      text = self._render(said, add_generation_prompt=True)
    except (jinja2.TemplateError, TypeError, KeyError) as error:
      raise ValueError(
        f'the chat template refuses the messages: {error}'
      ) from error
    kept = text.rstrip(' ')
    encoder = tokenizer.encoder_of(self.encoder)
    ids = encoder.encode(kept, add_special_tokens=False).ids
    return Prompt(np.asarray(ids, np.int32), text[len(kept) :])

  def reply(
    self,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    stop_texts: Sequence[str],
    show: Callable[[int, str], bool] | None = None,
    **settings: Unpack[DrawRows],
  ) -> list[Reply]:
    """Returns a reply to each prompt; see `inference.replies.reply`."""

    def decode(index: int, ids: np.ndarray) -> str:
      # After its predecessor: some tokenizers drop a space that opens a text.
      last = prompts[index].ids_T[-1:]
      before, text = map(self._decode, (last, np.append(last, ids)))
      return text.removeprefix(before).removeprefix(prompts[index].space)

    return reply(
      *self.model,
      [prompt.ids_T for prompt in prompts],
      max_new_tokens,
      decode,
      stop_ids=self.stop_ids,
      stop_texts=stop_texts,
      show=show,
      **settings,
    )

  def _decode(self, ids: np.ndarray) -> str:
    return tokenizer.decode(
      self.encoder,
      ids,
      skip_special_tokens=True,
      clean_up_tokenization_spaces=False,
    )

  def _render(self, messages: Sequence[dict], **more: bool) -> str:
    text = self.encoder.apply_chat_template(
      list(messages),
      chat_template=self.template,
      tokenize=False,
      **{**self.values, **more},
    )
    assert isinstance(text, str)  # and not ids
    return text

  def _closer(self) -> str:
    """Returns what the template writes after the words of the agent."""
    turns = [{'role': r, 'content': _WORD} for r in ('user', 'assistant')]
    try:
      return self._render(turns).rpartition(_WORD)[2]
    except Exception:  # templates are programs that anyone wrote
      return ''


def chat_model_from_place(place: str) -> ChatModel:
  """Loads the model of a folder, hub id, GGUF file or preset.

  Raises:
    ValueError: the model or its tokenizer does not exist.
  """
  encoder = tokenizer.load(place)
  model, _ = pretrained.load(place)
  found = pretrained.read_generation_config(place)
  return ChatModel(model, encoder, template_of(encoder), {}, found)


def template_of(encoder: FastTokenizer) -> str:
  """Returns a tokenizer's own chat template, '' if it has none."""
  template = encoder.chat_template
  if isinstance(template, dict):
    template = template.get('default')
  return ChatTemplate(template).source if template else ''


def settings_of(found: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the `SETTINGS` in a generation_config.json, greedy if it is."""
  settings = {name: found[name] for name in SETTINGS if found.get(name)}
  if not found.get('do_sample'):
    length = settings.get('max_new_tokens')
    return {'temperature': 0.0} | ({'max_new_tokens': length} if length else {})
  return {'temperature': 1.0} | settings
