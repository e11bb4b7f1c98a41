"""A tokenizer for tests of chat templates, and the templates themselves."""

import functools
import pathlib

import tokenizers
import transformers

from isft_jax.data.rendering.chat_template import messages_of

TEMPLATES = pathlib.Path(__file__).parent / 'templates'
NAMES = ('chatml', 'qwen3_like', 'llama3_like')

SPECIAL = (
  '<|pad|>',
  '<|begin_of_text|>',
  '<|end_of_text|>',
  '<|im_start|>',
  '<|im_end|>',
  '<|start_header_id|>',
  '<|end_header_id|>',
  '<|eot_id|>',
)
# One id each, though anyone may write them, as in Qwen3's vocabulary.
ADDED = ('<think>', '</think>', '<tool_call>', '</tool_call>')

CORPUS = (
  'The user asked for the weather, and the agent called the tool at once.',
  'The tool answered {"city": "Paris", "degrees": 21, "rain": false}.',
  'system user assistant tool ipython name arguments parameters function',
  'I would like to change my flight; could you help me with that, please?',
  'def main():\n    for line in open(path):\n        print(line.strip())\n',
)


def template(name: str) -> str:
  """Returns the text of a template of the tests."""
  return (TEMPLATES / f'{name}.jinja').read_text()


def text_of(renderer, trajectory) -> str:
  """Returns the text of transformers' apply_chat_template."""
  return renderer.tokenizer.apply_chat_template(
    messages_of(trajectory),
    tools=None if trajectory.tools is None else list(trajectory.tools),
    chat_template=renderer.rendering['template'],
    tokenize=False,
    **renderer.rendering['values'],
  )


@functools.cache
def trained(
  texts: tuple[str, ...] = CORPUS,
  vocab_size: int = 700,
  trim_offsets: bool | None = None,
  eos: str = '<|end_of_text|>',
  pad: str = '<|pad|>',
  first: str = '<|pad|>',
  use_regex: bool = True,
) -> transformers.PreTrainedTokenizerFast:
  """Returns a byte-level BPE with the templates' markers as special tokens.

  trim_offsets: of a post-processor, which leaves white space out of offsets
    where it is True; None for a tokenizer without one.
  first: the special token that has id 0.
  use_regex: whether words are split before merges, or merges may cross all.
  """
  bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
  bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=False, use_regex=use_regex
  )
  bpe.decoder = tokenizers.decoders.ByteLevel()
  if trim_offsets is not None:
    bpe.post_processor = tokenizers.processors.ByteLevel(
      add_prefix_space=False, trim_offsets=trim_offsets
    )
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=vocab_size,
    special_tokens=[first, *(text for text in SPECIAL if text != first)],
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  bpe.train_from_iterator(texts, trainer)
  bpe.add_tokens([tokenizers.AddedToken(text) for text in ADDED])
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=bpe,
    bos_token='<|begin_of_text|>',
    eos_token=eos,
    pad_token=pad,
    additional_special_tokens=[*SPECIAL[3:]],
  )


def applied(
  tokenizer, template: str, messages: list[dict], tools=None, **values
) -> list[int]:
  """Returns the ids that transformers gives, dates as they are frozen."""
  return tokenizer.apply_chat_template(
    messages,
    tools=tools,
    chat_template=template,
    tokenize=True,
    return_dict=False,
    **values,
  )
