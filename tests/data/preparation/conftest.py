"""A renderer of short questions and answers in the plain format."""

import pytest

from isft_jax.data.rendering import chat_template, tokenizer
from isft_jax.data.rendering.renderer import Renderer


@pytest.fixture(scope='session')
def renderer():
  found = tokenizer.train(['User: What is it?\nAgent: It is. It is.\n'], 300)
  return Renderer(found, chat_template.PLAIN)
