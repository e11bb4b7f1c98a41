"""A random model that speaks ChatML, as a Hugging Face folder."""

import dataclasses

import jax
import numpy as np
import pytest

from isft_jax.config import ModelConfig
from isft_jax.hf import pretrained
from isft_jax.inference import chat_model as chat_model_lib
from isft_jax.models import decoder
from tests.dialogues import chatml_tokenizer

CONFIG = ModelConfig(
  width=16,
  layers=1,
  heads=2,
  kv_heads=1,
  head_size=8,
  mlp_width=24,
  qkv_bias=True,
  tie_embeddings=False,  # tied, random weights mostly repeat their input
)


@pytest.fixture(scope='session')
def served_folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('served')
  tokenizer = chatml_tokenizer()
  config = dataclasses.replace(CONFIG, vocab_size=len(tokenizer))
  rng, (graphdef, shapes) = np.random.default_rng(0), decoder.abstract(config)
  params = jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes
  )
  # Logits of 0, where the largest is about 10: replies end by their length.
  stops = tokenizer.convert_tokens_to_ids(['<|endoftext|>', '<|im_end|>'])
  params['head'][stops] = 0
  model = pretrained.Model(graphdef, params)
  pretrained.save(model, config, path, own_tokenizer=True)
  tokenizer.save_pretrained(path)
  return path


@pytest.fixture(scope='session')
def served_model(served_folder):
  return chat_model_lib.chat_model_from_place(str(served_folder))
