"""Tokenizers with the markers of a chat template as special tokens.

Real tokenizers need a network. The ids of a small one differ, but its markers
are single tokens where those of the real one are.
"""

import functools
import re

import tokenizers
import transformers

from tests.data.chat_tokenizer import CORPUS

# Markers of the forms <|x|>, <x|>, <|x> and DeepSeek's bars, and by name.
_MARKER = re.compile(
  r'<\|[^<>|\s\'"{}]{1,40}\|?>|<[^<>|\s\'"{}]{1,40}\|>'
  r'|<\uff5c[^<>\'"{}]{1,40}\uff5c>|</?s>'
  r'|<(?:bos|eos|sop|eop|start_of_turn|end_of_turn|end_of_utterance)>'
  r'|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|'
  r'TOOL_CONTENT|ARGS|CALL_ID|THINK|gMASK)\]'
)
# One id each, but ordinary text, as in Qwen's vocabulary.
_TAG = re.compile(
  r'</?(?:think|tool_call|tool_response|tools|arg_key|arg_value)>'
)


@functools.cache
def marker_tokenizer(
  template: str,
  more: tuple[str, ...] = (),
  eos: str = '',
  bos: str = '<bos>',
) -> transformers.PreTrainedTokenizerFast:
  """Returns a small byte-level BPE for a chat template.

  Args:
    template: its text, which the tokenizer gets.
    more: special tokens and tags besides those that the template shows.
    eos: the end-of-text token; by default a usual one that the template names.
    bos: the begin-of-text token.
  """
  markers = dict.fromkeys([*_MARKER.findall(template), *more])
  tags = dict.fromkeys(_TAG.findall(f'{template} {" ".join(more)}'))
  usual = ('<|im_end|>', '<|eot_id|>', '<|return|>', '<|end|>', '</s>')
  eos = eos or next((m for m in usual if m in markers), '<|endoftext|>')
  bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
  bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=False
  )
  bpe.decoder = tokenizers.decoders.ByteLevel()
  special = dict.fromkeys(['<|pad|>', bos, eos, *markers])
  special = [token for token in special if token not in tags]
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=500 + len(special),
    special_tokens=special,
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  bpe.train_from_iterator(CORPUS, trainer)
  bpe.add_tokens([tokenizers.AddedToken(tag, normalized=False) for tag in tags])
  tokenizer = transformers.PreTrainedTokenizerFast(
    tokenizer_object=bpe, bos_token=bos, eos_token=eos, pad_token='<|pad|>'
  )
  tokenizer.chat_template = template
  return tokenizer
