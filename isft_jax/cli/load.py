"""Loads the chat model that --model or --checkpoint names."""

from isft_jax.data.records.dataset import Records
from isft_jax.data.rendering import tokenizer
from isft_jax.data.rendering.chat_template import ChatTemplate
from isft_jax.data.rendering.tokenizer import FastTokenizer
from isft_jax.hf import pretrained
from isft_jax.inference.chat_model import ChatModel
from isft_jax.train import saved


def chat_model_from_place(place: str) -> ChatModel:
  """Returns the model of a folder, hub id, GGUF file or preset.

  Raises ValueError if it, or its tokenizer, does not exist.
  """
  encoder = tokenizer.load(place)
  model, _ = pretrained.load(place)
  generation_config = pretrained.read_generation_config(place)
  return ChatModel(
    model, encoder, _own_template(encoder), {}, generation_config
  )


def chat_model_from_run(workdir: str) -> ChatModel:
  """Returns the model of a run's newest checkpoint.

  Its prompts are rendered as the run's records were. If the records are gone,
  the tokenizer's own template renders them.

  Raises ValueError if there is no checkpoint, or if the records were encoded
  piecewise.
  """
  model, _, encoder, run = saved.load(workdir)
  try:
    rendering = Records(run['records']).metadata['rendering']
  except (OSError, ValueError, KeyError):
    rendering = {'template': _own_template(encoder), 'values': {}}
  if rendering.get('piecewise'):
    raise ValueError(
      f'{workdir} was trained on turns whose headers were encoded apart from '
      'the words (config.piecewise), and prompts here are encoded whole; its '
      'own results.json has its probes'
    )
  template, values = rendering['template'], rendering.get('values', {})
  return ChatModel(model, encoder, template, values, {})


def _own_template(encoder: FastTokenizer) -> str:
  template = encoder.chat_template
  if isinstance(template, dict):
    template = template.get('default')
  return ChatTemplate(template).source if template else ''
