"""Names in a chat template: which keys of messages it can use."""

import functools
from collections.abc import Mapping

from jinja2 import nodes

from isft_jax.data.rendering.jinja_env import Environment

# Nodes of a template with a name, and the attribute that holds it.
_NAMED = ((nodes.Getattr, 'attr'), (nodes.Const, 'value'), (nodes.Name, 'name'))


def template_names(template: str | Mapping[str, str]) -> frozenset[str]:
  """Returns the attributes, texts and variables in a template's expressions.

  A key of a message can be used only if it is among them, as in `message.name`,
  `message['name']` or `message.get('name')`.

  Args:
    template: the text of the template, or several texts by name.
  """
  sources = [template] if isinstance(template, str) else template.values()
  return frozenset().union(*map(_names, sources))


@functools.cache
def _names(source: str) -> frozenset[str]:
  tree = Environment().parse(source)
  names = {
    getattr(node, attribute)
    for kind, attribute in _NAMED
    for node in tree.find_all(kind)
  }
  return frozenset(name for name in names if isinstance(name, str))
