"""A small tokenizer with a chat template, for where nothing is downloaded."""

from collections.abc import Iterable

import transformers

from isft_jax.data.rendering import tokenizer

MARKS = ('<|im_start|>', '<|im_end|>')
# ChatML: schemas of tools first, a tool call as JSON in tags after the words.
TEMPLATE = """\
{%- if tools -%}
  {{- '<|im_start|>system\\nTools:\\n' -}}
  {%- for tool in tools -%}{{- (tool | tojson) + '\\n' -}}{%- endfor -%}
  {{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
  {{- '<|im_start|>' + message.role + '\\n' -}}
  {%- if message.content -%}{{- message.content -}}{%- endif -%}
  {%- for call in message.tool_calls or [] -%}
    {{- '<tool_call>{"name": "' + call.function.name + '", "arguments": ' -}}
    {%- if call.function.arguments is string -%}
      {{- call.function.arguments -}}
    {%- else -%}
      {{- call.function.arguments | tojson -}}
    {%- endif -%}
    {{- '}</tool_call>' -}}
  {%- endfor -%}
  {{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def train(
  texts: Iterable[str], vocab_size: int
) -> transformers.PreTrainedTokenizerFast:
  """Trains a byte-level BPE that has the template and its marks.

  texts: what it learns to write in few tokens; any other text has ids too.
  vocab_size: at most so many ids, the two marks aside; 257 at least.
  """
  encoder = tokenizer.train(texts, vocab_size)
  encoder.add_special_tokens({'additional_special_tokens': list(MARKS)})
  encoder.chat_template = TEMPLATE
  return encoder
