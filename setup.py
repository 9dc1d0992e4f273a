"""Packaging of ding_cawr."""
import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
ONNX = ['onnx>=1.17', 'onnxruntime>=1.20']
VIDEO = ['imageio[ffmpeg]>=2.22']
RAY = ['ray>=2.9']
MINARI = ['minari[hf]>=0.5']  # 0.5.3 is the last that takes numpy below 2
FILTERS = ['hdf5plugin>=4']

setup(
    name='ding_cawr',
    version=re.search(r"__version__ = '(.+)'", (ROOT / 'ding_cawr' / '__init__.py').read_text(encoding='utf-8'))[1],
    description='Advantage-weighted offline reinforcement learning (CAWR, A2PR, AWR, IQL) for DI-engine',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['ding_cawr', 'ding_cawr.*']),
    package_data={'ding_cawr.data': ['bundled_sets/*'], 'ding_cawr.compare': ['templates/*']},
    python_requires='>=3.10,<3.13',
    install_requires=[
        'DI-engine>=0.5.3,<0.6',
        # 2.6 is the first whose torch.load runs no code from a file by default; 2.13 wants a newer setuptools than
        # DI-engine allows.
        'torch>=2.6,<2.13',
        'numpy>=1.24,<2',
        'gymnasium>=1.0,<2',
        # One dynamics: from 3.5 on a Hopper-v4 episode of the same actions has another return, and from 3.17 on every
        # v4 Hopper or Walker2d that is made prints a deprecation warning.
        'mujoco>=3.1.6,<3.5',
        # gymnasium's MuJoCo module imports it.
        'imageio>=2.22',  # works with the pillow of today
        'h5py>=3.10',  # whose HDF5 tells the sizes of all chunks at once
        'easydict>=1.13',  # before, pop() of a missing key fails
        'click>=8',
        'matplotlib>=3.7',
        'pandas>=2.1',
        'markdown>=3.4',
        'tabulate>=0.9',  # writes pandas' tables as Markdown
        'filelock>=3.12',  # the first with thread_local
        'requests>=2.28',
        'rich>=13',  # bars whose end is not known yet
    ],
    extras_require={
        'docs': ['mkdocs>=1.6,<2', 'mkdocs-material>=9.5', 'mkdocstrings[python]>=1'],
        'lint': ['ruff>=0.5', 'import-linter>=2'],  # apart from 'test', whose oldest versions these would raise
        'filters': FILTERS,  # of compressed HDF5 files
        'minari': MINARI,
        'onnx': ONNX,
        'ray': RAY,
        'video': VIDEO,
        'test': [
            'pytest>=7', 'pytest-xdist>=3.2', 'hypothesis>=6', 'scipy>=1.10', 'tensorboard>=2.10', 'minari>=0.5',
            *FILTERS, *ONNX, *RAY, *VIDEO
        ],
    },
    entry_points={'console_scripts': ['cawr=ding_cawr.cli:cawr']},
    classifiers=[
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
)
